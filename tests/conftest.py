"""What several test files share: a few real images, as sets, as a mirror folder, as raw files."""

import gzip
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from aevb.data import RAW_FILES, ImageSet, fixed_draw

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"train": 600, "t10k": 200}


@cache
def first_images(name: str) -> np.ndarray:
    """The first images or labels of one of the bundled files."""
    size = SIZES[name.split("-")[0]]
    start, shape = (16, (size, 28, 28)) if "images" in name else (8, (size,))
    with gzip.open(ROOT / "data" / "mnist" / f"{name}.gz") as file:
        content = file.read(start + int(np.prod(shape)))
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def as_idx(array: np.ndarray) -> bytes:
    """An array of bytes in the IDX format."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture(scope="session")
def small_sets() -> tuple[ImageSet, ImageSet, ImageSet]:
    """300 training, 100 validation and 100 test images."""
    images, labels = first_images(RAW_FILES[0]), first_images(RAW_FILES[1])
    metadata = {"name": "mnist", "seed": 0}
    kept, held_out, rest = np.split(np.arange(500), [300, 400])
    return (
        ImageSet(images[kept], labels[kept], kept, None, metadata),
        *(
            ImageSet(
                images[index], labels[index], index, fixed_draw(images[index], name, 0), metadata
            )
            for name, index in (("validation", held_out), ("test", rest))
        ),
    )


@pytest.fixture
def mnist_subset(tmp_path: Path) -> Path:
    """A folder with MNIST's four .gz files, cut to 600 training and 200 test images."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name in RAW_FILES:
        (folder / f"{name}.gz").write_bytes(gzip.compress(as_idx(first_images(name)), 1))
    return folder


def write_raw(folder: Path) -> Path:
    """The same images as the download stage leaves them."""
    folder.mkdir()
    for name in RAW_FILES:
        (folder / name).write_bytes(as_idx(first_images(name)))
    (folder / "dataset.json").write_text(json.dumps({"name": "mnist", "sha256": {}}))
    return folder


@pytest.fixture
def raw_subset(tmp_path: Path) -> Path:
    """A folder with the unpacked files of the subset and dataset.json."""
    return write_raw(tmp_path / "raw")
