"""Split the training images into training and validation sets; draw the static binarisation.

The permutation is seeded, and each set keeps the order of the original file. The test set is not
changed.
"""

from pathlib import Path
from typing import Annotated

import aevb  # noqa: F401  # isort: skip  # first, since it reports missing packages
import numpy as np

from aevb.data import DATASET_FILE, ImageSet, SetName, fixed_draw, read_raw, write_set
from aevb.files import InputError, read_json
from aevb.plumbing import cli
from aevb.plumbing.params import Split
from aevb.rng import Random


def main(
    raw: Annotated[Path, "folder with the IDX files"],
    train: Annotated[Path, "training images to write (.safetensors)"],
    validation: Annotated[Path, "validation images to write (.safetensors)"],
    test: Annotated[Path, "test images to write (.safetensors)"],
    settings: Split,
) -> None:
    """Read the raw files, write the three sets."""
    images, labels = read_raw(raw, "train")
    if settings.validation_size >= len(images):
        raise InputError(
            f"--validation_size {settings.validation_size}: leaves none of the {len(images)} "
            "training images; lower split.validation_size"
        )
    order = Random("split", settings.seed).permutation(len(images))
    held_out, kept = np.split(order, [settings.validation_size])
    test_images, test_labels = read_raw(raw, "t10k")
    described = read_json(raw / DATASET_FILE)
    if "name" not in described:
        raise InputError(f"{raw / DATASET_FILE}: has no name; run the download stage again")
    metadata = {"name": described["name"], "seed": settings.seed}

    def write(
        path: Path, name: SetName, source: tuple[np.ndarray, np.ndarray], index: np.ndarray
    ) -> None:
        index = np.sort(index)
        chosen = source[0][index]
        binary = None if name == "train" else fixed_draw(chosen, name, settings.seed)
        write_set(path, ImageSet(chosen, source[1][index], index, binary, metadata))
        cli.log.info("split: %d %s images, wrote %s", len(index), name, path)

    write(train, "train", (images, labels), kept)
    write(validation, "validation", (images, labels), held_out)
    write(test, "test", (test_images, test_labels), np.arange(len(test_images)))


if __name__ == "__main__":
    cli.run(main, __doc__)
