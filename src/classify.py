"""Train the classifier whose features samples are compared in, one for all runs."""

from argparse import Namespace
from pathlib import Path

from aevb.classifier import accuracy, train, write_classifier
from aevb.data import read_set
from aevb.files import write_json
from aevb.plumbing import cli
from aevb.plumbing.devices import repeatable
from aevb.plumbing.params import Classifier


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__, Classifier)
    add = parser.add_argument
    add("--train", type=Path, required=True, help="training images (.safetensors)")
    add("--test", type=Path, required=True, help="test images (.safetensors)")
    add("--classifier", type=Path, required=True, help="the weights to write (.safetensors)")
    add("--accuracy", type=Path, required=True, help="shares found in the test set (.json)")
    return parser


def main(args: Namespace) -> None:
    """Train, classify the test images, write the weights and how good they are."""
    settings = cli.settings(Classifier, args)
    repeatable()
    images, test = read_set(args.train), read_set(args.test)
    with cli.progress(None, "classify", settings.epochs * len(images), "image") as bar:
        network = train(images, settings, bar.update)
    found = accuracy(network, test)
    metadata = {"data": images.metadata, "classifier": settings.model_dump()}
    write_classifier(args.classifier, network, metadata)
    write_json(args.accuracy, found)
    cli.log.info(
        "classify: %.2f ± %.2f %% of gray, %.2f ± %.2f %% of binarised test images, wrote %s",
        *(100 * found[f"accuracy_{name}"] for name in ("gray", "gray_se", "binary", "binary_se")),
        args.classifier,
    )


if __name__ == "__main__":
    cli.run(main, arguments())
