"""Measure the information in the latents: active units, mutual information, KL from the prior.

Test images are scored; training images are used only to fit the mixture.
"""

import math

from aevb.bounds import Terms, kl_per_dimension, log_importance_weights, reparameterise
from aevb.evaluation import BLOCK, by_block
from aevb.intervals import means_with_errors
from aevb.plumbing.params import Latents, TrainSet
from aevb.research import scoring
from aevb.rng import Doubles, Floats, Random

import numpy as np
import torch
from scipy.stats import norm
from sklearn.mixture import GaussianMixture
from torch import Tensor


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

    I is at most log N. If it is close to log N, it shows that z distinguishes N images, not how
    much information z contains, and marginal_kl is the KL term minus log N. In expectation,
    marginal_kl is an upper bound on KL(q(z) ‖ p(z)) for the aggregate posterior of all possible
    images, because KL is convex; `above_prior` is a lower bound.
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
    return by_block(terms, codes, "latents", seed, dtype=torch.float64)


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


def codes(mu: Floats, log_var: Floats, purpose: str, seed: int) -> Doubles:
    """One draw z of each q(z|x) = N(mu, diag sigma²), [N, k]."""
    eps = Random(f"latents {purpose}", seed).normal(mu.shape)
    return mu + np.exp(log_var.astype(float) / 2) * eps


def above_prior(mixture: GaussianMixture, z: Doubles) -> Doubles:
    """log g(z) − log p(z) in nats, [N], for codes z [N, k] and the density g of a mixture.

    If g was fitted to codes of other images, the mean is a lower bound in expectation on
    KL(q(z) ‖ p(z)), where q(z) is the aggregate posterior of all possible images: the expectation
    is KL(q(z) ‖ p(z)) − KL(q(z) ‖ g(z)), and the second KL is at least 0.
    """
    return np.asarray(mixture.score_samples(z) - norm.logpdf(z).sum(1))


def main(files: scoring.Scored, train: TrainSet, settings: Latents) -> None:
    """Encode the images, split the KL term, fit the mixture; write the metrics and their terms.

    A unit is active if the variance of its mean mu over images is above a threshold (Burda et al.
    2015, arXiv:1509.00519). The standard errors treat log q(z) and the mixture as given.
    """
    inputs = scoring.read_inputs("latents", files.model, files.test)
    training = inputs.training_images(train)
    mu, log_var = inputs.encode(inputs.x)
    count = len(training)
    scoring.require(
        settings.components <= count,
        f"--components {settings.components}: there are {count} training images",
    )
    mixture = GaussianMixture(settings.components, random_state=settings.seed)
    mixture.fit(codes(*inputs.encode(training), "training codes", settings.seed))
    terms = information(mu, log_var, settings.samples, settings.seed)
    held_out = codes(mu, log_var, "test codes", settings.seed)
    terms["marginal_kl_lower"] = above_prior(mixture, held_out)
    variances = mu.astype(np.float64).var(0, ddof=1)
    metrics = {
        "active_units": int((variances > settings.threshold).sum()),
        "images": len(mu),
        "log_images": math.log(len(mu)),
        **settings.model_dump(exclude={"seed"}),
        **means_with_errors(terms),
    }
    summary = (
        "{active_units} active units, KL {kl:.2f} = mutual information {mutual_information:.2f} "
        "(at most {log_images:.2f}) + marginal KL {marginal_kl:.2f} nats (of all images at least "
        "{marginal_kl_lower:.2f})"
    )
    # A mixture's samples are sorted by component.
    order = Random("latents mixture", settings.seed).permutation(len(mu))
    sampled = mixture.sample(len(mu))[0][order].astype(np.float32)
    arrays = {**terms, "unit_variances": variances, "mixture_z": sampled}
    inputs.write(files, arrays, metrics, summary)
