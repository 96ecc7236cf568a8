"""log p(x) by annealed importance sampling: Neal 2001, for decoders Wu et al. 2017.

A chain starts at a draw of the prior and moves through p_t(z) ∝ p(z) p(x|z)^beta_t, beta rising
from 0 to 1, by Hamiltonian Monte Carlo (aevb.hmc) that leaves each p_t as it is; its weight is an
unbiased estimate of p(x) (Neal 2001, arXiv:physics/9803008; Wu et al. 2017, arXiv:1611.04273).
q(z|x) has no part in it. Of an image simulated from the model, z is known, a
draw of p(z|x), and the same chain backwards from there gives an upper bound: bidirectional Monte
Carlo, Grosse et al. 2015 (arXiv:1511.02543).

Shapes: B images of D pixels, R chains for each, k latent dimensions; all in nats.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from aevb.bounds import iwae_bound
from aevb.evaluation import Floats
from aevb.hmc import BLOCK, Model, Noise, state_at, transition
from aevb.intervals import mean_with_error
from aevb.model import VAE
from aevb.rng import generator, torch_generator

ACCEPTANCE = 0.65
"""What the step size is tuned to: the optimum in many dimensions, Neal 2011, section 4.4."""


class Plan(NamedTuple):
    """Fixed before the chains run, as their exactness demands."""

    betas: NDArray[np.float64]
    """Powers of p(x|z), from 0 to 1, [T + 1]."""
    steps: NDArray[np.float64]
    """Step size of the leapfrog at each of them, [T + 1]."""
    leapfrog: int
    """Leapfrog steps a transition."""


def schedule(temperatures: int) -> NDArray[np.float64]:
    """beta_0 = 0 to beta_T = 1 along a sigmoid from −4 to 4, as in Wu et al. 2017."""
    sigmoid = 1 / (1 + np.exp(-np.linspace(-4, 4, temperatures + 1)))
    betas: NDArray[np.float64] = (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])
    return betas


def tuned(model: Model, x: Floats, temperatures: int, count: int, seed: int) -> Plan:
    """Step sizes that accept 65 % of the moves on at most BLOCK images [N, D], to be other ones.

    Chains go from the prior to p(z|x) once, and the step grows or shrinks as moves are accepted.
    """
    betas, steps, step = schedule(temperatures), [], 0.5
    images = torch.from_numpy(x)
    noise = Noise(generator("ais tune", seed), 1, len(x), model.latent_dim)
    state = state_at(model, images, noise.normal())
    for beta in betas.tolist():
        steps.append(step)
        state, acceptance = transition(model, images, state, beta, step, count, noise)
        step *= math.exp(0.2 * (float(acceptance.mean()) - ACCEPTANCE))
    return Plan(betas, np.array(steps), count)


def log_weights(
    model: Model,
    x: Floats,
    plan: Plan,
    chains: int,
    seed: int,
    posterior: Floats | None = None,
    callback: Callable[[int], Any] = lambda _: None,
) -> tuple[NDArray[np.float64], float]:
    """Log weights of annealed chains for images [N, D], [R, N], and the mean acceptance.

    exp of them is in the mean p(x). With `posterior`, draws of p(z|x) for each image, [N, k], the
    chains go backwards from there, and exp of their negative is in the mean 1 / p(x).

    Noise is keyed by (seed, direction, block of images).
    """
    path = list(range(len(plan.betas)))[:: 1 if posterior is None else -1]
    direction = "ais forward" if posterior is None else "ais backward"
    weights, shares = [], []
    for block, images in enumerate(torch.from_numpy(x).split(BLOCK)):
        noise = Noise(generator(direction, seed, block), chains, len(images), model.latent_dim)
        z = noise.normal()
        if posterior is not None:
            z = torch.from_numpy(posterior[block * BLOCK :][:BLOCK]).expand_as(z)
        state = state_at(model, images, z)
        total = torch.zeros(chains, len(images), dtype=torch.float64)
        for here, there in pairwise(path):
            total += abs(plan.betas[there] - plan.betas[here]) * state.log_px.double()
            if there != path[-1]:  # where no weight follows, no move is needed
                beta, step = float(plan.betas[there]), float(plan.steps[there])
                state, share = transition(model, images, state, beta, step, plan.leapfrog, noise)
                shares.append(share.mean(0))
            callback(len(images))
        weights.append(total.numpy())
    return np.concatenate(weights, 1), float(torch.cat(shares).mean())


def lower_bound(log_weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """log of the mean weight of forward chains, [R, N] to [N]: in the mean at most log p(x)."""
    result: NDArray[np.float64] = iwae_bound(torch.from_numpy(log_weights)).numpy()
    return result


def upper_bound(log_weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """−log of the mean inverse weight of backward chains: in the mean at least log p(x)."""
    return -lower_bound(-log_weights)


@torch.inference_mode()
def simulate(model: VAE, count: int, seed: int) -> tuple[Floats, Floats]:
    """Images drawn from the model, [N, D], and the z of each, a draw of p(z|x), [N, k]."""
    z = generator("ais z", seed).standard_normal((count, model.latent_dim), np.float32)
    params = model.decoder(torch.from_numpy(z))
    return model.likelihood.sample(params, torch_generator("cpu", "ais x", seed)).numpy(), z


def summarise(terms: dict[str, NDArray[Any]]) -> dict[str, float]:
    """Means over images in nats per image, each with its standard error over images.

    `log_px` is the estimate, in the mean a lower bound, beside `elbo` and `iwae_bound` of the same
    images; differences are taken image by image, so they are known better than their terms.
    `simulated_gap`, upper less lower bound on simulated images, is as far as the estimate can fall
    short there.
    """
    differences = {
        "log_px_minus_elbo": terms["log_px"] - terms["elbo"],
        "log_px_minus_iwae": terms["log_px"] - terms["iwae_bound"],
        "simulated_gap": terms["simulated_upper"] - terms["simulated_lower"],
    }
    names = ("log_px", "elbo", "iwae_bound", "simulated_lower", "simulated_upper")
    metrics: dict[str, float] = {"images": len(terms["log_px"])}
    for name, values in {**{name: terms[name] for name in names}, **differences}.items():
        metrics |= mean_with_error(name, values)
    return metrics
