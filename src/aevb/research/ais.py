"""Estimate log p(x) by annealed importance sampling, without the encoder.

Neal 2001 (arXiv:physics/9803008), for decoders Wu et al. 2017 (arXiv:1611.04273). A chain starts
at a draw from the prior and moves through p_t(z) ∝ p(z) p(x|z)^beta_t, with beta rising from 0 to
1, by Hamiltonian Monte Carlo (Neal 2011, arXiv:1206.1901), which leaves each p_t invariant; its
weight is an unbiased estimate of p(x). For images simulated from the model a draw z of p(z|x) is
known, and the same chain run backwards from it gives an upper bound: bidirectional Monte Carlo,
Grosse et al. 2015 (arXiv:1511.02543).

Shapes: B images of D pixels, R chains for each, k latent dimensions; all in nats per image.
"""

import math
from itertools import pairwise
from typing import NamedTuple

from aevb.bounds import iwae_bound
from aevb.model import VAE
from aevb.rng import Doubles, Floats, Random

import numpy as np
import torch
from torch import Tensor

BLOCK = 50
"""Images that share a random stream; fixed, so that results do not depend on their number."""
ACCEPTANCE = 0.65
"""What the step sizes are tuned to: the optimum in many dimensions, Neal 2011, section 4.4."""
TUNING = 25
"""Images that the step sizes are tuned on."""
SIMULATED = 100
"""Images drawn from the model, for which log p(x) is bounded from both sides."""

Streams = list[Random]
"""A stream of random numbers for each block of images."""


class State(NamedTuple):
    """Positions z of the chains, [R, B, k], with log p(x|z), [R, B], and its gradient by z."""

    z: Tensor
    log_px: Tensor
    gradient: Tensor

    def log_density(self, beta: float) -> Tensor:
        """log p(z) p(x|z)^beta up to a constant, [R, B] in float64."""
        return beta * self.log_px.double() - self.z.double().square().sum(-1) / 2

    def force(self, beta: float) -> Tensor:
        """Gradient of the log density by z, [R, B, k]."""
        return beta * self.gradient - self.z


def state_at(model: VAE, x: Tensor, z: Tensor) -> State:
    """The state of chains at z, [R, B, k], for images [B, D]."""
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        log_px = model.log_px_given_z(x, z)
        (gradient,) = torch.autograd.grad(log_px.sum(), z)
    return State(z.detach(), log_px.detach(), gradient)


def leapfrog(
    model: VAE, x: Tensor, state: State, momentum: Tensor, beta: float, step: float, count: int
) -> tuple[State, Tensor]:
    """`count` steps of Hamiltonian dynamics with unit masses: Neal 2011, section 2.3."""
    for _ in range(count):
        momentum = momentum + step / 2 * state.force(beta)
        state = state_at(model, x, state.z + step * momentum)
        momentum = momentum + step / 2 * state.force(beta)
    return state, momentum


def normal(streams: Streams, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers, [R, B, k]; those of an image do not depend on B."""
    chains, images, k = shape
    blocks = [torch.from_numpy(random.normal((chains, BLOCK, k))) for random in streams]
    return torch.cat(blocks, 1)[:, :images].contiguous()


def transition(
    model: VAE, x: Tensor, state: State, beta: float, step: float, count: int, streams: Streams
) -> tuple[State, Tensor]:
    """One transition of Hamiltonian Monte Carlo, which leaves p(z) p(x|z)^beta invariant.

    Returns:
        The new state, and the probability with which the move was accepted, [R, B].
    """
    momentum = normal(streams, state.z.shape)
    moved, turned = leapfrog(model, x, state, momentum, beta, step, count)
    log_ratio = moved.log_density(beta) - state.log_density(beta)
    log_ratio += (momentum.double().square() - turned.double().square()).sum(-1) / 2
    log_ratio = torch.where(log_ratio.isnan(), -math.inf, log_ratio)  # the dynamics diverged
    blocks = [torch.from_numpy(1 - random.uniform((len(state.z), BLOCK))) for random in streams]
    accepted = torch.cat(blocks, 1)[:, : len(x)].double().log() <= log_ratio
    z, log_px, gradient = (
        torch.where(accepted.reshape(accepted.shape + (1,) * (a.ndim - 2)), a, b)
        for a, b in zip(moved, state, strict=True)
    )
    return State(z, log_px, gradient), log_ratio.clamp(max=0).exp()


class Plan(NamedTuple):
    """Powers of p(x|z) from 0 to 1 and the step size at each, and leapfrog steps per move.

    Fixed before the chains run, so that their weights are unbiased.
    """

    betas: list[float]
    steps: list[float]
    leapfrog: int


def schedule(temperatures: int) -> list[float]:
    """beta_0 = 0 to beta_T = 1 along a sigmoid from −4 to 4, as in Wu et al. 2017."""
    sigmoid = torch.from_numpy(np.linspace(-4, 4, temperatures + 1)).sigmoid()
    betas: list[float] = ((sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])).tolist()
    return betas


def tuned(model: VAE, x: Floats, temperatures: int, count: int, seed: int) -> Plan:
    """Step sizes that accept 65 % of the moves, on at most BLOCK images [N, D] for tuning only.

    Chains go from the prior to p(z|x) once, and the step grows or shrinks as moves are accepted.
    """
    betas, steps, step = schedule(temperatures), [], 0.5
    images, streams = torch.from_numpy(x), [Random("ais tune", seed)]
    state = state_at(model, images, normal(streams, (1, len(x), model.latent_dim)))
    for beta in betas:
        steps.append(step)
        state, acceptance = transition(model, images, state, beta, step, count, streams)
        step *= float(torch.exp(0.2 * (acceptance.mean() - ACCEPTANCE)))
    return Plan(betas, steps, count)


def log_weights(
    model: VAE,
    x: Floats,
    plan: Plan,
    chains: int,
    seed: int,
    posterior: Floats | None = None,
) -> tuple[Tensor, float]:
    """Log weights of annealed chains for images [N, D], [R, N], and the mean acceptance.

    The weights have mean p(x), so `iwae_bound` of them is on average at most log p(x). With
    `posterior`, a draw of p(z|x) for each image, [N, k], the chains run backwards from there, and
    the inverse weights have mean 1 / p(x): `iwae_bound` of −log weights is at most −log p(x).
    """
    path = list(range(len(plan.betas)))[:: 1 if posterior is None else -1]
    direction = "ais forward" if posterior is None else "ais backward"
    streams = [Random(direction, seed, block) for block in range(math.ceil(len(x) / BLOCK))]
    z, shares = normal(streams, (chains, len(x), model.latent_dim)), []
    if posterior is not None:
        z = torch.from_numpy(posterior).repeat(chains, 1, 1)
    images = torch.from_numpy(x)
    state = state_at(model, images, z)
    total = torch.zeros(chains, len(x), dtype=torch.float64)
    for here, there in pairwise(path):
        total += abs(plan.betas[there] - plan.betas[here]) * state.log_px.double()
        if there != path[-1]:  # no weight depends on a last move
            move = plan.betas[there], plan.steps[there], plan.leapfrog
            state, share = transition(model, images, state, *move, streams)
            shares.append(share)
    return total, float(torch.stack(shares).mean())


@torch.inference_mode()
def simulate(model: VAE, count: int, seed: int) -> tuple[Floats, Floats]:
    """Images drawn from the model, [N, D], and the z of each, a draw of p(z|x), [N, k]."""
    z = Random("ais z", seed).normal((count, model.latent_dim))
    params = model.decoder(torch.from_numpy(z))
    return model.likelihood.sample(params, Random("ais x", seed)).numpy(), z


def bounds(
    model: VAE, x: Floats, others: Floats, temperatures: int, leapfrog: int, seed: int
) -> tuple[Doubles, dict[str, Doubles], float]:
    """Bounds on log p(x) by one chain per image, with step sizes that are tuned on other images.

    Returns:
        The estimate for images [N, D], on average a lower bound, [N]; for SIMULATED images drawn
        from the model the lower and the upper bound and their difference, `simulated_gap`, which
        limits how far the lower bound is below log p(x) there; and the mean acceptance.
    """
    plan = tuned(model, others[:TUNING], temperatures, leapfrog, seed)
    drawn, z = simulate(model, SIMULATED, seed)
    weights, accepted = log_weights(model, x, plan, 1, seed)
    forward, _ = log_weights(model, drawn, plan, 1, seed)
    backward, _ = log_weights(model, drawn, plan, 1, seed, z)
    lower, upper = iwae_bound(forward).numpy(), -iwae_bound(-backward).numpy()
    simulated = {"simulated_lower": lower, "simulated_upper": upper, "simulated_gap": upper - lower}
    return iwae_bound(weights).numpy(), simulated, accepted
