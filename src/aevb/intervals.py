"""Means with their standard errors, and intervals of means over few trainings."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from aevb.files import InputError

Z95 = 1.96
"""Standard errors on either side of a mean over many values, for a 95 % interval."""


def mean_and_se(values: ArrayLike) -> tuple[float, float]:
    """Mean of independent values and its standard error, s / √n, in float64."""
    numbers = np.asarray(values, np.float64)
    return float(numbers.mean()), float(numbers.std(ddof=1) / math.sqrt(len(numbers)))


def mean_with_error(name: str, values: ArrayLike) -> dict[str, float]:
    """The mean of values, one an image, as `name`, and its standard error as `name_se`.

    Raises:
        InputError: for a single image, whose standard error is unknown.
    """
    if np.size(values) < 2:
        raise InputError("the test set has fewer than two images: no standard error can be given")
    mean, error = mean_and_se(values)
    return {name: mean, f"{name}_se": error}


def student(freedom: int, probability: float) -> float:
    """The quantile of Student's distribution with so many degrees of freedom."""
    from scipy.special import stdtrit  # here, since most users of this module need means alone

    return float(stdtrit(freedom, probability))


def student_half_width(values: Sequence[float], level: float = 0.95) -> float:
    """Half the width of Student's interval of the mean; nan for fewer than two values."""
    if len(values) < 2:
        return math.nan
    return student(len(values) - 1, (1 + level) / 2) * mean_and_se(values)[1]
