"""Means, their standard errors and their 95 % intervals."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Estimate(NamedTuple):
    """A mean, its standard error, and the ends of its 95 % interval by Student's t."""

    mean: float
    se: float
    low: float
    high: float

    def text(self, sign: str = "") -> str:
        """`mean [low, high]`; with the sign "+", positive numbers have a sign too."""
        return f"{self.mean:{sign}.2f} [{self.low:{sign}.2f}, {self.high:{sign}.2f}]"


def mean(values: ArrayLike) -> float:
    """Mean in float64. `fsum` rounds the sum once, so its bits do not depend on the machine."""
    numbers = np.asarray(values, np.float64).ravel()
    return math.fsum(numbers.tolist()) / numbers.size


def mean_and_se(values: ArrayLike) -> tuple[float, float]:
    """Mean of independent values and its standard error, s / √n, in float64."""
    numbers, centre = np.asarray(values, np.float64), mean(values)
    deviations = numbers - centre
    squares = math.fsum((deviations * deviations).ravel().tolist())
    return centre, math.sqrt(squares / (numbers.size - 1) / numbers.size)


def means_with_errors(values: Mapping[str, ArrayLike]) -> dict[str, float]:
    """The mean over images of each quantity and, as `…_se`, its standard error."""
    metrics: dict[str, float] = {}
    for name, per_image in values.items():
        metrics[name], metrics[f"{name}_se"] = mean_and_se(per_image)
    return metrics


def student(freedom: int, probability: float) -> float:
    """Quantile of Student's t distribution with the given degrees of freedom.

    SciPy's last digits may depend on the machine; only the first ten digits are kept.
    """
    from scipy.special import stdtrit  # here, since most users of this module need means alone

    return float(f"{stdtrit(freedom, probability):.10g}")


def estimate(values: ArrayLike) -> Estimate:
    """Mean, standard error and 95 % interval of at least two independent values."""
    centre, se = mean_and_se(values)
    half = student(np.size(values) - 1, 0.975) * se
    return Estimate(centre, se, centre - half, centre + half)
