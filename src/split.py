"""Split the training images into training and validation sets; draw the static binarisation.

The permutation is seeded, and each set keeps the order of the original file. The test set is not
changed.
"""

from argparse import Namespace
from pathlib import Path

import numpy as np

from aevb.data import DATASET_FILE, ImageSet, SetName, fixed_draw, read_raw, write_set
from aevb.files import InputError, read_json
from aevb.plumbing import cli
from aevb.plumbing.params import Split
from aevb.rng import Random


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__, Split)
    add = parser.add_argument
    add("--raw", type=Path, required=True, help="folder with the IDX files")
    add("--train", type=Path, required=True, help="training images to write (.safetensors)")
    add("--validation", type=Path, required=True, help="validation images to write (.safetensors)")
    add("--test", type=Path, required=True, help="test images to write (.safetensors)")
    return parser


def main(args: Namespace) -> None:
    """Read the raw files, write the three sets."""
    settings = cli.settings(Split, args)
    images, labels = read_raw(args.raw, "train")
    if settings.validation_size >= len(images):
        raise InputError(
            f"--validation_size {settings.validation_size}: leaves none of the {len(images)} "
            "training images; lower split.validation_size"
        )
    order = Random("split", settings.seed).permutation(len(images))
    held_out, kept = np.split(order, [settings.validation_size])
    test = read_raw(args.raw, "t10k")
    described = read_json(args.raw / DATASET_FILE)
    if "name" not in described:
        raise InputError(f"{args.raw / DATASET_FILE}: has no name; run the download stage again")
    metadata = {"name": described["name"], "seed": settings.seed}

    def write(
        path: Path, name: SetName, source: tuple[np.ndarray, np.ndarray], index: np.ndarray
    ) -> None:
        index = np.sort(index)
        chosen = source[0][index]
        binary = None if name == "train" else fixed_draw(chosen, name, settings.seed)
        write_set(path, ImageSet(chosen, source[1][index], index, binary, metadata))
        cli.log.info("split: %d %s images, wrote %s", len(index), name, path)

    write(args.train, "train", (images, labels), kept)
    write(args.validation, "validation", (images, labels), held_out)
    write(args.test, "test", test, np.arange(len(test[0])))


if __name__ == "__main__":
    cli.run(main, arguments())
