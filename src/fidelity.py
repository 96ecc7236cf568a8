"""Compare samples with test images, and with the training images that are nearest to them.

Likelihood and binarisation come from the model file; features come from the classifier.
"""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from threadpoolctl import threadpool_limits

from aevb.classifier import read_classifier
from aevb.data import fixed_draw, model_inputs, read_set
from aevb.fidelity import Pixels, judge, samples
from aevb.files import Arrays, InputError, write_json, write_tensors
from aevb.model import read_model
from aevb.plumbing import cli
from aevb.plumbing.devices import repeatable
from aevb.plumbing.params import SampleQuality
from aevb.report.figures import rows_figure, save_figure
from aevb.rng import generator
from aevb.similarity import FOLDS, nearest

COLUMNS, SHOWN, RANKS = 10, 20, 3


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__, SampleQuality)
    add = parser.add_argument
    add("--train", type=Path, required=True, help="training images (.safetensors)")
    add("--test", type=Path, required=True, help="test images (.safetensors)")
    add("--model", type=Path, required=True, help="the trained model (.safetensors)")
    add("--classifier", type=Path, required=True, help="the classifier (.safetensors)")
    add("--metrics", type=Path, required=True, help="the scores to write (.json)")
    add("--fidelity", type=Path, required=True, help="counts per image to write (.safetensors)")
    add("--figure", type=Path, required=True, help="samples over training images (.png)")
    return parser


def main(args: Namespace) -> None:
    """Sample, compare, look for neighbours, write scores, counts and the figure."""
    settings = cli.settings(SampleQuality, args)
    repeatable()
    threadpool_limits(1)
    model, metadata = read_model(args.model)
    network = read_classifier(args.classifier)
    train, test = read_set(args.train), read_set(args.test)
    count, least = min(len(train), len(test)), FOLDS * (settings.neighbours + 1)
    if not least <= settings.images <= count:
        raise InputError(
            f"--images {settings.images}: should be {least} or more, for {settings.neighbours} "
            f"neighbours in each of {FOLDS} parts, and {count} at most, the images there are"
        )
    # Training images hold no fixed draw: dynamic binarisation draws theirs anew in each epoch.
    train = replace(train, binary=fixed_draw(train.images, "train", train.metadata["seed"]))
    random = generator("fidelity", settings.seed)
    chosen, alike = (random.permutation(len(x))[: settings.images] for x in (test, train))
    means, draws = samples(model, settings.images, settings.seed)
    metrics: dict[str, float] = {"images": settings.images, "neighbours": settings.neighbours}
    arrays: Arrays = {"test_index": chosen, "train_index": alike}
    for prefix, fake, binarisation in (
        ("", draws, metadata["binarisation"]),
        ("means_", means, "none"),
    ):
        x = model_inputs(test, binarisation)[chosen]
        pixels = Pixels(x, model_inputs(train, binarisation), alike)
        found, counted = judge(network, fake, pixels, settings.neighbours)
        metrics |= {f"{prefix}{name}": value for name, value in found.items()}
        arrays |= {f"{prefix}{name}": array for name, array in counted.items()}
    # The last pixels are gray levels, like the means.
    distances, places = nearest(means[:SHOWN], pixels.train, RANKS)
    arrays |= {"shown": means[:SHOWN], "neighbours": places, "neighbour_distances": distances}
    write_tensors(args.fidelity, "fidelity", arrays, metadata)
    ranks = ["nearest", "second", "third"]
    rows = [("decoder mean", means[:SHOWN])]
    rows += [(name, pixels.train[places[:, rank]]) for rank, name in enumerate(ranks)]
    run = f"k = {model.latent_dim}, seed {metadata['seed']}"
    title = (
        f"Decoder means and the nearest training images, {run}\n"
        f"mean distance to the nearest {metrics['means_distance_to_train']:.2f}, "
        f"that of test images {metrics['means_distance_to_train_real']:.2f}"
    )
    save_figure(args.figure, rows_figure(rows, COLUMNS, title))
    write_json(args.metrics, metrics)
    cli.log.info(
        "fidelity %s: precision %.3f, recall %.3f, coverage %.3f, wrote %s",
        *(run, metrics["precision"], metrics["recall"], metrics["coverage"], args.metrics),
    )


if __name__ == "__main__":
    cli.run(main, arguments())
