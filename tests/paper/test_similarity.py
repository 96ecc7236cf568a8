"""Precision, recall and Fréchet distance against their definitions."""

import math

from aevb.research.sample_quality import frechet, nearest, scores, scores_with_errors, search

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import linalg

Points = NDArray[np.float64]
NAMES = ("precision", "recall", "frechet")


def normal(count: int, dimensions: int, seed: int, shift: float = 0) -> Points:
    return np.random.default_rng(seed).standard_normal((count, dimensions)) + shift


def of(real: Points, fake: Points, neighbours: int) -> dict[str, float]:
    """The first two scores."""
    found = scores(real, fake, neighbours)
    return {name: found[name] for name in NAMES[:2]}


def by_definition(real: Points, fake: Points, neighbours: int) -> dict[str, float]:
    """The papers' formulas, a pair of points at a time."""

    def distance(one: Points, other: Points) -> float:
        return math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)))

    def reach(points: Points, place: int) -> float:
        others = [distance(points[place], x) for i, x in enumerate(points) if i != place]
        return sorted(others)[neighbours - 1]

    balls = [(x, reach(real, i)) for i, x in enumerate(real)]
    fake_balls = [(y, reach(fake, j)) for j, y in enumerate(fake)]
    held = [[distance(y, x) <= radius for x, radius in balls] for y in fake]
    recalled = [any(distance(x, y) <= radius for y, radius in fake_balls) for x in real]
    return {
        "precision": sum(map(any, held)) / len(fake),
        "recall": sum(recalled) / len(real),
    }


@pytest.mark.parametrize("neighbours", [1, 3, 7])
@pytest.mark.parametrize(("real", "fake"), [(40, 40), (25, 60), (60, 25)])
def test_the_formulas_of_the_papers(real, fake, neighbours):
    x, y = normal(real, 3, seed=0), normal(fake, 3, seed=1, shift=0.7)
    found = of(x, y, neighbours)
    assert found == pytest.approx(by_definition(x, y, neighbours))
    assert all(0 < value <= 1 for value in found.values())


def test_three_points_by_hand():
    """On a line, k = 1: balls around 0, 1, 3 reach to [-1, 1], [0, 2], [1, 5]."""
    real, fake = np.array([[0.0], [1], [3]]), np.array([[2.0], [10], [11]])
    # 2 is on the surface of the second ball and in the third; the ball of 2 reaches to 10.
    assert list(of(real, fake, 1).values()) == pytest.approx([1 / 3, 1])
    assert list(of(fake, real, 1).values()) == pytest.approx([1, 1 / 3])


def with_moments(mean: Points, covariance: Points, count: int = 300, seed: int = 0) -> Points:
    """Points whose own mean and covariance are exactly these."""
    points = normal(count, len(mean), seed)
    points -= points.mean(0)
    white = points @ np.linalg.inv(np.linalg.cholesky(np.cov(points, rowvar=False))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def covariance(dimensions: int, seed: int) -> Points:
    factor = normal(dimensions, dimensions, seed)
    return factor @ factor.T + 0.1 * np.eye(dimensions)


def test_frechet_is_the_closed_form_for_gaussians():
    m, n = normal(2, 4, seed=5)
    s, t = covariance(4, 6), covariance(4, 7)
    x, y = normal(50, 1, 0), 3 * normal(70, 1, 1) + 2
    in_one_dimension = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    assert frechet(x, y) == pytest.approx(in_one_dimension)
    expected = np.square(m - n).sum() + np.trace(s + t - 2 * linalg.sqrtm(s @ t).real)
    assert frechet(with_moments(m, s), with_moments(n, t, seed=1)) == pytest.approx(expected)
    assert frechet(with_moments(n, t), with_moments(m, s, seed=1)) == pytest.approx(expected)


def test_frechet_of_the_same_set_is_zero():
    x, y = normal(100, 6, 0), normal(80, 6, 1, shift=0.3)
    x[:, 2] = y[:, 2] = 0  # a feature that is never active
    assert 0 <= frechet(x, np.random.default_rng(0).permutation(x)) < 1e-6
    assert 0 < frechet(x[:4], y[:4]) < math.inf  # fewer points than dimensions


def test_standard_errors_match_the_spread_over_new_sets():
    pairs = [(normal(300, 4, seed), normal(300, 4, seed + 500, shift=0.5)) for seed in range(40)]
    repeats = [scores_with_errors(*pair, 3) for pair in pairs]
    for name in NAMES:
        values, errors = np.array([(found[name], found[f"{name}_se"]) for found in repeats]).T
        ratio = math.sqrt(np.square(errors).mean()) / values.std(ddof=1)
        # Parts of 30 points are sparser than the whole, so only the order of size is right.
        assert 0.6 < ratio < 1.8, (name, ratio)


def test_nearest_neighbours_by_brute_force():
    random = np.random.default_rng(0)
    gray = random.random((130, 100), np.float32)
    for points in (gray, (gray > 0.5).astype(np.float32)):
        x, y = points[:40], points[40:]
        distances, places = search(x, y, 3)
        expected = np.sqrt(np.square(x[:, None].astype(float) - y[None].astype(float)).sum(-1))
        np.testing.assert_allclose(distances, np.sort(expected)[:, :3], rtol=1e-6)
        np.testing.assert_allclose(np.take_along_axis(expected, places, 1), distances, rtol=1e-6)
    # Between zeros and ones distances are roots of counts, and ties are ties.
    np.testing.assert_array_equal(nearest(x, y), expected.min(1).astype(np.float32))
