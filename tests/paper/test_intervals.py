"""Means, standard errors and intervals against scipy."""

from aevb.intervals import estimate, mean_and_se

import numpy as np
import pytest
from scipy import stats


def test_the_mean_of_float32_is_taken_in_float64():
    values = np.full(1_000_000, 0.1, np.float32)
    assert mean_and_se(values)[0] == pytest.approx(float(np.float32(0.1)), rel=1e-12)


@pytest.mark.parametrize("count", [2, 3, 5, 400])
def test_an_estimate_is_that_of_scipy(count):
    values = np.random.default_rng(0).normal(-96, 0.2, count)
    mean, se, low, high = estimate(values)
    assert (mean, se) == pytest.approx((np.mean(values), stats.sem(values)))
    assert (low, high) == pytest.approx(stats.t.interval(0.95, count - 1, mean, se))
