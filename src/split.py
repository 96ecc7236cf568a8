"""Split the training images into training and validation sets; draw the static binarisation.

The permutation is seeded, and each set keeps the order of the original file. The test set is not
changed.
"""

from pathlib import Path
from typing import Annotated, Any

from aevb.data import ImageSet, SetName, fixed_draw, read_raw, write_set
from aevb.files import InputError
from aevb.plumbing import cli
from aevb.plumbing.params import Split
from aevb.rng import Random

import numpy as np


def main(
    raw: Annotated[Path, "folder with the IDX files"],
    train: Annotated[Path, "training images to write (.safetensors)"],
    validation: Annotated[Path, "validation images to write (.safetensors)"],
    test: Annotated[Path, "test images to write (.safetensors)"],
    settings: Split,
) -> None:
    """Read the raw files, write the three sets."""
    images, labels, source = read_raw(raw, "train")
    if settings.validation_size >= len(images):
        raise InputError(
            f"--validation_size {settings.validation_size}: leaves none of the {len(images)} "
            "training images; lower split.validation_size"
        )
    order = Random("split", settings.seed).permutation(len(images))
    held_out, kept = np.split(order, [settings.validation_size])
    test_raw = read_raw(raw, "t10k")

    def write(
        path: Path, name: SetName, raw: tuple[np.ndarray, np.ndarray, Any], index: np.ndarray
    ) -> None:
        images, labels, source = raw
        index = np.sort(index)
        chosen = images[index]
        binary = None if name == "train" else fixed_draw(chosen, name, settings.seed)
        decisive = {"seed"} if name == "test" else None
        metadata = {**source, **settings.model_dump(include=decisive), "set": name}
        write_set(path, ImageSet(chosen, labels[index], index, binary, metadata))
        cli.log.info("split: %d %s images, wrote %s", len(index), name, path)

    write(train, "train", (images, labels, source), kept)
    write(validation, "validation", (images, labels, source), held_out)
    write(test, "test", test_raw, np.arange(len(test_raw[0])))


if __name__ == "__main__":
    cli.run(main, __doc__)
