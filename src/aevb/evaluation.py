"""Bounds on log p(x) for a whole set of images, per image and as means with standard errors."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aevb.bounds import (
    LatentVariableModel,
    encoded_terms,
    iwae_bound,
    kl_per_dimension,
    log_importance_weights,
)
from aevb.exact import exact
from aevb.intervals import mean_with_error
from aevb.rng import Random

BLOCK = 100
"""Images that share a stream of noise. The number is fixed, since the noise depends on it."""

DRAWS = 5
"""Draws of z that are computed at a time: few enough for their logits to fit into the cache."""

Floats = NDArray[np.float32]


def draws(
    model: LatentVariableModel,
    images: Tensor,
    mu: Tensor,
    log_var: Tensor,
    samples: int,
    random: Random,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield log p(x|z) and log w for `samples` draws of z from q(z|x), a few draws at a time.

    Both are float64, [R, B], for a block of images [B, D] with mu and log sigma², each [B, k].
    """
    for start in range(0, samples, DRAWS):
        shape = (min(DRAWS, samples - start), BLOCK, mu.shape[1])
        eps = torch.from_numpy(random.normal(shape))[:, : len(images)]
        terms = encoded_terms(model, images, mu, log_var, eps)
        yield terms.log_px_given_z.double(), log_importance_weights(terms, eps).double()


def block_terms(
    model: LatentVariableModel, images: Tensor, samples: int, random: Random
) -> dict[str, Tensor]:
    """What `evaluate` returns, in float64, for one block of images [B, D]."""
    mu, log_var = model.encode(images)
    log_px_given_z, log_weights = zip(
        *draws(model, images, mu, log_var, samples, random), strict=True
    )
    reconstruction = torch.cat(log_px_given_z).mean(0)
    kl = kl_per_dimension(mu.double(), log_var.double()).sum(-1)
    return {
        "elbo": reconstruction - kl,
        "log_px_given_z": reconstruction,
        "kl": kl,
        "iwae_bound": iwae_bound(torch.cat(log_weights)),
        "mu": mu,
        "log_var": log_var,
    }


@torch.inference_mode()
def evaluate(
    model: LatentVariableModel,
    x: Floats,
    samples: int,
    seed: int,
    callback: Callable[[int], Any] = lambda _: None,
) -> dict[str, Floats]:
    """The terms of the bounds for images [N, D], with `samples` draws of z per image.

    The noise is determined by the seed and the block of images, so the terms of an image do not
    depend on how many images are evaluated. Sums over draws are in float64.

    Returns:
        float32 arrays, in nats per image: elbo, its terms log_px_given_z (mean over the draws) and
        kl (closed form), iwae_bound (K = samples), each [N]; and mu, log_var, each [N, k].
    """
    blocks: list[dict[str, Tensor]] = []
    for block, images in enumerate(torch.from_numpy(x).split(BLOCK)):
        with exact():
            blocks.append(block_terms(model, images, samples, Random("evaluate", seed, block)))
        callback(len(images))
    return {
        name: torch.cat([block[name] for block in blocks]).float().numpy() for name in blocks[0]
    }


def bound_metrics(terms: dict[str, Floats], samples: int) -> dict[str, float]:
    """Means over images in nats per image, each with its standard error over images.

    `reconstruction_error` is −log_px_given_z.

    Raises:
        InputError: if there is only one image, so that the standard error is unknown.
    """
    metrics: dict[str, float] = {"iwae_k": samples, "images": len(terms["kl"])}
    for name in ("elbo", "log_px_given_z", "kl", "iwae_bound"):
        metrics |= mean_with_error(name, terms[name])
    metrics["reconstruction_error"] = -metrics["log_px_given_z"]
    metrics["reconstruction_error_se"] = metrics["log_px_given_z_se"]
    return metrics


def mean_kl_per_dimension(mu: Floats, log_var: Floats) -> Floats:
    """The KL term of each latent dimension, mean over images, [k]; the sum is the KL term."""
    tensors = torch.from_numpy(mu).double(), torch.from_numpy(log_var).double()
    with exact():
        return kl_per_dimension(*tensors).mean(0).float().numpy()
