"""What the latents hold: active units, information about the image, the digit."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits
from torch import Tensor

from aevb.bounds import Terms, kl_per_dimension, log_importance_weights, reparameterise
from aevb.data import Bytes, ImageSet, fixed_draw, model_inputs
from aevb.evaluation import BLOCK, Floats
from aevb.files import InputError
from aevb.intervals import mean_with_error
from aevb.rng import generator

DRAWS = 5
"""Draws of z an image that are held at once, whatever their number."""

Doubles = NDArray[np.float64]


def training_observations(images: ImageSet, binarisation: str) -> Floats:
    """Training images as a model is scored on others, [N, 784]: gray levels, or one fixed draw.

    The draw is the one that training on fixed binarisation sees.
    """
    drawn = fixed_draw(images.images, "train", images.metadata["seed"])
    return model_inputs(replace(images, binary=drawn), binarisation)


def unit_variances(mu: Floats) -> Doubles:
    """The activity of each unit, [k]: the variance over images of E[z|x] = mu, [N, k].

    Burda et al. 2015 (arXiv:1509.00519) call a unit active where it is above 0.01.
    """
    variances: Doubles = mu.astype(np.float64).var(0, ddof=1)
    return variances


def active_units(variances: Doubles, thresholds: Doubles) -> NDArray[np.int64]:
    """How many units are active, [T], for each of the thresholds [T]."""
    counts: NDArray[np.int64] = (variances > thresholds[:, None]).sum(1)
    return counts


@torch.inference_mode()
def information(
    mu: Floats,
    log_var: Floats,
    samples: int,
    seed: int,
    callback: Callable[[int], Any] = lambda _: None,
) -> dict[str, Doubles]:
    """The KL term of N images taken apart, from q(z|x) = N(mu, diag sigma²), each [N, k].

    Hoffman & Johnson 2016, "ELBO surgery": for the empirical distribution of these N images,
    whose aggregate posterior is q(z) = 1/N Σ q(z|x_n),

        1/N Σ KL(q(z|x_n) ‖ p(z))  =  I(x; z)  +  KL(q(z) ‖ p(z))

    Returns:
        float64 arrays per image, [N], in nats, whose means over images are these terms:
        kl (closed form), mutual_information (log q(z|x) − log q(z), at most log N) and marginal_kl
        (log q(z) − log p(z)), means over `samples` draws of z an image, unbiased; and
        kl_residual = kl − mutual_information − marginal_kl, which is Monte Carlo error alone.

    As I ≤ log N, it saturates where posteriors hardly overlap, as at k = 20: there it says that N
    images can be told apart, not how much z holds, and marginal_kl is the mean KL less log N, not
    a distance between prior and the q(z) of all images. At k = 3, too, the first still rises, by
    0.3 nats from 5,000 images to 10,000, and the second falls: compare both at equal N alone.

    Noise is keyed by (seed, block of images).
    """
    q_mu, q_log_var = torch.from_numpy(mu).double(), torch.from_numpy(log_var).double()
    results = []
    for block, (means, log_vars) in enumerate(
        zip(q_mu.split(BLOCK), q_log_var.split(BLOCK), strict=True)
    ):
        random = generator("latents", seed, block)
        kl = kl_per_dimension(means, log_vars).sum(-1)
        log_ratio, log_aggregate = torch.zeros_like(kl), torch.zeros_like(kl)
        for start in range(0, samples, DRAWS):
            shape = (min(DRAWS, samples - start), BLOCK, mu.shape[1])
            eps = torch.from_numpy(random.standard_normal(shape))[:, : len(means)]
            prior_alone = Terms(torch.zeros_like(kl), kl, means, log_vars)
            log_ratio -= log_importance_weights(prior_alone, eps).sum(0)
            z = reparameterise(means, log_vars, eps)
            log_aggregate += log_aggregate_ratio(z, q_mu, q_log_var).sum(0)
        mutual_information = (log_ratio - log_aggregate) / samples
        marginal_kl = log_aggregate / samples
        results.append((kl, mutual_information, marginal_kl, kl - log_ratio / samples))
        callback(len(means))
    names = ("kl", "mutual_information", "marginal_kl", "kl_residual")
    columns = (torch.cat(column).numpy() for column in zip(*results, strict=True))
    return dict(zip(names, columns, strict=True))


def log_aggregate_ratio(z: Tensor, mu: Tensor, log_var: Tensor, block: int = 1000) -> Tensor:
    """log q(z) − log p(z), [...], for z [..., k] and q(z) = 1/N Σ N(mu_n, diag sigma_n²), [N, k].

    So many of the N at a time, as a product of matrices, (z, z²) with the natural parameters: the
    error is about 1e-16 (mu / sigma)² nats.
    """
    features = torch.cat((z, z.square()), -1)
    parts = []
    for means, log_vars in zip(mu.split(block), log_var.split(block), strict=True):
        weighted = means * torch.exp(-log_vars)
        natural = torch.cat((weighted, -torch.expm1(-log_vars) / 2), -1)
        log_norm = (means * weighted + log_vars).sum(-1) / 2
        parts.append(torch.logsumexp(features @ natural.T - log_norm, -1))
    return torch.logsumexp(torch.stack(parts), 0) - math.log(len(mu))


def predicted_digits(
    mu: Floats, labels: Bytes, test_mu: Floats, neighbours: int
) -> dict[str, Bytes]:
    """Labels of test images [M], predicted from the mu and labels of training images, [N, k], [N].

    By the majority of the nearest neighbours (knn) and by logistic regression (linear).

    Raises:
        InputError: if there are too few training images or classes.
    """
    if len(labels) < neighbours or len(np.unique(labels)) < 2:
        raise InputError(
            f"{len(labels)} training images of {len(np.unique(labels))} classes: "
            f"should be at least --neighbours {neighbours}, of two classes"
        )
    classifiers = {
        "knn": KNeighborsClassifier(neighbours),
        "linear": LogisticRegression(max_iter=1000),
    }
    with threadpool_limits(1):
        return {
            name: classifier.fit(mu.astype(np.float64), labels).predict(test_mu.astype(np.float64))
            for name, classifier in classifiers.items()
        }


def summarise(
    terms: dict[str, Doubles], predictions: dict[str, Bytes], labels: Bytes
) -> dict[str, float]:
    """Means over images with their standard errors, accuracies among them.

    The errors of mutual_information and marginal_kl are over images, as that of the KL term; they
    take log q(z) as given.

    Raises:
        InputError: for a single image, whose standard error is unknown.
    """
    count = len(labels)
    metrics: dict[str, float] = {"images": count, "log_images": math.log(count)}
    for name, values in terms.items():
        metrics |= mean_with_error(name, values)
    for name, predicted in predictions.items():
        metrics |= mean_with_error(f"{name}_accuracy", predicted == labels)
    return metrics
