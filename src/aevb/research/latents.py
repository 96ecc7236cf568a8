"""Measure the information in the latents: active units, mutual information, the class.

Test images are scored; training images are used only to fit the two classifiers.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from aevb.bounds import Terms, kl_per_dimension, log_importance_weights, reparameterise
from aevb.data import model_inputs
from aevb.evaluation import BLOCK, Floats, by_block, silent
from aevb.plumbing.params import Latents, TrainSet
from aevb.research import scoring
from aevb.rng import Random

Labels = NDArray[np.uint8]
Doubles = NDArray[np.float64]


@torch.inference_mode()
def information(mu: Floats, log_var: Floats, samples: int, seed: int) -> dict[str, Doubles]:
    """Split the KL term of N images, from q(z|x) = N(mu, diag sigma²), each [N, k].

    Hoffman & Johnson 2016, "ELBO surgery": for the empirical distribution of these N images
    and its aggregate posterior q(z) = 1/N Σ q(z|x_n),

        1/N Σ KL(q(z|x_n) ‖ p(z))  =  I(x; z)  +  KL(q(z) ‖ p(z))

    Returns:
        float64 arrays [N] in nats; their means over images are these terms: kl (closed form),
        mutual_information (log q(z|x) − log q(z), at most log N) and marginal_kl
        (log q(z) − log p(z)), unbiased means over `samples` draws of z per image; and their
        Monte Carlo error, kl_residual = kl − mutual_information − marginal_kl.

    I is at most log N, which it nearly reaches at k = 20: then it shows that z distinguishes N
    images, not how much information z contains, and marginal_kl is the KL term minus log N. Both
    depend on N at k = 3 too: compare them at equal N only.
    """
    q_mu, q_log_var = torch.from_numpy(mu).double(), torch.from_numpy(log_var).double()

    def terms(codes: Tensor, random: Random) -> dict[str, Tensor]:
        means, log_vars = codes.double().chunk(2, -1)
        kl = kl_per_dimension(means, log_vars).sum(-1)
        log_ratio, log_aggregate = torch.zeros_like(kl), torch.zeros_like(kl)
        prior_alone = Terms(torch.zeros_like(kl), kl, means, log_vars)
        for _ in range(samples):
            eps = torch.from_numpy(random.normal((BLOCK, mu.shape[1]))).double()[: len(means)]
            log_ratio -= log_importance_weights(prior_alone, eps)
            z = reparameterise(means, log_vars, eps)
            log_aggregate += log_aggregate_ratio(z, q_mu, q_log_var)
        return {
            "kl": kl,
            "mutual_information": (log_ratio - log_aggregate) / samples,
            "marginal_kl": log_aggregate / samples,
            "kl_residual": kl - log_ratio / samples,
        }

    codes = np.concatenate((mu, log_var), 1)
    return by_block(terms, codes, "latents", seed, silent, torch.float64)


def log_aggregate_ratio(z: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    """log q(z) − log p(z), [...], for z [..., k] and q(z) = 1/N Σ N(mu_n, diag sigma_n²), [N, k].

    As a matrix product of (z, z²) with the natural parameters; its error is about 1e-16
    (mu / sigma)² nats.
    """
    weighted = mu * torch.exp(-log_var)
    natural = torch.cat((weighted, -torch.expm1(-log_var) / 2), -1)
    log_norm = (mu * weighted + log_var).sum(-1) / 2
    log_ratios = torch.cat((z, z.square()), -1) @ natural.T - log_norm
    return torch.logsumexp(log_ratios, -1) - math.log(len(mu))


def correct(
    mu: Floats, labels: Labels, test_mu: Floats, test_labels: Labels, neighbours: int
) -> dict[str, NDArray[np.bool_]]:
    """Whether the class of each test image is predicted from its mu, [M].

    By majority of the nearest neighbours (knn_accuracy) and by logistic regression
    (linear_accuracy), fitted to the mu and labels of training images, [N, k] and [N]; InputError if
    there are too few training images or classes.
    """
    scoring.require(
        len(labels) >= neighbours and len(np.unique(labels)) > 1,
        f"{len(labels)} training images of {len(np.unique(labels))} classes: should be at least "
        f"--neighbours {neighbours}, of two classes",
    )
    knn, linear = KNeighborsClassifier(neighbours), LogisticRegression(max_iter=1000)
    return {
        name: classifier.fit(mu.astype(np.float64), labels).predict(test_mu.astype(np.float64))
        == test_labels
        for name, classifier in (("knn_accuracy", knn), ("linear_accuracy", linear))
    }


def main(files: scoring.Scored, train: TrainSet, settings: Latents) -> None:
    """Encode the images, split the KL term, classify; write the metrics and their terms.

    A unit is active if the variance of its mean mu over images is above a threshold (Burda et al.
    2015, arXiv:1509.00519). The standard errors of mutual_information and marginal_kl treat
    log q(z) as given.
    """
    inputs = scoring.read_inputs("latents", files)
    training = scoring.read_training_set(train)
    mu, log_var = inputs.encode(inputs.x)
    train_mu, _ = inputs.encode(model_inputs(training, inputs.metadata["binarisation"]))
    right = correct(train_mu, training.labels, mu, inputs.test.labels, settings.neighbours)
    terms = information(mu, log_var, settings.samples, settings.seed)
    variances = mu.astype(np.float64).var(0, ddof=1)
    metrics = {
        "active_units": int((variances > settings.threshold).sum()),
        "images": len(mu),
        "log_images": math.log(len(mu)),
        **settings.model_dump(exclude={"seed"}),
        **scoring.means({**terms, **right}),
    }
    summary = (
        "{active_units} active units, KL {kl:.2f} = mutual information {mutual_information:.2f} "
        "(at most {log_images:.2f}) + marginal KL {marginal_kl:.2f} nats, accuracy "
        "{knn_accuracy:.1%} (neighbours), {linear_accuracy:.1%} (linear)"
    )
    inputs.write(files, {**terms, **right, "unit_variances": variances}, metrics, summary)
