"""Means, standard errors and intervals against scipy, and the coverage of the intervals."""

import math

import numpy as np
import pytest
from scipy import stats

from aevb.intervals import estimate, mean_and_se, student


@pytest.mark.parametrize("freedom", [1, 2, 4, 30])
def test_students_quantiles(freedom):
    for probability in (0.9, 0.975, 0.995):
        assert student(freedom, probability) == pytest.approx(stats.t.ppf(probability, freedom))


def test_the_mean_of_float32_is_taken_in_float64():
    values = np.full(10_000_000, 0.1, np.float32)
    assert mean_and_se(values)[0] == pytest.approx(float(np.float32(0.1)), rel=1e-12)


@pytest.mark.parametrize("count", [2, 3, 400])
def test_an_estimate_is_that_of_scipy(count):
    values = np.random.default_rng(0).normal(-96, 0.2, count)
    mean, se, low, high = estimate(values)
    assert (mean, se) == pytest.approx((np.mean(values), stats.sem(values)))
    assert (low, high) == pytest.approx(stats.t.interval(0.95, count - 1, mean, se))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_interval_covers_the_mean_of_few_values(count):
    draws = np.random.default_rng(0).normal(-96, 0.2, (2000, count))
    covered = [low <= -96 <= high for _, _, low, high in map(estimate, draws)]
    assert abs(np.mean(covered) - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)
