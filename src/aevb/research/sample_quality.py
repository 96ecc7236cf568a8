"""Compare samples with test images and with the nearest training images.

Draws x ~ p(x|z) are compared with test images binarised as in training, since they follow the
model's distribution. Decoder means E[x|z], which figures show, do not; they are compared with gray
test images, whose pixels are the means of binarised ones.

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
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

from aevb.data import model_inputs
from aevb.evaluation import Floats
from aevb.intervals import mean_and_se
from aevb.model import VAE
from aevb.plumbing.params import SampleQuality
from aevb.report.figures import rows_figure, save_figure
from aevb.research import scoring
from aevb.research.classify import Network, classes, features, read_classifier
from aevb.rng import generator, torch_generator

BLOCK = 100
"""Samples that share a random stream; fixed, so that they do not depend on their number."""
DISTANCES = 500
"""Fake points whose distances to all real ones are held in memory at once."""
FOLDS = 10
"""Disjoint parts of both sets whose spread gives the standard errors."""
SEARCHED = 1000
"""Samples whose nearest training images are searched, the first ones."""
COLUMNS, SHOWN, RANKS = 10, 20, ("nearest", "second", "third")
"""Of the figure: columns, samples, and rows of training images."""

Arrays = dict[str, NDArray[Any]]
Doubles = NDArray[np.float64]
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


def reach(points: Doubles, neighbours: int) -> Doubles:
    """The distance of each point to its k-th nearest neighbour among the others, [N]."""
    found = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(points)
    return np.asarray(found.kneighbors()[0][:, -1])


def overlap(real: Doubles, fake: Doubles, neighbours: int) -> Arrays:
    """Which points of each set are in the closed balls of the other, of radius `reach`.

    Returns:
        balls: int32 [M], the number of balls of real points that contain each fake one.
        covered: bool [N], real points whose ball contains a fake one.
        recalled: bool [N], real points that are in the ball of a fake one.
    """
    real_reach, fake_reach = reach(real, neighbours), reach(fake, neighbours)
    balls = np.zeros(len(fake), np.int32)
    covered, recalled = np.zeros((2, len(real)), bool)
    for start in range(0, len(fake), DISTANCES):
        block = slice(start, start + DISTANCES)
        distance = pairwise_distances(fake[block], real)
        inside = distance <= real_reach
        balls[block] = inside.sum(1)
        covered |= inside.any(0)
        recalled |= (distance <= fake_reach[block, None]).any(0)
    return {"balls": balls, "covered": covered, "recalled": recalled}


def frechet(real: Doubles, fake: Doubles) -> float:
    """Squared Fréchet distance of the Gaussians with the sets' means m, n and covariances S, T.

    ‖m − n‖² + tr(S + T − 2 (S½ T S½)½) ≥ 0: Heusel et al. 2017 (arXiv:1706.08500), equation 6. In
    other features than Inception's it is not the FID, and can only be compared with distances in
    the same features. It is biased upwards by about 1 / N.
    """
    (m, s), (n, t) = ((x.mean(0), np.atleast_2d(np.cov(x, rowvar=False))) for x in (real, fake))
    # Symmetric, unlike (S T)½ with the same eigenvalues: rounding gives no complex numbers.
    values, axes = np.linalg.eigh(s)
    root = axes * np.sqrt(values.clip(0)) @ axes.T
    both = np.sqrt(np.linalg.eigvalsh(root @ t @ root).clip(0)).sum()
    return max(float(np.square(m - n).sum() + np.trace(s) + np.trace(t) - 2 * both), 0.0)


def scores(real: Doubles, fake: Doubles, neighbours: int) -> tuple[dict[str, float], Arrays]:
    """Precision, recall, density, coverage and Fréchet distance, and the `overlap`."""
    points = overlap(real, fake, neighbours)
    return {
        "precision": float(np.mean(points["balls"] > 0)),
        "recall": float(np.mean(points["recalled"])),
        "density": float(np.mean(points["balls"]) / neighbours),
        "coverage": float(np.mean(points["covered"])),
        "frechet": frechet(real, fake),
    }, points


def scores_with_errors(
    real: Floats, fake: Floats, neighbours: int
) -> tuple[dict[str, float], dict[str, float], Arrays]:
    """Scores of sets of equal size, their standard errors, and the `overlap`.

    The error is the standard deviation over ten disjoint parts of both sets divided by √10. It is
    due to the choice of both sets, not to the training of a model.
    """
    x, y = real.astype(np.float64), fake.astype(np.float64)
    result, points = scores(x, y, neighbours)
    # Every tenth point, since the order of a set may not be random (by writer, for example).
    parts = [scores(x[i::FOLDS], y[i::FOLDS], neighbours)[0] for i in range(FOLDS)]
    return result, {name: mean_and_se([part[name] for part in parts])[1] for name in result}, points


def nearest(points: Floats, among: Floats, count: int = 1) -> tuple[Floats, Indices]:
    """Euclidean distances to the nearest of other points and their indices, [N, count] each."""
    found = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(among)
    distances, places = found.kneighbors(points)
    return distances.astype(np.float32), places


def class_entropy(labels: NDArray[np.integer]) -> float:
    """The entropy in nats of the shares of classes, at most log 10 = 2.303."""
    shares = np.bincount(labels) / len(labels)
    return math.fsum(share * math.log(1 / share) for share in shares.tolist() if share > 0)


def sample_metrics(
    network: Network, fake: Floats, test: Floats, train: Floats, chosen: Indices, neighbours: int
) -> tuple[dict[str, float], Arrays]:
    """All scores of samples [N, 784] against as many test images, and what they are computed from.

    For reference, as many `chosen` training images are scored in place of the samples (`_real`).

    Returns:
        In the classifier's features, the scores and the entropy of the predicted classes. In
        pixels, for the first samples: `distance_to_train`, the mean distance to the nearest
        training image, and that of test images (`_real`); it is 0 for copies, but small for blurred
        images too. `closer_to_train`, the share of samples that are closer to one of the `chosen`
        training images than to any test image, ties counted half; blur does not affect it: it is 1
        for copies, and about 1/2 where nothing was memorised.
    """
    metrics: dict[str, float] = {}
    arrays: Arrays = {}
    test_features = features(network, test)
    for suffix, images in (("", fake), ("_real", train[chosen])):
        points = features(network, images)
        found, errors, counted = scores_with_errors(test_features, points, neighbours)
        counted["classes"] = classes(network, points)
        found["class_entropy"] = class_entropy(counted["classes"])
        metrics |= {f"{name}{suffix}": value for name, value in found.items()}
        metrics |= {f"{name}{suffix}_se": error for name, error in errors.items()}
        arrays |= {f"{name}{suffix}": array for name, array in counted.items()}
    first = fake[:SEARCHED]
    distances = {
        "distance_to_train": nearest(first, train)[0][:, 0],
        "distance_to_train_real": nearest(test[:SEARCHED], train)[0][:, 0],
    }
    to_train, to_test = (nearest(first, x)[0][:, 0] for x in (train[chosen], test))
    closer = {"closer_to_train": (np.sign(to_test - to_train) + 1) / 2}
    return metrics | scoring.means(distances | closer), arrays | distances


class Files(scoring.FilesAndTrainSet):
    """With the classifier and a figure."""

    classifier: Annotated[Path, "the trained classifier (.safetensors)"]
    figure: Annotated[Path, "samples and their nearest training images to write (.png)"]


def main(files: Files, settings: SampleQuality) -> None:
    """Sample, compare in features and pixels, write scores, counts and the figure."""
    inputs = scoring.read_inputs("sample_quality", files)
    network = read_classifier(files.classifier)
    train, test = scoring.read_training_set(files.train), inputs.test
    images, neighbours = settings.images, settings.neighbours
    count, least = min(len(train), len(test)), FOLDS * (neighbours + 1)
    scoring.require(
        least <= images <= count,
        f"--images {images}: should be {least} or more, for {neighbours} neighbours in each of "
        f"{FOLDS} parts, and {count} at most, the number of images",
    )
    # The purposes of random streams keep their names, which decide the numbers.
    random = generator("fidelity", settings.seed)
    of_test, of_train = (random.permutation(len(x))[:images] for x in (test, train))
    means, draws = samples(inputs.model, images, settings.seed)
    metrics: dict[str, float] = {"images": images, "neighbours": neighbours}
    arrays: Arrays = {"test_index": of_test, "train_index": of_train}
    trained_on = inputs.metadata["binarisation"]
    for prefix, fake, pixels in (("", draws, trained_on), ("means_", means, "none")):
        real = model_inputs(test, pixels)[of_test], model_inputs(train, pixels), of_train
        found, counted = sample_metrics(network, fake, *real, neighbours)
        metrics |= {f"{prefix}{name}": value for name, value in found.items()}
        arrays |= {f"{prefix}{name}": array for name, array in counted.items()}
    shown, gray = means[:SHOWN], model_inputs(train, "none")
    distances, places = nearest(shown, gray, len(RANKS))
    arrays |= {"shown": shown, "neighbours": places, "neighbour_distances": distances}
    rows = [("decoder mean", shown), *zip(RANKS, gray[places.T], strict=True)]
    title = (
        f"Decoder means and the nearest training images, {inputs.run}\n"
        f"mean distance to the nearest {metrics['means_distance_to_train']:.2f}, "
        f"that of test images {metrics['means_distance_to_train_real']:.2f}"
    )
    save_figure(files.figure, rows_figure(rows, COLUMNS, title))
    summary = "precision {precision:.3f}, recall {recall:.3f}, coverage {coverage:.3f}"
    inputs.write(files, arrays, metrics, summary)
