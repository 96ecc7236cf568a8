"""Random numbers: their distribution, their independence, and that they are always the same."""

import hashlib
import math

from aevb.rng import Random

import numpy as np
import pytest
from scipy import stats

COUNT = 200_000


def z_score(values: np.ndarray, mean: float) -> float:
    """How many standard errors the mean of values is from an expected one."""
    return float((values.mean() - mean) / (values.std() / math.sqrt(values.size)))


def test_uniform_numbers_are_multiples_of_a_power_of_two_below_one():
    u = Random("test", 1).uniform((COUNT // 10, 10))
    assert (u.shape, u.dtype) == ((COUNT // 10, 10), np.float32)
    assert ((u >= 0) & (u < 1)).all()
    assert (u * 2**24 % 1 == 0).all()
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3


def test_normal_numbers():
    x = Random("test", 2).normal((2, COUNT // 2))
    assert (x.shape, x.dtype) == ((2, COUNT // 2), np.float32)
    assert stats.kstest(x.ravel(), "norm").pvalue > 1e-3
    for power, moment in enumerate((0, 1, 0, 3, 0, 15), 1):
        assert abs(z_score(x.astype(float) ** power, moment)) < 4
    # The two values of a pair share their radius but are independent.
    pairs = x.reshape(-1, 2).T
    for values in (pairs, abs(pairs)):
        assert abs(stats.spearmanr(*values).statistic) * math.sqrt(COUNT / 2) < 4


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (2, 0, 5), (3, 5)])
def test_any_number_of_values_can_be_drawn(shape):
    for values in (Random("test").normal(shape), Random("test").uniform(shape)):
        assert values.shape == shape
    assert Random("test").binarise(np.zeros(shape, np.uint8)).shape == shape


def test_permutations_are_equally_probable():
    random = Random("test", 3)
    drawn = [tuple(random.permutation(4)) for _ in range(24_000)]
    found, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(found) == 24
    assert stats.chisquare(counts).pvalue > 1e-3
    assert sorted(random.permutation(1000)) == list(range(1000))
    assert random.permutation(0).size == 0


@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_integers_are_equally_probable(size):
    integers = Random("test", size).integers(COUNT + 1, size)
    assert (len(integers), integers.dtype.itemsize) == (COUNT + 1, size // 8)
    highest, lowest = integers >> np.uint8(size - 4), integers & np.uint8(15)
    for part in (highest, lowest):
        assert stats.chisquare(np.bincount(part.astype(int), minlength=16)).pvalue > 1e-3


def test_the_probability_of_a_one_is_exactly_that_of_the_pixel(monkeypatch):
    """Of the 255 equally probable bytes that are kept, as many give a one as the pixel says."""
    monkeypatch.setattr(Random, "integers", lambda _, count, __: np.arange(count, dtype="u1"))
    for pixel in range(256):
        ones = Random("test").binarise(np.full(255, pixel, np.uint8))
        assert ones.sum() == pixel
        assert set(ones) <= {0, 1}
        assert ones.dtype == np.uint8


def test_bytes_that_give_no_answer_are_drawn_again():
    ones = Random("test", 4).binarise(np.repeat(np.uint8([0, 1, 128, 254, 255])[:, None], COUNT, 1))
    assert not ones[0].any()
    assert ones[4].all()
    for row, pixel in ((1, 1), (2, 128), (3, 254)):
        assert stats.binomtest(int(ones[row].sum()), COUNT, pixel / 255).pvalue > 1e-3


def test_a_stream_depends_on_its_purpose_and_on_each_number():
    names = [("train", 0, 0), ("train", 0, 1), ("train", 1, 0), ("train", 0), ("order", 0, 0)]
    names += [("train", 10), ("train", 1, 0, 0), ("train", 2**32 - 1, 0)]
    streams = [Random(*name).normal((5000,)) for name in names]
    correlations = np.corrcoef(streams)[np.triu_indices(len(names), 1)]
    assert np.abs(correlations).max() * math.sqrt(5000) < 4.5
    for name, stream in zip(names, streams, strict=True):
        np.testing.assert_array_equal(Random(*name).normal((5000,)), stream)


def test_the_numbers_of_a_stream_follow_each_other():
    whole, parts = Random("test").integers(12, 64), Random("test")
    np.testing.assert_array_equal(whole, [*parts.integers(5, 64), *parts.integers(7, 64)])
    whole, parts = Random("test").normal((12,)), Random("test")
    np.testing.assert_array_equal(whole, [*parts.normal((4,)), *parts.normal((7,)), whole[11]])


GOLDEN = {
    "integers": "c34a91407354cc1b",
    "uniform": "2d05121baf88ce11",
    "normal": "47f651ff30bfe271",
    "permutation": "93861412849c7fa6",
    "binarise": "e70938621d6ccd52",
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_the_numbers_are_the_same_on_every_machine(kind):
    random = Random("golden", 1, 2**32 - 1)
    values = {
        "integers": lambda: random.integers(10_000, 64),
        "uniform": lambda: random.uniform((10_000,)),
        "normal": lambda: random.normal((10_000,)),
        "permutation": lambda: random.permutation(10_000),
        "binarise": lambda: random.binarise(np.arange(10_000).astype(np.uint8)),
    }[kind]()
    content = values.astype(values.dtype.newbyteorder("<")).tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == GOLDEN[kind]
