"""Split the training images into training and validation sets; draw the static binarisation.

The permutation is seeded, and each set keeps the order of the original file. The test set is not
changed.
"""

from pathlib import Path
from typing import Annotated

import aevb  # noqa: F401  # isort: skip  # first, since it reports missing packages
import numpy as np

from aevb.data import ImageSet, fixed_draw, read_raw, write_set
from aevb.files import InputError
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
    original, original_test = read_raw(raw, "train"), read_raw(raw, "t10k")
    count = len(original[0])
    if settings.validation_size >= count:
        raise InputError(
            f"--validation_size {settings.validation_size}: leaves none of the {count} training "
            "images; lower split.validation_size"
        )
    order = Random("split", settings.seed).permutation(count)
    held_out, kept = np.split(order, [settings.validation_size])
    for name, path, (images, labels, source), chosen in (
        ("train", train, original, kept),
        ("validation", validation, original, held_out),
        ("test", test, original_test, np.arange(len(original_test[0]))),
    ):
        index = np.sort(chosen)
        binary = None if name == "train" else fixed_draw(images[index], name, settings.seed)
        decisive = {"seed"} if name == "test" else None
        metadata = {**source, **settings.model_dump(include=decisive), "set": name}
        write_set(path, ImageSet(images[index], labels[index], index, binary, metadata))
        cli.log.info("split: %d %s images, wrote %s", len(index), name, path)


if __name__ == "__main__":
    cli.run(main, __doc__)
