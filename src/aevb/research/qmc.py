"""Compute log p(x) for few latent dimensions by quasi-Monte Carlo over the prior.

p(x) = E[p(x|z)] over z ~ N(0, I) is estimated by the mean over points of a lattice that fill the
space more evenly than random ones (Dick, Kuo & Sloan 2013, doi:10.1017/S0962492913000044). A
random shift of the lattice makes the mean unbiased, and independent shifts show its error. The
encoder is not used.
"""

from collections.abc import Callable

from aevb.bounds import iwae_bound
from aevb.model import VAE
from aevb.rng import Floats, Random, box_muller

import numpy as np
import torch
from torch import Tensor

GENERATOR = np.array([1, 364981, 245389, 97823])
"""Of lattices with up to 2²⁰ points, a power of two: Hickernell et al. 2011, in D. Nuyens' Magic
Point Shop."""
SHIFTS = 8
LARGEST = 3
"""The largest number of latent dimensions: the number of points that is needed grows as e^KL."""
BLOCK = 1024
"""Points that are scored at a time."""

Score = Callable[[Tensor], Tensor]
"""log p(x|z) of all images for points z, [P, k] to [P, N]."""


def points(count: int, k: int, seed: int, shift: int) -> Floats:
    """Points of the prior N(0, I), [count, k]: a shifted lattice, mapped by Box & Muller 1958."""
    generator = GENERATOR[: k + k % 2]
    offset = Random("qmc", seed, shift).uniform(generator.shape).astype(np.float64)
    u = (np.arange(count)[:, None] * generator % count / count + offset) % 1
    z = box_muller(1 - u[:, ::2], u[:, 1::2])
    return z.reshape(count, -1)[:, :k].astype(np.float32)


def bernoulli_score(model: VAE, x: Tensor) -> Score:
    """The scores of images [N, D] by one matrix product, for likelihoods linear in x.

    With logits l, log p(x|z) = x·l + log p(0|z), and the second term is the same for all images.
    """

    def score(z: Tensor) -> Tensor:
        logits: Tensor = model.decoder(z)
        empty = model.likelihood.log_prob(torch.zeros_like(logits), logits)
        return logits @ x.T + empty[:, None]

    return score


@torch.inference_mode()
def log_means(score: Score, k: int, count: int, seed: int) -> Tensor:
    """log of the mean of p(x|z) over `count` points for each shift, float64 [SHIFTS, N].

    Each mean is unbiased.
    """
    estimates = []
    for shift in range(SHIFTS):
        blocks = torch.from_numpy(points(count, k, seed, shift)).split(BLOCK)
        parts = [score(z).logsumexp(0).double() for z in blocks]
        estimates.append(torch.stack(parts).logsumexp(0))
    return torch.stack(estimates) - torch.tensor(count).double().log()


@torch.inference_mode()
def summarise(estimates: Tensor) -> tuple[Tensor, float, float]:
    """log p(x) from the estimates of all shifts, [SHIFTS, N], and two measures of its accuracy.

    Returns:
        log of the mean over shifts, [N]; the standard error over shifts of its mean over images, to
        first order; and by how much that mean rises from half of the shifts to all of them.
    """
    log_px, half = iwae_bound(estimates), iwae_bound(estimates[: len(estimates) // 2])
    ratios = (estimates - log_px).exp().mean(1)
    error = (ratios - 1).square().sum() / (len(ratios) - 1) / len(ratios)
    return log_px, float(error.sqrt()), float((log_px - half).mean())
