"""Compare samples with test images and with the nearest training images.

Draws x ~ p(x|z) are compared with test images binarised as in training, since they follow the
model's distribution. Decoder means E[x|z], which figures show, do not; they are compared with gray
test images, whose pixels are the means of binarised ones. Features come from the classifier.
"""

import math
from argparse import ArgumentParser, Namespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aevb.model import VAE
from aevb.report.figures import rows_figure, save_figure
from aevb.research import scoring
from aevb.research.classify import Network, classes, features, read_classifier
from aevb.research.similarity import FOLDS, Arrays, Floats, nearest, scores_with_errors
from aevb.rng import generator, torch_generator

BLOCK = 100
"""Samples that share a random stream; a fixed number, so that a sample does not depend on how many
there are."""
SOUGHT = 1000
"""Samples whose nearest training images are searched, the first ones."""
COLUMNS, SHOWN, RANKS = 10, 20, ("nearest", "second", "third")
"""Of the figure: columns, samples, and rows of training images."""

Indices = NDArray[np.int64]


@torch.inference_mode()
def samples(model: VAE, count: int, seed: int) -> tuple[Floats, Floats]:
    """Decoder means E[x|z] and draws x ~ p(x|z) for the same z ~ N(0, I), float32 [count, 784]."""
    means, draws = [], []
    for block in range(math.ceil(count / BLOCK)):
        shape = (BLOCK, model.latent_dim)
        z = generator("fidelity z", seed, block).standard_normal(shape, np.float32)
        params = model.decoder(torch.from_numpy(z))
        means.append(model.likelihood.mean(params))
        random = torch_generator("cpu", "fidelity x", seed, block)
        draws.append(model.likelihood.sample(params, random))
    return torch.cat(means)[:count].numpy(), torch.cat(draws)[:count].numpy()


def sample_metrics(
    network: Network, fake: Floats, test: Floats, train: Floats, chosen: Indices, neighbours: int
) -> tuple[dict[str, float], Arrays]:
    """All scores of samples [N, 784] against as many test images, and what they are computed from.

    For reference, as many `chosen` training images are scored in place of the samples (`_real`).

    Returns:
        In the classifier's features, the scores of `aevb.research.similarity` and the entropy of
        the predicted classes. In pixels, for the first samples: `distance_to_train`, the mean
        distance to the nearest training image, and that of test images (`_real`); it is 0 for
        copies, but small for blurred images too. `closer_to_train`, the share of samples that are
        closer to one of the `chosen` training images than to any test image, ties counted half;
        blur does not affect it: it is 1 for copies, and about 1/2 where nothing was memorised.
    """
    metrics: dict[str, float] = {}
    arrays: Arrays = {}
    test_features = features(network, test)
    for suffix, images in (("", fake), ("_real", train[chosen])):
        points = features(network, images)
        found, counted = scores_with_errors(test_features, points, neighbours)
        counted["classes"] = classes(network, points)
        found["class_entropy"] = class_entropy(counted["classes"])
        for name, value in found.items():
            stem, error, _ = name.partition("_se")
            metrics[f"{stem}{suffix}{error}"] = value
        arrays |= {f"{name}{suffix}": array for name, array in counted.items()}
    first = fake[:SOUGHT]
    distances = {
        "distance_to_train": nearest(first, train)[0][:, 0],
        "distance_to_train_real": nearest(test[:SOUGHT], train)[0][:, 0],
    }
    to_train, to_test = (nearest(first, x)[0][:, 0] for x in (train[chosen], test))
    closer = {"closer_to_train": (np.sign(to_test - to_train) + 1) / 2}
    return metrics | scoring.means(distances | closer), arrays | distances


def class_entropy(labels: NDArray[Any]) -> float:
    """The entropy in nats of the shares of classes, at most log 10 = 2.303."""
    shares = np.bincount(labels) / len(labels)
    return math.fsum(share * math.log(1 / share) for share in shares.tolist() if share > 0)


def arguments() -> ArgumentParser:
    """The command line of this stage."""
    figure = "samples and their nearest training images to write (.png)"
    outputs = {**scoring.SCORES, "figure": figure}
    return scoring.arguments(__doc__, "sample_quality", "train test model classifier", outputs)


def main(args: Namespace) -> None:
    """Sample, compare in features and pixels, write scores, counts and the figure."""
    inputs = scoring.read_inputs(args)
    network = read_classifier(args.classifier)
    train, test = scoring.read_training_set(args.train), inputs.test
    count, least = min(len(train), len(test)), FOLDS * (args.neighbours + 1)
    scoring.require(
        least <= args.images <= count,
        f"--images {args.images}: should be {least} or more, for {args.neighbours} neighbours in "
        f"each of {FOLDS} parts, and {count} at most, the number of images",
    )
    # The purposes of random streams keep their names, which decide the numbers.
    random = generator("fidelity", args.seed)
    of_test, of_train = (random.permutation(len(x))[: args.images] for x in (test, train))
    means, draws = samples(inputs.model, args.images, args.seed)
    metrics: dict[str, float] = {"images": args.images, "neighbours": args.neighbours}
    arrays: Arrays = {"test_index": of_test, "train_index": of_train}
    for prefix, fake, pixels in (("", draws, inputs.pixels), ("means_", means, scoring.gray)):
        real = pixels(test)[of_test], pixels(train), of_train
        found, counted = sample_metrics(network, fake, *real, args.neighbours)
        metrics |= {f"{prefix}{name}": value for name, value in found.items()}
        arrays |= {f"{prefix}{name}": array for name, array in counted.items()}
    shown, gray = means[:SHOWN], scoring.gray(train)
    distances, places = nearest(shown, gray, len(RANKS))
    arrays |= {"shown": shown, "neighbours": places, "neighbour_distances": distances}
    rows = [("decoder mean", shown), *zip(RANKS, gray[places.T], strict=True)]
    title = (
        f"Decoder means and the nearest training images, {inputs.run}\n"
        f"mean distance to the nearest {metrics['means_distance_to_train']:.2f}, "
        f"that of test images {metrics['means_distance_to_train_real']:.2f}"
    )
    save_figure(args.figure, rows_figure(rows, COLUMNS, title))
    names = ("precision", "recall", "coverage")
    summary = ", ".join(f"{name} {metrics[name]:.3f}" for name in names)
    inputs.write(args, arrays, metrics, summary)
