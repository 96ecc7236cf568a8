"""Images: the IDX files of MNIST, the three sets made from them, and their binarisation."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from aevb.files import (
    REPAIR,
    Arrays,
    InputError,
    read_bytes,
    read_json,
    read_tensors,
    write_tensors,
)
from aevb.rng import Random

import numpy as np
from numpy.typing import NDArray

PIXELS = 28 * 28
CLASSES = 10
DATASET_FILE = "dataset.json"
RAW_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

BINARISATIONS = ("dynamic", "static", "none")
"""How gray pixels become zeros and ones: drawn again in each epoch, drawn once, not at all."""

Bytes = NDArray[np.uint8]
SetName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class ImageSet:
    """The training, validation or test set.

    Attributes:
        images: uint8 [N, 28, 28], from 0 (background) to 255.
        labels: uint8 [N], digits 0 to 9.
        index: int64 [N], the position of each image in the original file.
        binary: uint8 [N, 28, 28], the one static draw of zeros and ones. Training images have none,
            since dynamic binarisation draws them again in each epoch.
        metadata: which set it is, the data set's name, the seed of the split and, except for the
            test set, the size of the validation set.
    """

    images: Bytes
    labels: Bytes
    index: NDArray[np.int64]
    binary: Bytes | None
    metadata: dict[str, Any]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)


def parse_idx(content: bytes, name: str) -> Bytes:
    """The array in an IDX file of bytes (http://yann.lecun.com/exdb/mnist describes the format).

    Raises:
        InputError: if the header is not IDX of unsigned bytes or the length does not fit it.
    """
    if content[:3] != b"\x00\x00\x08" or len(content) < 4 or len(content) < 4 + 4 * content[3]:
        raise InputError(f"{name}: not an IDX file of unsigned bytes; download it again")
    start = 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    if len(content) - start != math.prod(shape):
        raise InputError(f"{name}: not {shape} bytes, as its header says; download it again")
    try:
        return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
    except ValueError as error:  # too many axes
        raise InputError(f"{name}: {error}; download it again") from None


def read_raw(folder: Path, part: Literal["train", "t10k"]) -> tuple[Bytes, Bytes, dict[str, Any]]:
    """The training or the test files that the download stage wrote.

    Returns:
        Images, labels, and the name of the data set with the SHA-256 of the two `files`.

    Raises:
        InputError: if a file is missing or is not the one that was downloaded.
    """
    described = read_json(folder / DATASET_FILE)
    if not isinstance(described.get("sha256"), dict) or "name" not in described:
        raise InputError(f"{folder / DATASET_FILE}: damaged; {REPAIR}")
    files, arrays = {}, []
    for name in (name for name in RAW_FILES if name.startswith(part)):
        content = read_bytes(folder / name)
        files[name] = hashlib.sha256(content).hexdigest()
        if described["sha256"].get(name) != files[name]:
            raise InputError(f"{folder / name}: not the file in {DATASET_FILE}; {REPAIR}")
        arrays.append(parse_idx(content, str(folder / name)))
    images, labels = arrays
    check_pair(images, labels, f"{folder}/{part}-*")
    return images, labels, {"name": described["name"], "files": files}


def check_pair(images: Bytes, labels: Bytes, name: str) -> None:
    """Raise an InputError unless images are [N, 28, 28], N > 1, and labels N digits."""
    if images.ndim != 3 or images.shape[1:] != (28, 28) or len(images) < 2:
        raise InputError(f"{name}: images are {images.shape}, should be N × 28 × 28, N > 1")
    if labels.shape != (len(images),):
        raise InputError(f"{name}: {len(images)} images with labels of shape {labels.shape}")
    if labels.max() >= CLASSES:
        raise InputError(f"{name}: a label is {labels.max()}, should be 0 to {CLASSES - 1}")


def fixed_draw(images: Bytes, name: SetName, seed: int) -> Bytes:
    """The static binarisation of a set, as zeros and ones of the images' shape."""
    return Random(f"binarise {name}", seed).binarise(images)


def model_inputs(images: ImageSet, binarisation: str) -> NDArray[np.float32]:
    """The images as a model sees them, float32 [N, 784]: gray levels or the static draw."""
    if binarisation == "none":
        return images.images.reshape(-1, PIXELS).astype(np.float32) / np.float32(255)
    if images.binary is None:
        raise InputError("training images have no static draw; evaluate on validation or test")
    return images.binary.reshape(-1, PIXELS).astype(np.float32)


def write_set(path: Path, images: ImageSet) -> None:
    """Write a set as safetensors."""
    arrays: Arrays = {"images": images.images, "labels": images.labels, "index": images.index}
    if images.binary is not None:
        arrays["binary"] = images.binary
    write_tensors(path, "split", arrays, images.metadata)


def read_set(path: Path, name: SetName, data: Mapping[str, Any] | None = None) -> ImageSet:
    """Read a set that the split stage wrote.

    Args:
        data: the metadata of the training images, with which this set must share its split.

    Raises:
        InputError: if the file is missing or damaged, has arrays of other shapes, or is another
            set or from another split.
    """
    arrays, metadata = read_tensors(path, "split")
    try:
        images, labels, index = arrays["images"], arrays["labels"], arrays["index"]
    except KeyError as error:
        raise InputError(f"{path}: has no {error}; {REPAIR}") from None
    binary = arrays.get("binary")
    count = images.shape[:1]
    fits = (
        images.shape == (*count, 28, 28)
        and labels.shape == index.shape == count
        and images.dtype == labels.dtype == np.uint8
        and (binary is None or (binary.shape == images.shape and binary.dtype == np.uint8))
        and isinstance(metadata.get("seed"), int)
        and "name" in metadata
    )
    if not fits:
        raise InputError(f"{path}: has arrays of other shapes, or no metadata; {REPAIR}")
    if metadata.get("set") != name:
        raise InputError(f"{path}: the {metadata.get('set')} set, should be {name}; {REPAIR}")
    for key in ("name", "seed", "validation_size"):
        if data is not None and key in metadata and metadata[key] != data.get(key):
            raise InputError(
                f"{path}: from another split than the training images, whose {key} is "
                f"{data.get(key)} and not {metadata[key]}; {REPAIR}"
            )
    return ImageSet(images, labels, index, binary, metadata)
