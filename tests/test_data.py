"""Images: the IDX format, the fixed draw, the split and the files that it makes."""

import gzip
import runpy
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

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
    read_raw,
    read_set,
    write_set,
)
from aevb.files import InputError, write_tensors
from conftest import ROOT, as_idx, first_images

SPLIT = SimpleNamespace(**runpy.run_path(str(ROOT / "src" / "split.py")))
SETS = ("train", "validation", "test")


def refused(call, *arguments, **named) -> str:
    """The one line that bad input is told in."""
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
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert images.mean() == pytest.approx(33.791, abs=1e-3)
    # Upright and not inverted: ink is 255 and lies in the middle.
    assert images[:, 7:21, 7:21].mean() > 4 * images[:, :4].mean()


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (0, 28, 28)])
def test_idx_has_its_first_axis_outermost(shape):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    np.testing.assert_array_equal(parse_idx(as_idx(array), "file"), array)


def test_idx_cut_anywhere_is_refused():
    whole = as_idx(np.ones((2, 3, 4), np.uint8))
    for length in range(len(whole)):
        assert "file.idx" in refused(parse_idx, whole[:length], "file.idx")
    refused(parse_idx, whole + b"\0", "file.idx")


@pytest.mark.parametrize(
    "content",
    [
        b"<html>not found</html>",
        gzip.compress(as_idx(np.ones(3, np.uint8))),
        b"\x01" + as_idx(np.ones(3, np.uint8))[1:],
        b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00\x00\x80\x3f",
        # Sizes whose product is 2⁶⁴, which 64 bits take for 0.
        b"\x00\x00\x08\x03" + b"\x80\x00\x00\x00" * 2 + b"\x00\x00\x00\x04",
    ],
    ids=["web page", "gzip", "magic", "floats", "overflow"],
)
def test_what_is_no_idx_file_is_refused(content):
    assert "file.idx" in refused(parse_idx, content, "file.idx")


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ((3, 28, 27), [1, 2, 3]),
        ((3, 784), [1, 2, 3]),
        ((0, 28, 28), []),
        ((3, 28, 28), [1, 2]),
        ((3, 28, 28), [[1, 2, 3]]),
        ((3, 28, 28), [1, 2, 10]),
    ],
)
def test_images_and_labels_must_fit(images, labels):
    check_pair(np.zeros((3, 28, 28), np.uint8), np.array([0, 5, 9], np.uint8), "files")
    refused(check_pair, np.zeros(images, np.uint8), np.array(labels, np.uint8), "files")


@pytest.mark.parametrize("part", ["train", "t10k"])
def test_raw_files(raw_subset, part):
    images, labels = read_raw(raw_subset, part)
    names = [name for name in RAW_FILES if name.startswith(part)]
    np.testing.assert_array_equal(images, first_images(names[0]))
    np.testing.assert_array_equal(labels, first_images(names[1]))
    for name in names:
        content = (raw_subset / name).read_bytes()
        (raw_subset / name).write_bytes(content[:-1])
        assert name in refused(read_raw, raw_subset, part)
        (raw_subset / name).unlink()
        assert name in refused(read_raw, raw_subset, part)
        (raw_subset / name).write_bytes(content)


# The fixed draw.


def test_the_fixed_draw_takes_the_gray_level_as_probability():
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
    # All pixels together resolve pixel / 255 from pixel / 256.
    together = (draws.mean(0) - p)[inside].sum() / np.sqrt((error**2).sum())
    assert abs(together) < 4 < 0.5 / 256 * len(z) / np.sqrt((error**2).sum())


def test_the_fixed_draw_is_of_its_set_and_seed():
    images = first_images(RAW_FILES[0])[:50]
    draws = {
        (name, seed): fixed_draw(images, name, seed).tobytes() for name in SETS for seed in (0, 1)
    }
    assert len(set(draws.values())) == 6
    for (name, seed), content in draws.items():
        assert fixed_draw(images, name, seed).tobytes() == content


def test_observations_of_each_treatment(small_sets):
    train, validation, _ = small_sets
    gray = model_inputs(validation, "none")
    assert (gray.shape, gray.dtype) == ((100, 784), np.float32)
    np.testing.assert_array_equal(gray, validation.images.reshape(100, 784) / np.float32(255))
    for binarisation in ("dynamic", "static"):
        binary = model_inputs(validation, binarisation)
        assert (binary.shape, binary.dtype) == ((100, 784), np.float32)
        np.testing.assert_array_equal(binary, validation.binary.reshape(100, 784))
        refused(model_inputs, train, binarisation)


# The split.


def split(raw: Path, folder: Path, size: int = 150, seed: int = 0) -> dict[str, ImageSet]:
    """The three sets that the stage makes of the small subset."""
    paths = {name: folder / f"{name}.safetensors" for name in SETS}
    SPLIT.main(Namespace(raw=raw, validation_size=size, seed=seed, **paths))
    return {name: read_set(path) for name, path in paths.items()}


def test_the_split_is_disjoint_complete_and_points_to_the_originals(raw_subset, tmp_path):
    sets = split(raw_subset, tmp_path)
    train, validation, test = sets.values()
    assert [len(images) for images in sets.values()] == [450, 150, 200]
    both = np.concatenate((train.index, validation.index))
    np.testing.assert_array_equal(np.sort(both), np.arange(600))
    np.testing.assert_array_equal(test.index, np.arange(200))
    for images, part in ((train, "train"), (validation, "train"), (test, "t10k")):
        originals, labels = (first_images(name) for name in RAW_FILES if name.startswith(part))
        np.testing.assert_array_equal(images.images, originals[images.index])
        np.testing.assert_array_equal(images.labels, labels[images.index])
        assert (np.diff(images.index) > 0).all()
        assert images.index.dtype == np.int64
        assert images.metadata == {"name": "mnist", "seed": 0}
    # Held out at random: from all over the file, not its head or tail.
    assert stats.kstest(validation.index, stats.uniform(0, 600).cdf).pvalue > 1e-3
    assert train.binary is None
    for name in ("validation", "test"):
        images = sets[name]
        np.testing.assert_array_equal(images.binary, fixed_draw(images.images, name, 0))


def test_the_split_is_seeded(raw_subset, tmp_path):
    for place, seed in (("a", 0), ("b", 0), ("c", 1)):
        split(raw_subset, tmp_path / place, seed=seed)
    contents = {
        place: [(tmp_path / place / f"{name}.safetensors").read_bytes() for name in SETS]
        for place in "abc"
    }
    assert contents["a"] == contents["b"]
    assert all(x != y for x, y in zip(contents["a"], contents["c"], strict=True))
    other = read_set(tmp_path / "c" / "test.safetensors")
    np.testing.assert_array_equal(other.images, first_images(RAW_FILES[2]))


@pytest.mark.parametrize("size", [0, 1, 599])
def test_any_part_may_be_held_out_and_the_test_set_stays(raw_subset, tmp_path, size):
    sets = split(raw_subset, tmp_path / "a", size)
    split(raw_subset, tmp_path / "b", 150)
    assert [len(images) for images in sets.values()] == [600 - size, size, 200]
    assert sets["validation"].binary.shape == (size, 28, 28)
    one, other = (tmp_path / place / "test.safetensors" for place in "ab")
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("size", [600, 1000])
def test_a_split_that_leaves_nothing_is_refused(raw_subset, tmp_path, size):
    message = refused(split, raw_subset, tmp_path / "split", size)
    assert f"--validation_size {size}" in message
    assert "600" in message
    assert not (tmp_path / "split").exists()


@pytest.mark.parametrize("name", [*RAW_FILES, "dataset.json"])
@pytest.mark.parametrize("content", [None, b"", b"{}"], ids=["missing", "empty", "foreign"])
def test_a_split_of_bad_files_writes_nothing(raw_subset, tmp_path, name, content):
    if content is None:
        (raw_subset / name).unlink()
    else:
        (raw_subset / name).write_bytes(content)
    assert name in refused(split, raw_subset, tmp_path / "split")
    assert not (tmp_path / "split").exists()


# Files of sets.


def test_sets_come_back(small_sets, tmp_path):
    for images in small_sets:
        write_set(tmp_path / "set", images)
        again = read_set(tmp_path / "set")
        assert again.metadata == images.metadata
        for name in ("images", "labels", "index", "binary"):
            expected = getattr(images, name)
            if expected is None:
                assert getattr(again, name) is None
            else:
                np.testing.assert_array_equal(getattr(again, name), expected)
                assert getattr(again, name).dtype == expected.dtype


@pytest.mark.parametrize(
    "changed",
    [
        {"images": np.zeros((100, 784), np.uint8)},
        {"images": np.zeros((99, 28, 28), np.uint8)},
        {"images": np.zeros((100, 28, 28), np.float32)},
        {"images": np.array(3, np.uint8)},
        {"labels": np.zeros(99, np.uint8)},
        {"labels": np.zeros((100, 1), np.uint8)},
        {"labels": np.zeros(100, np.int64)},
        {"index": np.zeros(101, np.int64)},
        {"binary": np.zeros((100, 784), np.uint8)},
        {"binary": np.zeros((100, 28, 28), np.float32)},
    ],
)
def test_sets_of_other_shapes_are_refused(small_sets, tmp_path, changed):
    write_set(tmp_path / "set", replace(small_sets[1], **changed))
    assert "other shapes" in refused(read_set, tmp_path / "set")


@pytest.mark.parametrize("missing", ["images", "labels", "index"])
def test_sets_that_lack_an_array_are_refused(small_sets, tmp_path, missing):
    arrays = {name: getattr(small_sets[1], name) for name in ("images", "labels", "index")}
    del arrays[missing]
    write_tensors(tmp_path / "set", "split", arrays, {})
    assert missing in refused(read_set, tmp_path / "set")


def test_torn_and_foreign_sets_are_refused(small_sets, tmp_path):
    path = tmp_path / "set"
    assert "no such file" in refused(read_set, path)
    write_set(path, small_sets[1])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "damaged" in refused(read_set, path)
    write_tensors(path, "model", {"images": small_sets[1].images}, {})
    assert "a model file" in refused(read_set, path)
