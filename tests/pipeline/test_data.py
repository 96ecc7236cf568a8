"""Images: the IDX format, the static draw, the split and its files."""

import gzip
from pathlib import Path

from aevb import data
from aevb.data import RAW_FILES, ImageSet
from aevb.files import InputError, sha256
from conftest import ROOT, as_idx, first_images
from stages import SETS, run_or_raise

import numpy as np
import pytest
from scipy import stats


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
        data.parse_idx(gzip.decompress((folder / f"{name}.gz").read_bytes()), name)
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
        np.testing.assert_array_equal(data.parse_idx(as_idx(array), "file"), array)


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
        assert "file.idx" in refused(data.parse_idx, content, "file.idx")


def test_images_and_labels_must_fit():
    for images, labels in (
        ((3, 28, 27), [1, 2, 3]),
        ((3, 784), [1, 2, 3]),
        ((1, 28, 28), [1]),
        ((3, 28, 28), [1, 2]),
        ((3, 28, 28), [[1, 2, 3]]),
        ((3, 28, 28), [1, 2, 10]),
    ):
        refused(data.check_pair, np.zeros(images, np.uint8), np.array(labels, np.uint8), "files")
    data.check_pair(np.zeros((3, 28, 28), np.uint8), np.array([0, 5, 9], np.uint8), "files")


# The static draw.


def test_the_static_draw_depends_on_the_set_and_the_seed():
    """Its probabilities are those of Random.binarise."""
    images = first_images(RAW_FILES[0])[:50]
    draws = {(name, seed): data.fixed_draw(images, name, seed) for name in SETS for seed in (0, 1)}
    assert len({draw.tobytes() for draw in draws.values()}) == 6
    np.testing.assert_array_equal(data.fixed_draw(images, "test", 1), draws["test", 1], strict=True)
    for draw in draws.values():
        assert not draw[images == 0].any()
        assert draw[images == 255].all()


def test_the_input_of_a_model_for_each_binarisation(small_sets):
    train, validation, _ = small_sets
    gray = validation.images.reshape(100, 784) / np.float32(255)
    np.testing.assert_array_equal(data.model_inputs(validation, "none"), gray, strict=True)
    binary = validation.binary.reshape(100, 784).astype(np.float32)
    for binarisation in ("dynamic", "static"):
        inputs = data.model_inputs(validation, binarisation)
        np.testing.assert_array_equal(inputs, binary, strict=True)
        refused(data.model_inputs, train, binarisation)


# The split.


def split_sets(raw: Path, folder: Path, size: int = 150, seed: int = 0) -> list[ImageSet]:
    """The three sets that the stage makes of the small subset."""
    words = ["--raw", raw, "--validation_size", size, "--seed", seed]
    for name in SETS:
        words += [f"--{name}", folder / name]
    run_or_raise("split", *words)
    return [data.read_set(folder / name, name) for name in SETS]


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
        np.testing.assert_array_equal(images.binary, data.fixed_draw(images.images, name, 0))


def test_the_split_is_seeded_and_the_test_set_is_the_same_for_any_size(raw_subset, tmp_path):
    cases = {"a": (150, 0), "b": (150, 0), "c": (150, 1), "d": (0, 0), "e": (599, 0)}
    sizes, files, held_out = {}, {}, {}
    for place, (size, seed) in cases.items():
        sets = split_sets(raw_subset, tmp_path / place, size, seed)
        sizes[place] = [len(images) for images in sets]
        held_out[place] = sets[1].index.tolist()
        files[place] = [(tmp_path / place / name).read_bytes() for name in SETS]
    assert files["a"] == files["b"]
    assert all(x != y for x, y in zip(files["a"], files["c"], strict=True))
    assert held_out["a"] != held_out["c"]
    assert sizes["d"] == [600, 0, 200]
    assert sizes["e"] == [1, 599, 200]
    assert files["a"][2] == files["d"][2] == files["e"][2]


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
        data.write_set(tmp_path / "set", images)
        again = data.read_set(tmp_path / "set", images.metadata["set"])
        assert again.metadata == images.metadata
        for name in ("images", "labels", "index", "binary"):
            np.testing.assert_array_equal(getattr(again, name), getattr(images, name), strict=True)
