"""Compare samples with test images; count the digits that change in reconstruction.

Draws x ~ p(x|z), with z from the prior or from the mixture that `latents` fitted to codes, are
compared with test images binarised as in training, in the features of the classifier. With the
mixture, z comes from where training images have their codes; the decoder is the same.

Precision and recall are those of Kynkäänniemi et al. 2019 (arXiv:1904.06991), equations 1 and 2,
between two sets of features, `real` [N, D] and `fake` [M, D]. They use balls around each point that
reach to its k-th nearest neighbour in its own set.
"""

from pathlib import Path
from typing import Annotated, Any

from aevb.files import read_tensors
from aevb.intervals import mean_and_se, means_with_errors
from aevb.model import VAE
from aevb.plumbing.params import SampleQuality, TrainSet
from aevb.report.figures import rows_figure, save_figure
from aevb.research import scoring
from aevb.research.classify import classes, features, read_classifier
from aevb.rng import Doubles, Floats, Random

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors
from torch import nn

FOLDS = 10
"""Disjoint parts of both sets; the standard errors come from their spread."""
SEARCHED = 1000
"""The number of samples, the first ones, for which the nearest training images are searched."""
COLUMNS, SHOWN, RANKS = 10, 20, ("nearest", "second", "third")
"""Of the figure: columns, samples, and rows of training images."""

Indices = NDArray[np.int64]


@torch.inference_mode()
def draws(model: VAE, z: Floats, random: Random) -> Floats:
    """Draws x ~ p(x|z), float32 [N, 784], for z [N, k]."""
    return model.likelihood.sample(model.decoder(torch.from_numpy(z)), random).numpy()


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


def in_balls(points: Doubles, centres: Doubles, neighbours: int) -> float:
    """The share of points that are in a ball around one of the centres."""
    radii = search(None, centres, neighbours)[0][:, -1]
    chunks = pairwise_distances_chunked(points, centres, working_memory=64)
    return float(np.concatenate([(distances <= radii).any(1) for distances in chunks]).mean())


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
    """Precision, recall and Fréchet distance."""
    return {
        "precision": in_balls(fake, real, neighbours),
        "recall": in_balls(real, fake, neighbours),
        "frechet": frechet(real, fake),
    }


def scores_with_errors(real: Floats, fake: Floats, neighbours: int) -> dict[str, float]:
    """Scores of sets of equal size, each with its standard error.

    The error is the standard deviation over ten disjoint parts of both sets divided by √10. It is
    due to the choice of both sets, not to the training of a model.
    """
    x, y = real.astype(np.float64), fake.astype(np.float64)
    # Every tenth point, since the order of a set may not be random (by writer, for example).
    parts = [scores(x[i::FOLDS], y[i::FOLDS], neighbours) for i in range(FOLDS)]
    errors = {f"{name}_se": mean_and_se([part[name] for part in parts])[1] for name in parts[0]}
    return scores(x, y, neighbours) | errors


def closer_to_train(fake: Floats, test: Floats, train: Floats) -> Doubles:
    """Whether samples are closer to a training image than to all test images, [N]; ties are 1/2.

    With equally many images of both kinds the mean is about 1/2 where nothing was memorised, and 1
    for copies of training images. Blur does not affect it.
    """
    return np.asarray((np.sign(nearest(fake, test) - nearest(fake, train)) + 1) / 2)


def digit_changes(network: nn.Sequential, x: Floats, other: Floats) -> NDArray[np.bool_]:
    """Whether the classifier assigns another class to the second image of each pair, [N]."""
    before, after = (classes(network, features(network, images)) for images in (x, other))
    return np.not_equal(before, after)


def main(
    files: scoring.Scored,
    train: TrainSet,
    latents: Annotated[Path, "the arrays that `latents` found for the model (.safetensors)"],
    classifier: Annotated[Path, "the trained classifier (.safetensors)"],
    figure: Annotated[Path, "samples and their nearest training images to write (.png)"],
    settings: SampleQuality,
) -> None:
    """Sample, compare, write the scores and the figure.

    Scores are those of draws with z from the prior, with z from the mixture (`mixture_…`) and, for
    reference, of as many training images (`real_…`).
    """
    inputs = scoring.read_inputs("sample_quality", files.model, files.test)
    network, training = read_classifier(classifier), inputs.training_images(train)
    images, neighbours = settings.images, settings.neighbours
    count, least = min(len(training), len(inputs.x)), FOLDS * (neighbours + 1)
    scoring.require(
        least <= images <= count,
        f"--images {images}: should be {least} or more, for {neighbours} neighbours in each of "
        f"{FOLDS} parts, and {count} at most, the number of images",
    )
    random = Random("sample_quality", settings.seed)
    of_test, of_train = (random.permutation(len(x))[:images] for x in (inputs.x, training))
    prior_z = random.normal((images, inputs.model.latent_dim))
    mixture_z = read_tensors(latents, "latents")[0]["mixture_z"][:images]
    scoring.require(
        mixture_z.shape == prior_z.shape, f"{latents}: belongs to another model or test set"
    )

    real, train_x = inputs.x[of_test], training[of_train]
    real_features = features(network, real)
    from_prior = draws(inputs.model, prior_z, random)
    from_mixture = draws(inputs.model, mixture_z, random)
    metrics: dict[str, float] = {"images": images, "neighbours": neighbours}
    sets = {"": from_prior, "mixture_": from_mixture, "real_": train_x}
    for prefix, fake in sets.items():
        found = scores_with_errors(real_features, features(network, fake), neighbours)
        metrics |= {f"{prefix}{name}": value for name, value in found.items()}

    gray, (mu, _) = inputs.gray, inputs.encode(inputs.x)
    right = classes(network, features(network, gray)) == inputs.labels
    metrics |= means_with_errors(
        {
            "closer_to_train": closer_to_train(from_prior[:SEARCHED], real, train_x),
            "digit_changes": digit_changes(network, gray, inputs.decode(mu)),
            "classifier_error": ~right,
        }
    )
    shown, gray = inputs.decode(prior_z[:SHOWN]), inputs.training_images(train, "none")
    distances, places = search(shown, gray, len(RANKS))
    title = f"Decoder means and the nearest training images, {inputs.run}"
    rows = [("decoder mean", shown), *zip(RANKS, gray[places.T], strict=True)]
    save_figure(figure, rows_figure(rows, COLUMNS, title))
    summary = (
        "precision {precision:.3f}, recall {recall:.3f} (z from the mixture: "
        "{mixture_precision:.3f}, {mixture_recall:.3f}), {digit_changes:.1%} of digits change"
    )
    arrays: dict[str, NDArray[Any]] = {"shown": shown, "neighbours": places, "distances": distances}
    inputs.write(files, arrays, metrics, summary)
