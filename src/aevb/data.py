"""Images: the data sets, their IDX files, the three sets made from them, and binarisation."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aevb.files import REPAIR, InputError, read_bytes, read_json, read_tensors, write_tensors
from aevb.rng import Random

PIXELS = 28 * 28
CLASSES = 10
DATASET_FILE = "dataset.json"
RAW_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Dataset:
    """A data set in MNIST's format: 28 × 28 gray levels, ten classes, four IDX files.

    Attributes:
        title: the name in tables and figures.
        torchvision: the class in torchvision.datasets that knows the public mirrors and the MD5
            checksums of the packed files; empty if the files come from the user's mirror only.
        sha256: the checksums of the unpacked files, in the order of RAW_FILES; empty if only the
            MD5 checksums of the packed files are published.

    Raises:
        ValueError: if there are no checksums, or not four.
    """

    title: str
    torchvision: str
    sha256: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that there are checksums for every file."""
        if len(self.sha256) != (0 if self.torchvision and not self.sha256 else 4):
            raise ValueError(f"{self.title}: needs four checksums or a class of torchvision")


DATASETS = {
    "mnist": Dataset(
        "MNIST",
        "MNIST",
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion_mnist": Dataset("Fashion-MNIST", "FashionMNIST"),
    "kmnist": Dataset("KMNIST", "KMNIST"),
}
"""The data sets that can be chosen. To add one, add an entry.

The licences are CC BY-SA 3.0 for MNIST (LeCun, Cortes, Burges), MIT for Fashion-MNIST (Zalando) and
CC BY-SA 4.0 for KMNIST (ROIS-DS Center for Open Data in the Humanities).
"""


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


def parse_idx(files: Sequence[bytes], name: str) -> tuple[Bytes, Bytes]:
    """Images [N, 28, 28] and labels [N] in a pair of IDX files.

    http://yann.lecun.com/exdb/mnist describes the format: two bytes 0, the type (8 is unsigned
    bytes), the number of axes, the size of each, and the content.

    Raises:
        InputError: unless they are such files with N > 1 and labels from 0 to 9.
    """
    images, labels = files
    pixels, digits = np.frombuffer(images[16:], np.uint8), np.frombuffer(labels[8:], np.uint8)
    sizes = np.array([len(digits), 28, 28], ">u4").tobytes()
    headers = b"\x00\x00\x08\x03" + sizes, b"\x00\x00\x08\x01" + sizes[:4]
    fits = (images[:16], labels[:8]) == headers and len(pixels) == len(digits) * PIXELS
    if not fits or len(digits) < 2 or digits.max() >= CLASSES:
        raise InputError(
            f"{name}: should be IDX files of N × 28 × 28 unsigned bytes and of N labels from 0 to "
            f"{CLASSES - 1}, N > 1; download them again"
        )
    return pixels.reshape(-1, 28, 28), digits


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
    files = {name: read_bytes(folder / name) for name in RAW_FILES if name.startswith(part)}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    for name, digest in digests.items():
        if described["sha256"].get(name) != digest:
            raise InputError(f"{folder / name}: not the file in {DATASET_FILE}; {REPAIR}")
    images, labels = parse_idx([*files.values()], f"{folder}/{part}-*")
    return images, labels, {"name": described["name"], "files": digests}


def fixed_draw(images: Bytes, name: str, seed: int) -> Bytes:
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
    arrays = {name: getattr(images, name) for name in ("images", "labels", "index", "binary")}
    present = {name: array for name, array in arrays.items() if array is not None}
    write_tensors(path, "split", present, images.metadata)


def read_set(path: Path, name: str, data: Mapping[str, Any] | None = None) -> ImageSet:
    """Read a set that the split stage wrote.

    Args:
        name: `train`, `validation` or `test`.
        data: the metadata of the training images, with which this set must share its split.

    Raises:
        InputError: if the file is missing or damaged, or is another set or from another split.
    """
    arrays, metadata = read_tensors(path, "split")
    if metadata["set"] != name:
        raise InputError(f"{path}: the {metadata['set']} set, should be {name}; {REPAIR}")
    for key in ("name", "seed", "validation_size"):
        if data is not None and key in metadata and metadata[key] != data.get(key):
            raise InputError(
                f"{path}: from another split than the training images, whose {key} is "
                f"{data.get(key)} and not {metadata[key]}; {REPAIR}"
            )
    images, labels, index = (arrays[name] for name in ("images", "labels", "index"))
    return ImageSet(images, labels, index, arrays.get("binary"), metadata)
