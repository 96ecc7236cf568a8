"""What samples are worth: beside test images in a classifier's features, beside training images.

Draws x ~ p(x|z) are compared with test images binarised as in training; they
are the model's distribution. Decoder means E[x|z], which figures show, are no draws from it: they
are compared with gray test images, which are the means of binarised ones as they are of draws.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aevb.classifier import Network, classes, features
from aevb.data import CLASSES
from aevb.files import Arrays
from aevb.intervals import mean_with_error
from aevb.model import VAE
from aevb.rng import generator, torch_generator
from aevb.similarity import nearest, scores_with_errors

BLOCK = 100
"""Samples that share a stream of noise; a fixed number, so that noise depends on nothing else."""
SOUGHT = 1000
"""Samples whose nearest training images are looked for, the first ones."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pixels:
    """Real images of one binarisation, float32 [N, 784] each.

    Attributes:
        test: what samples are compared with, as many as samples.
        train: all training images.
        alike: places of as many training images, which take the samples' place for comparison.
    """

    test: Floats
    train: Floats
    alike: NDArray[np.int64]


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


def judge(
    network: Network, fake: Floats, real: Pixels, neighbours: int
) -> tuple[dict[str, float], Arrays]:
    """All scores of samples [N, 784], and what they were computed from.

    Returns:
        The scores of `aevb.similarity` in the classifier's features, and the entropy of the
        classes, each beside the same for training images in the samples' place (`_real`). In
        pixels, for the first samples: the mean distance to the nearest training image, beside that
        of test images, 0 for copies and small for blurred images too; the share of samples nearer
        to one of the `alike` training images than to any test image, ties by half, which blur
        leaves alone: 1 for copies, about 1/2 where nothing was memorised.
    """
    metrics: dict[str, float] = {}
    arrays: Arrays = {}
    test = features(network, real.test)
    for suffix, images in (("", fake), ("_real", real.train[real.alike])):
        points = features(network, images)
        found, counted = scores_with_errors(test, points, neighbours)
        counted["classes"] = classes(network, points)
        metrics[f"class_entropy{suffix}"] = class_entropy(counted["classes"])
        for name, (score, error) in found.items():
            metrics |= {f"{name}{suffix}": score, f"{name}{suffix}_se": error}
        arrays |= {f"{name}{suffix}": array for name, array in counted.items()}
    first = fake[:SOUGHT]
    distances = {
        "distance_to_train": nearest(first, real.train)[0][:, 0],
        "distance_to_train_real": nearest(real.test[:SOUGHT], real.train)[0][:, 0],
    }
    to_train, to_test = (nearest(first, x)[0][:, 0] for x in (real.train[real.alike], real.test))
    closer = {"closer_to_train": (np.sign(to_test - to_train) + 1) / 2}
    for name, values in (distances | closer).items():
        metrics |= mean_with_error(name, values)
    return metrics, arrays | distances


def class_entropy(labels: NDArray[Any]) -> float:
    """The entropy in nats of the shares of classes, at most log 10 = 2.303."""
    shares = np.bincount(labels, minlength=CLASSES) / len(labels)
    return math.fsum(share * math.log(1 / share) for share in shares.tolist() if share > 0)
