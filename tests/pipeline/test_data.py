"""Images: the IDX format, the static draw, the split and its files."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from aevb.data import (
    RAW_FILES,
    ImageSet,
    check_pair,
    fixed_draw,
    model_inputs,
    parse_idx,
    read_set,
    write_set,
)
from aevb.files import InputError, sha256
from conftest import ROOT, as_idx, first_images
from stages import SETS, run_or_raise


def refused(call, *arguments, **named) -> str:
    """The message with which bad input is refused, on one line."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# IDX files.


def test_idx_of_the_real_files():
    folder = ROOT / "data" / "mnist"
    images, labels = (
        parse_idx(gzip.decompress((folder / f"{name}.gz").read_bytes()), name)
        for name in RAW_FILES[2:]
    )
    assert (images.shape, labels.shape) == ((10000, 28, 28), (10000,))
    assert images.dtype == labels.dtype == np.uint8
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert images.mean() == pytest.approx(33.791, abs=1e-3)
    # Neither transposed nor inverted: ink is 255 and in the middle.
    assert images[:, 7:21, 7:21].mean() > 4 * images[:, :4].mean()


def test_idx_has_its_first_axis_outermost():
    for shape in ((5,), (2, 3), (2, 3, 4), (0, 28, 28)):
        array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        np.testing.assert_array_equal(parse_idx(as_idx(array), "file"), array)


def test_other_files_than_idx_are_refused():
    whole = as_idx(np.ones((2, 3, 4), np.uint8))
    for content in (
        *(whole[:length] for length in range(len(whole))),
        whole + b"\0",
        gzip.compress(whole),
        b"\x01" + whole[1:],
        b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00\x00\x80\x3f",  # floats
        # Sizes whose product is 2⁶⁴, which overflows to 0 in 64 bits.
        b"\x00\x00\x08\x03" + b"\x80\x00\x00\x00" * 2 + b"\x00\x00\x00\x04",
        b"\x00\x00\x08\xff" + b"\x00\x00\x00\x01" * 255 + b"x",  # more axes than arrays have
        b"\x00\x00\x08\x03" + bytes(4) + b"\xff" * 8,  # nothing, in a shape that is too large
    ):
        assert "file.idx" in refused(parse_idx, content, "file.idx")


def test_images_and_labels_must_fit():
    for images, labels in (
        ((3, 28, 27), [1, 2, 3]),
        ((3, 784), [1, 2, 3]),
        ((0, 28, 28), []),
        ((3, 28, 28), [1, 2]),
        ((3, 28, 28), [[1, 2, 3]]),
        ((3, 28, 28), [1, 2, 10]),
    ):
        refused(check_pair, np.zeros(images, np.uint8), np.array(labels, np.uint8), "files")
    check_pair(np.zeros((3, 28, 28), np.uint8), np.array([0, 5, 9], np.uint8), "files")


# The static draw.


def test_the_static_draw_takes_the_gray_level_as_probability():
    levels = np.linspace(0, 255, 784).round().astype(np.uint8).reshape(28, 28)
    draws = fixed_draw(np.repeat(levels[None], 5000, 0), "validation", 0).reshape(5000, 784)
    p = levels.reshape(784) / 255
    assert draws.dtype == np.uint8
    assert set(np.unique(draws)) == {0, 1}
    assert not draws[:, p == 0].any()
    assert draws[:, p == 1].all()
    inside = (p > 0) & (p < 1)
    error = np.sqrt(p * (1 - p) / 5000)[inside]
    z = (draws.mean(0) - p)[inside] / error
    low, high = stats.chi2(len(z)).ppf([1e-4, 1 - 1e-4])
    assert low < (z**2).sum() < high
    # All pixels together distinguish pixel / 255 from pixel / 256.
    together = (draws.mean(0) - p)[inside].sum() / np.sqrt((error**2).sum())
    assert abs(together) < 4 < 0.5 / 256 * len(z) / np.sqrt((error**2).sum())


def test_the_static_draw_depends_on_the_set_and_the_seed():
    images = first_images(RAW_FILES[0])[:50]
    draws = {
        (name, seed): fixed_draw(images, name, seed).tobytes() for name in SETS for seed in (0, 1)
    }
    assert len(set(draws.values())) == 6
    assert fixed_draw(images, "test", 1).tobytes() == draws["test", 1]


def test_the_input_of_a_model_for_each_binarisation(small_sets):
    train, validation, _ = small_sets
    gray = validation.images.reshape(100, 784) / np.float32(255)
    np.testing.assert_array_equal(model_inputs(validation, "none"), gray, strict=True)
    binary = validation.binary.reshape(100, 784).astype(np.float32)
    for binarisation in ("dynamic", "static"):
        inputs = model_inputs(validation, binarisation)
        np.testing.assert_array_equal(inputs, binary, strict=True)
        refused(model_inputs, train, binarisation)


# The split.


def split_sets(raw: Path, folder: Path, size: int = 150, seed: int = 0) -> list[ImageSet]:
    """The three sets that the stage makes of the small subset."""
    words = ["--raw", raw, "--validation_size", size, "--seed", seed]
    for name in SETS:
        words += [f"--{name}", folder / name]
    run_or_raise("split", *words)
    return [read_set(folder / name, name) for name in SETS]


def test_the_split_is_disjoint_and_complete_and_its_index_is_right(raw_subset, tmp_path):
    train, validation, test = split_sets(raw_subset, tmp_path)
    assert [len(images) for images in (train, validation, test)] == [450, 150, 200]
    both = np.concatenate((train.index, validation.index))
    np.testing.assert_array_equal(np.sort(both), np.arange(600))
    np.testing.assert_array_equal(test.index, np.arange(200))
    for images, part in ((train, "train"), (validation, "train"), (test, "t10k")):
        originals, labels = (first_images(name) for name in RAW_FILES if name.startswith(part))
        np.testing.assert_array_equal(images.images, originals[images.index])
        np.testing.assert_array_equal(images.labels, labels[images.index])
        assert (np.diff(images.index) > 0).all()
        files = {name: sha256(raw_subset / name) for name in RAW_FILES if name.startswith(part)}
        expected = {"name": "mnist", "seed": 0, "validation_size": 150, "files": files}
        assert images.metadata.items() <= {**expected, "set": images.metadata["set"]}.items()
    # Held out at random from the whole file, not from its beginning or end.
    assert stats.kstest(validation.index, stats.uniform(0, 600).cdf).pvalue > 1e-3
    assert train.binary is None
    for name, images in (("validation", validation), ("test", test)):
        np.testing.assert_array_equal(images.binary, fixed_draw(images.images, name, 0))


def test_the_split_is_seeded(raw_subset, tmp_path):
    first, _, other = (
        split_sets(raw_subset, tmp_path / place, seed=seed)
        for place, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert not np.array_equal(first[1].index, other[1].index)
    a, b, c = ([(tmp_path / place / name).read_bytes() for name in SETS] for place in "abc")
    assert a == b
    assert all(x != y for x, y in zip(a, c, strict=True))


@pytest.mark.parametrize("size", [0, 599])
def test_any_number_can_be_held_out_and_the_test_set_is_the_same(raw_subset, tmp_path, size):
    sets = split_sets(raw_subset, tmp_path / "a", size)
    split_sets(raw_subset, tmp_path / "b", 150)
    assert [len(images) for images in sets] == [600 - size, size, 200]
    assert (tmp_path / "a/test").read_bytes() == (tmp_path / "b/test").read_bytes()


@pytest.mark.parametrize("name", [*RAW_FILES, "dataset.json"])
def test_a_split_of_bad_files_writes_nothing(raw_subset, tmp_path, name):
    content = (raw_subset / name).read_bytes()
    for wrong in (content[:-2], b"", b"{}"):
        (raw_subset / name).write_bytes(wrong)
        assert name in refused(split_sets, raw_subset, tmp_path / "split")
    (raw_subset / name).unlink()
    assert name in refused(split_sets, raw_subset, tmp_path / "split")
    assert not (tmp_path / "split").exists()


# Files of sets, whose damage test_files and test_faults cover.


def test_sets_are_read_as_they_were_written(small_sets, tmp_path):
    for images in small_sets:
        write_set(tmp_path / "set", images)
        again = read_set(tmp_path / "set", images.metadata["set"])
        assert again.metadata == images.metadata
        for name in ("images", "labels", "index", "binary"):
            np.testing.assert_array_equal(getattr(again, name), getattr(images, name), strict=True)


def test_sets_of_other_shapes_are_refused(small_sets, tmp_path):
    for name, shape, kind in (
        ("images", (100, 784), np.uint8),
        ("images", (100, 28, 28), np.float32),
        ("images", (), np.uint8),
        ("labels", 99, np.uint8),
        ("labels", 100, np.int64),
        ("index", 101, np.int64),
        ("binary", (100, 28, 28), np.float32),
    ):
        write_set(tmp_path / "set", replace(small_sets[1], **{name: np.zeros(shape, kind)}))
        assert "other shapes" in refused(read_set, tmp_path / "set", "validation")
