"""Scores of how similar two sets of points are, and how much of one the other covers.

The sets are `real`, [N, D], and `fake`, [M, D]: for example features of test images and of samples.
Precision and recall are those of Kynkäänniemi et al. 2019 (arXiv:1904.06991), equations 1 and 2;
density and coverage those of Naeem et al. 2020 (arXiv:2002.09797), section 3. All four use balls
around each point that reach to its k-th nearest neighbour in its own set. For two large sets from
one distribution, density is 1 on average and coverage 1 − 2⁻ᵏ.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

BLOCK = 500
"""Fake points whose distances to all real ones are held in memory at once."""
FOLDS = 10
"""Disjoint parts of both sets whose spread gives the standard errors."""

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]


def reach(points: Doubles, neighbours: int) -> Doubles:
    """The distance of each point to its k-th nearest neighbour among the others, [N]."""
    found = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(points)
    distances: Doubles = found.kneighbors()[0][:, -1]
    return distances


def overlap(real: Doubles, fake: Doubles, neighbours: int) -> Arrays:
    """Which points of each set are in the closed balls of the other, of radius `reach`.

    Returns:
        balls: int32 [M], the number of balls of real points that contain each fake one.
        covered: bool [N], real points whose ball contains a fake one.
        recalled: bool [N], real points that are in the ball of a fake one.
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
    other features than Inception's it is not the FID, and can only be compared with distances in
    the same features. It is biased upwards by about 1 / N.
    """
    (m, s), (n, t) = ((x.mean(0), np.atleast_2d(np.cov(x, rowvar=False))) for x in (real, fake))
    # Symmetric, unlike (S T)½ with the same eigenvalues: rounding gives no complex numbers.
    values, axes = np.linalg.eigh(s)
    root = axes * np.sqrt(values.clip(0)) @ axes.T
    both = np.sqrt(np.linalg.eigvalsh(root @ t @ root).clip(0)).sum()
    return max(float(np.square(m - n).sum() + np.trace(s) + np.trace(t) - 2 * both), 0.0)


def scores(real: Doubles, fake: Doubles, neighbours: int) -> tuple[dict[str, float], Arrays]:
    """Precision, recall, density, coverage and Fréchet distance, and the `overlap`."""
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
) -> tuple[dict[str, float], Arrays]:
    """The same for sets of equal size, each score with its standard error (`…_se`).

    The error is the standard deviation over ten disjoint parts of both sets divided by √10. It is
    due to the choice of both sets, not to the training of a model.
    """
    x, y = real.astype(np.float64), fake.astype(np.float64)
    result, points = scores(x, y, neighbours)
    # Every tenth point, since the order of a set may not be random (by writer, for example).
    parts = [scores(x[i::FOLDS], y[i::FOLDS], neighbours)[0] for i in range(FOLDS)]
    for name in list(result):
        spread = np.std([part[name] for part in parts], ddof=1)
        result[f"{name}_se"] = float(spread / math.sqrt(FOLDS))
    return result, points


def nearest(points: Floats, among: Floats, count: int = 1) -> tuple[Floats, NDArray[np.int64]]:
    """Euclidean distances to the nearest of other points and their indices, [N, count] each."""
    found = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(among)
    distances, places = found.kneighbors(points)
    return distances.astype(np.float32), places
