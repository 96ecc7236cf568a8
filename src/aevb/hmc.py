"""Hamiltonian Monte Carlo on z for images side by side: Neal 2011 (arXiv:1206.1901).

It leaves p(z) p(x|z)^beta as it is: with beta = 1 its stationary distribution is p(z|x).

Shapes: B images of D pixels, R chains for each, k latent dimensions.
"""

import math
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from aevb.bounds import LatentVariableModel

BLOCK = 50
"""Images that share a stream of noise; a fixed number, so that noise depends on nothing else."""


class Model(LatentVariableModel, Protocol):
    """What annealing needs of a model with prior N(0, I); encode is not used."""

    latent_dim: int


class State(NamedTuple):
    """Where the chains are."""

    z: Tensor
    """[R, B, k]."""
    log_px: Tensor
    """log p(x|z), [R, B]."""
    gradient: Tensor
    """Of log p(x|z) by z, [R, B, k]."""

    def log_density(self, beta: float) -> Tensor:
        """log p(z) p(x|z)^beta up to a constant, [R, B] in float64."""
        return beta * self.log_px.double() - self.z.double().square().sum(-1) / 2

    def force(self, beta: float) -> Tensor:
        """Its gradient by z, [R, B, k]."""
        return beta * self.gradient - self.z


def state_at(model: Model, x: Tensor, z: Tensor) -> State:
    """The state of chains at z, [R, B, k], for images [B, D]."""
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        log_px = model.log_px_given_z(x, z)
        (gradient,) = torch.autograd.grad(log_px.sum(), z)
    return State(z.detach(), log_px.detach(), gradient)


def leapfrog(
    model: Model, x: Tensor, state: State, momentum: Tensor, beta: float, step: float, count: int
) -> tuple[State, Tensor]:
    """`count` steps of Hamiltonian dynamics with unit masses: Neal 2011, section 2.3."""
    for _ in range(count):
        momentum = momentum + step / 2 * state.force(beta)
        state = state_at(model, x, state.z + step * momentum)
        momentum = momentum + step / 2 * state.force(beta)
    return state, momentum


class Noise:
    """Standard normal and exponential numbers for chains of a block, the same for each image
    however many images the block has.
    """

    def __init__(self, random: np.random.Generator, chains: int, images: int, k: int) -> None:
        self.random, self.chains, self.images, self.k = random, chains, images, k

    def normal(self) -> Tensor:
        """[R, B, k] in float32."""
        shape = (self.chains, BLOCK, self.k)
        return torch.from_numpy(self.random.standard_normal(shape, np.float32))[:, : self.images]

    def exponential(self) -> Tensor:
        """[R, B] in float64."""
        return torch.from_numpy(self.random.standard_exponential((self.chains, BLOCK)))[
            :, : self.images
        ]


def transition(
    model: Model, x: Tensor, state: State, beta: float, step: float, count: int, noise: Noise
) -> tuple[State, Tensor]:
    """One transition of Hamiltonian Monte Carlo, which leaves p(z) p(x|z)^beta as it is.

    Returns:
        The new state, and the probability with which the move was accepted, [R, B].
    """
    momentum = noise.normal()
    moved, turned = leapfrog(model, x, state, momentum, beta, step, count)
    log_ratio = moved.log_density(beta) - state.log_density(beta)
    log_ratio += (momentum.double().square() - turned.double().square()).sum(-1) / 2
    log_ratio = log_ratio.nan_to_num(nan=-math.inf)  # where the dynamics diverged
    accepted = -noise.exponential() < log_ratio
    new = (
        torch.where(accepted.reshape(accepted.shape + (1,) * (a.ndim - 2)), a, b)
        for a, b in zip(moved, state, strict=True)
    )
    return State(*new), log_ratio.clamp(max=0).exp()
