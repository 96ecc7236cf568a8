"""The importance-weighted bound at K = 1, 10, 100 …: how it nears log p(x), at what price."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aevb.bounds import LatentVariableModel, kl_per_dimension
from aevb.evaluation import BLOCK, Floats, draws
from aevb.files import Arrays
from aevb.intervals import mean_with_error
from aevb.rng import generator


def rungs(samples: int) -> list[int]:
    """The Ks: the powers of ten below `samples`, then `samples`."""
    return [10**power for power in range(len(str(samples - 1))) if 10**power < samples] + [samples]


class Rung:
    """The bound with K samples for B images, averaged over disjoint groups of K draws.

    Every draw serves every K, so that small Ks have little noise. Only sums are kept: memory does
    not grow with draws.
    """

    def __init__(self, k: int, images: int) -> None:
        self.k = k
        self.draws = self.groups = 0
        self.bounds = torch.zeros(images, dtype=torch.float64)
        self.sizes = torch.zeros(images, dtype=torch.float64)
        self._start_group()

    def _start_group(self) -> None:
        self.log_sum = torch.full_like(self.bounds, -math.inf)
        self.log_squares = torch.full_like(self.bounds, -math.inf)

    def add(self, log_weights: Tensor) -> None:
        """Take in further draws: log weights [R, B] in float64."""
        while len(log_weights):
            part, log_weights = log_weights.tensor_split([self.k - self.draws % self.k])
            self.log_sum = torch.logaddexp(self.log_sum, part.logsumexp(0))
            self.log_squares = torch.logaddexp(self.log_squares, (2 * part).logsumexp(0))
            self.draws += len(part)
            if self.draws % self.k == 0:
                self.bounds += self.log_sum - math.log(self.k)
                self.sizes += torch.exp(2 * self.log_sum - self.log_squares)
                self.groups += 1
                self._start_group()

    @property
    def bound(self) -> Tensor:
        """Mean over the groups of log 1/K Σ w, [B]; draws of an unfinished group are left out."""
        return self.bounds / self.groups

    @property
    def effective_samples(self) -> Tensor:
        """Mean over the groups of (Σw)² / Σw², [B], from 1 to K: Kong 1992.

        K where all weights are equal, as q(z|x) = p(z|x) makes them. It is judged by the draws
        themselves, so where they all miss the posterior it is too high.
        """
        return self.sizes / self.groups


@torch.inference_mode()
def ladder(
    model: LatentVariableModel,
    x: Floats,
    samples: int,
    seed: int,
    callback: Callable[[int], Any] = lambda _: None,
) -> Arrays:
    """The bound at each of `rungs(samples)`, n in number, for images [N, D].

    Returns:
        k, int64 [n]; and per image in float32: iwae_bound and effective_samples, each [N, n],
        log_px_given_z (mean over all draws) and kl (closed form), each [N].

    The draws are those of `evaluation.evaluate` for the same seed: with as many samples the last
    rung is its bound.
    """
    blocks: list[dict[str, Tensor]] = []
    for block, images in enumerate(torch.from_numpy(x).split(BLOCK)):
        mu, log_var = model.encode(images)
        steps = [Rung(k, len(images)) for k in rungs(samples)]
        log_px_given_z = torch.zeros(len(images), dtype=torch.float64)
        for log_px, log_weights in draws(
            *(model, images, mu, log_var, samples), generator("evaluate", seed, block)
        ):
            log_px_given_z += log_px.sum(0)
            for rung in steps:
                rung.add(log_weights)
        blocks.append(
            {
                "log_px_given_z": log_px_given_z / samples,
                "kl": kl_per_dimension(mu.double(), log_var.double()).sum(-1),
                "iwae_bound": torch.stack([rung.bound for rung in steps], 1),
                "effective_samples": torch.stack([rung.effective_samples for rung in steps], 1),
            }
        )
        callback(len(images))
    arrays: Arrays = {
        name: torch.cat([block[name] for block in blocks]).float().numpy() for name in blocks[0]
    }
    return {"k": np.array(rungs(samples)), **arrays}


def summarise(terms: Arrays) -> dict[str, float]:
    """Means over images in nats per image, each with its standard error over images.

    `ess_K` is the effective sample size as a share of K, mean over images, and `ess_K_p10` its
    10th percentile.
    """
    elbo = terms["log_px_given_z"].astype(float) - terms["kl"]
    metrics = {"images": len(elbo), **mean_with_error("elbo", elbo)}
    for place, k in enumerate(terms["k"].tolist()):
        share = terms["effective_samples"][:, place].astype(float) / k
        metrics |= mean_with_error(f"iwae_{k}", terms["iwae_bound"][:, place])
        metrics |= mean_with_error(f"ess_{k}", share)
        metrics[f"ess_{k}_p10"] = float(np.quantile(share, 0.1))
    return metrics
