"""Compare samples with test images and with the nearest training images.

Draws x ~ p(x|z) are compared with test images binarised as in training, since they follow the
model's distribution. Decoder means E[x|z], which figures show, do not; they are compared with gray
test images, because their pixels are the means of binarised ones.

Scores are computed between two sets of features of the classifier, `real` [N, D] and `fake` [M, D].
Precision and recall are those of Kynkäänniemi et al. 2019 (arXiv:1904.06991), equations 1 and 2;
density and coverage those of Naeem et al. 2020 (arXiv:2002.09797), section 3. All four use balls
around each point that reach to its k-th nearest neighbour in its own set. For two large sets from
one distribution, density is 1 on average and coverage 1 − 2⁻ᵏ.
"""

import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import entropy
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors
from torch import nn

from aevb.data import model_inputs
from aevb.intervals import mean_and_se
from aevb.model import VAE
from aevb.plumbing.params import SampleQuality, TrainSet
from aevb.report.figures import rows_figure, save_figure
from aevb.research import scoring
from aevb.research.classify import Floats, classes, features, read_classifier
from aevb.rng import Random

BLOCK = 100
"""Samples that share a random stream; fixed, so that they do not depend on their number."""
FOLDS = 10
"""Disjoint parts of both sets; the standard errors come from their spread."""
SEARCHED = 1000
"""The number of samples, the first ones, for which the nearest training images are searched."""
COLUMNS, SHOWN, RANKS = 10, 20, ("nearest", "second", "third")
"""Of the figure: columns, samples, and rows of training images."""

Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]


@torch.inference_mode()
def samples(model: VAE, count: int, seed: int) -> tuple[Floats, Floats]:
    """Decoder means E[x|z] and draws x ~ p(x|z) for the same z ~ N(0, I), float32 [count, 784]."""
    means, draws = [], []
    for block in range(math.ceil(count / BLOCK)):
        random = Random("sample_quality", seed, block)
        params = model.decoder(torch.from_numpy(random.normal((BLOCK, model.latent_dim))))
        means.append(model.likelihood.mean(params))
        draws.append(model.likelihood.sample(params, random))
    return torch.cat(means)[:count].numpy(), torch.cat(draws)[:count].numpy()


def search(points: NDArray[Any] | None, among: NDArray[Any], count: int) -> tuple[Doubles, Indices]:
    """Euclidean distances of points [N, D] to the nearest of others and their indices, [N, count].

    Without points, those of the others to the nearest in their own set.
    """
    found = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(among)
    distances, places = found.kneighbors(points)
    return distances, places


def nearest(points: Floats, among: Floats) -> Floats:
    """The distance of each point to the nearest of others, [N], in float32.

    Distances between binary images are roots of integers: those that are equal stay equal.
    """
    return search(points, among, 1)[0][:, 0].astype(np.float32)


def balls(points: Doubles, centres: Doubles, radii: Doubles) -> Indices:
    """The number of closed balls that contain each of the points, [N]."""
    chunks = pairwise_distances_chunked(points, centres, working_memory=64)
    return np.concatenate([(distances <= radii).sum(1) for distances in chunks])


def frechet(real: Doubles, fake: Doubles) -> float:
    """Squared Fréchet distance of the Gaussians with the sets' means m, n and covariances S, T.

    ‖m − n‖² + tr(S + T − 2 (S T)½) ≥ 0: Heusel et al. 2017 (arXiv:1706.08500), equation 6. In
    other features than Inception's it is not the FID, and can only be compared with distances in
    the same features. It is biased upwards by about 1 / N.
    """
    (m, s), (n, t) = ((x.mean(0), np.atleast_2d(np.cov(x, rowvar=False))) for x in (real, fake))
    root = np.sqrt(np.linalg.eigvals(s @ t).real.clip(0)).sum()  # rounding may make them complex
    return max(float(np.square(m - n).sum() + np.trace(s) + np.trace(t) - 2 * root), 0.0)


def scores(real: Doubles, fake: Doubles, neighbours: int) -> dict[str, float]:
    """Precision, recall, density, coverage and Fréchet distance."""
    real_reach, fake_reach = (search(None, x, neighbours)[0][:, -1] for x in (real, fake))
    around_fake = balls(fake, real, real_reach)
    return {
        "precision": float(np.mean(around_fake > 0)),
        "recall": float(np.mean(balls(real, fake, fake_reach) > 0)),
        "density": float(np.mean(around_fake) / neighbours),
        "coverage": float(np.mean(search(real, fake, 1)[0][:, 0] <= real_reach)),
        "frechet": frechet(real, fake),
    }


def scores_with_errors(
    real: Floats, fake: Floats, neighbours: int, suffix: str = ""
) -> dict[str, float]:
    """Scores of sets of equal size, each as NAME + suffix with its standard error.

    The error is the standard deviation over ten disjoint parts of both sets divided by √10. It is
    due to the choice of both sets, not to the training of a model.
    """
    x, y = real.astype(np.float64), fake.astype(np.float64)
    # Every tenth point, since the order of a set may not be random (by writer, for example).
    parts = [scores(x[i::FOLDS], y[i::FOLDS], neighbours) for i in range(FOLDS)]
    metrics = {}
    for name, value in scores(x, y, neighbours).items():
        metrics[f"{name}{suffix}"] = value
        metrics[f"{name}{suffix}_se"] = mean_and_se([part[name] for part in parts])[1]
    return metrics


def sample_metrics(
    network: nn.Sequential,
    fake: Floats,
    test: Floats,
    train: Floats,
    chosen: Indices,
    neighbours: int,
) -> dict[str, float]:
    """All scores of samples [N, 784] against as many test images.

    For reference, as many `chosen` training images are scored in place of the samples (`_real`).

    Returns:
        In the classifier's features, the scores and the entropy of the predicted classes in nats,
        at most log 10 = 2.303. In pixels, for the first samples: `distance_to_train`, the mean
        distance to the nearest training image, and that of test images (`_real`); it is 0 for
        copies, but small for blurred images too. `closer_to_train`, the share of samples that are
        closer to one of the `chosen` training images than to any test image, ties counted half;
        blur does not affect it: it is 1 for copies, and about 1/2 where nothing was memorised.
    """
    metrics: dict[str, float] = {}
    test_features = features(network, test)
    for suffix, images in (("", fake), ("_real", train[chosen])):
        points = features(network, images)
        metrics |= scores_with_errors(test_features, points, neighbours, suffix)
        metrics[f"class_entropy{suffix}"] = float(entropy(np.bincount(classes(network, points))))
    first = fake[:SEARCHED]
    to_train, to_test = nearest(first, train[chosen]), nearest(first, test)
    distances = {
        "distance_to_train": nearest(first, train),
        "distance_to_train_real": nearest(test[:SEARCHED], train),
        "closer_to_train": (np.sign(to_test - to_train) + 1) / 2,
    }
    return metrics | scoring.means(distances)


def main(
    files: scoring.Scored,
    train: TrainSet,
    classifier: Annotated[Path, "the trained classifier (.safetensors)"],
    figure: Annotated[Path, "samples and their nearest training images to write (.png)"],
    settings: SampleQuality,
) -> None:
    """Sample, compare in features and pixels, write the scores and the figure."""
    inputs, network = scoring.read_inputs("sample_quality", files), read_classifier(classifier)
    training, test = scoring.read_training_set(train), inputs.test
    images, neighbours = settings.images, settings.neighbours
    count, least = min(len(training), len(test)), FOLDS * (neighbours + 1)
    scoring.require(
        least <= images <= count,
        f"--images {images}: should be {least} or more, for {neighbours} neighbours in each of "
        f"{FOLDS} parts, and {count} at most, the number of images",
    )
    random = Random("sample_quality order", settings.seed)
    of_test, of_train = (random.permutation(len(x))[:images] for x in (test, training))
    means, draws = samples(inputs.model, images, settings.seed)
    metrics: dict[str, float] = {"images": images, "neighbours": neighbours}
    trained_on = inputs.metadata["binarisation"]
    for prefix, fake, pixels in (("", draws, trained_on), ("means_", means, "none")):
        real = model_inputs(test, pixels)[of_test], model_inputs(training, pixels), of_train
        found = sample_metrics(network, fake, *real, neighbours)
        metrics |= {f"{prefix}{name}": value for name, value in found.items()}
    shown, gray = means[:SHOWN], model_inputs(training, "none")
    distances, places = search(shown, gray, len(RANKS))
    title = f"Decoder means and the nearest training images, {inputs.run}"
    rows = [("decoder mean", shown), *zip(RANKS, gray[places.T], strict=True)]
    save_figure(figure, rows_figure(rows, COLUMNS, title))
    summary = "precision {precision:.3f}, recall {recall:.3f}, coverage {coverage:.3f}"
    arrays: dict[str, NDArray[Any]] = {"shown": shown, "neighbours": places, "distances": distances}
    inputs.write(files, arrays, metrics, summary)
