"""How alike two sets of points are, and how much of one the other covers.

The sets are `real`, [N, D], and `fake`, [M, D]: features of test images and of samples, say.
Precision and recall are those of Kynkäänniemi et al. 2019 (arXiv:1904.06991), equations 1 and 2;
density and coverage those of Naeem et al. 2020 (arXiv:2002.09797), section 3. All four are made of
balls around each point that reach to its k-th nearest neighbour in its own set. For two sets from
one distribution, density is 1 in the mean and coverage 1 − 2⁻ᵏ, for many points.
"""

import math

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

from aevb.files import Arrays

BLOCK = 500
"""Fake points whose distances to all real ones are held at a time."""
FOLDS = 10
"""Disjoint parts of both sets whose spread gives the standard errors."""

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def reach(points: Doubles, neighbours: int) -> Doubles:
    """The distance of each point to its k-th nearest neighbour among the others, [N]."""
    found = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(points)
    distances: Doubles = found.kneighbors()[0][:, -1]
    return distances


def overlap(real: Doubles, fake: Doubles, neighbours: int) -> Arrays:
    """How the balls of each set, which reach to the k-th neighbour, hold the points of the other.

    A ball holds what lies on its rim.

    Returns:
        balls: int32 [M], the balls of real points that hold each fake one.
        covered: bool [N], real points whose ball holds a fake one.
        recalled: bool [N], real points that lie in the ball of a fake one.
    """
    real_reach, fake_reach = reach(real, neighbours), reach(fake, neighbours)
    balls = np.zeros(len(fake), np.int32)
    covered, recalled = np.zeros((2, len(real)), bool)
    for start in range(0, len(fake), BLOCK):
        block = slice(start, start + BLOCK)
        distance = pairwise_distances(fake[block], real)
        inside = distance <= real_reach
        balls[block] = inside.sum(1)
        covered |= inside.any(0)
        recalled |= (distance <= fake_reach[block, None]).any(0)
    return {"balls": balls, "covered": covered, "recalled": recalled}


def frechet(real: Doubles, fake: Doubles) -> float:
    """Squared Fréchet distance of the Gaussians with the sets' means m, n and covariances S, T.

    ‖m − n‖² + tr(S + T − 2 (S½ T S½)½) ≥ 0: Heusel et al. 2017 (arXiv:1706.08500), equation 6. In
    other features than Inception's it is no FID, and comparable with its like alone. It is biased
    upwards by about 1 / N.
    """
    (m, s), (n, t) = ((x.mean(0), np.atleast_2d(np.cov(x, rowvar=False))) for x in (real, fake))
    # Symmetric, unlike (S T)½ with the same eigenvalues: rounding gives no complex numbers.
    values, axes = np.linalg.eigh(s)
    root = axes * np.sqrt(values.clip(0)) @ axes.T
    both = np.sqrt(np.linalg.eigvalsh(root @ t @ root).clip(0)).sum()
    return max(float(np.square(m - n).sum() + np.trace(s) + np.trace(t) - 2 * both), 0.0)


def scores(real: Doubles, fake: Doubles, neighbours: int) -> tuple[dict[str, float], Arrays]:
    """Precision, recall, density, coverage and Fréchet distance; what the first four count."""
    points = overlap(real, fake, neighbours)
    return {
        "precision": float(np.mean(points["balls"] > 0)),
        "recall": float(np.mean(points["recalled"])),
        "density": float(np.mean(points["balls"]) / neighbours),
        "coverage": float(np.mean(points["covered"])),
        "frechet": frechet(real, fake),
    }, points


def scores_with_errors(
    real: Floats, fake: Floats, neighbours: int
) -> tuple[dict[str, tuple[float, float]], Arrays]:
    """The same for sets of equal size, in pairs of score and standard error.

    The error is the standard deviation over ten disjoint parts of both sets by √10: the chance of
    both draws, not that of training a model.
    """
    x, y = real.astype(np.float64), fake.astype(np.float64)
    whole, points = scores(x, y, neighbours)
    # Every tenth point: the order of a set, by writer say, is no chance.
    parts = [scores(x[i::FOLDS], y[i::FOLDS], neighbours)[0] for i in range(FOLDS)]
    errors = {
        name: float(np.std([part[name] for part in parts], ddof=1) / math.sqrt(FOLDS))
        for name in whole
    }
    return {name: (score, errors[name]) for name, score in whole.items()}, points


def nearest(points: Floats, among: Floats, count: int = 1) -> tuple[Floats, NDArray[np.int64]]:
    """Euclidean distances to the nearest of other points and their places, [N, count] each."""
    found = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(among)
    distances, places = found.kneighbors(points)
    return distances.astype(np.float32), places
