"""Intervals cover what they should as often as they say."""

import math

import numpy as np
import pytest
from scipy import stats

from aevb.intervals import mean_and_se, student, student_half_width


@pytest.mark.parametrize("freedom", [1, 2, 4, 30])
def test_students_quantiles(freedom):
    for probability in (0.9, 0.975, 0.995):
        assert student(freedom, probability) == pytest.approx(stats.t.ppf(probability, freedom))


def test_the_mean_of_float32_is_taken_in_float64():
    values = np.full(10_000_000, 0.1, np.float32)
    assert mean_and_se(values)[0] == pytest.approx(float(np.float32(0.1)), rel=1e-12)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_interval_covers_the_mean_of_few_values(count):
    draws = np.random.default_rng(0).normal(-96, 0.2, (2000, count))
    covered = [abs(some.mean() + 96) <= student_half_width(some) for some in draws]
    assert abs(np.mean(covered) - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)


def test_one_value_has_no_interval():
    assert math.isnan(student_half_width([1.0]))
