"""Bounds on log p(x) for a whole set of images, per image and as means with standard errors."""

from collections.abc import Callable, Iterator
from typing import Any

from aevb.bounds import (
    LatentVariableModel,
    encoded_terms,
    iwae_bound,
    kl_per_dimension,
    log_importance_weights,
)
from aevb.exact import exact
from aevb.intervals import means_with_errors
from aevb.likelihoods import is_likelihood
from aevb.rng import Floats, Random

import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 100
"""Images that share a stream of noise. The number is fixed, since the noise depends on it."""

DRAWS = 5
"""Draws of z that are computed at a time: few enough for their logits to fit into the cache."""

Callback = Callable[[int], Any]
"""Called with the number of images that were finished."""


def by_block(
    compute: Callable[[Tensor, Random], dict[str, Tensor]],
    x: Floats,
    purpose: str,
    seed: int,
    callback: Callback = lambda _: None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, NDArray[Any]]:
    """Apply `compute` to each block of images [N, D] and concatenate the tensors it returns.

    The random numbers of a block are determined by purpose, seed and block, so the results of an
    image do not depend on how many images there are.
    """
    blocks = []
    for block, images in enumerate(torch.from_numpy(x).split(BLOCK)):
        blocks.append(compute(images, Random(purpose, seed, block)))
        callback(len(images))
    return {
        name: torch.cat([each[name] for each in blocks]).to(dtype).numpy() for name in blocks[0]
    }


def noise(mu: Tensor, samples: int, random: Random) -> Iterator[Tensor]:
    """Yield N(0, I) noise [R, B, k] for a block of codes [B, k], a few of `samples` at a time."""
    for start in range(0, samples, DRAWS):
        shape = (min(DRAWS, samples - start), BLOCK, mu.shape[1])
        yield torch.from_numpy(random.normal(shape))[:, : len(mu)]


def bound_of_all(log_weights: Tensor) -> dict[str, Tensor]:
    """The IWAE bound with all draws, [B], for log weights [R, B]."""
    return {"iwae_bound": iwae_bound(log_weights)}


@torch.inference_mode()
def evaluate(
    model: LatentVariableModel,
    x: Floats,
    samples: int,
    seed: int,
    callback: Callback = lambda _: None,
    bounds: Callable[[Tensor], dict[str, Tensor]] = bound_of_all,
) -> dict[str, Floats]:
    """The terms of the bounds for images [N, D], with `samples` draws of z per image.

    Sums over draws are in float64.

    Returns:
        float32 arrays, in nats per image: elbo, its terms log_px_given_z (mean over the draws) and
        kl (closed form), each [N]; what `bounds` makes of the log weights, by default iwae_bound
        (K = samples), [N]; and mu, log_var, each [N, k].
    """

    def terms(images: Tensor, random: Random) -> dict[str, Tensor]:
        mu, log_var = model.encode(images)
        log_px_given_z, log_weights = [], []
        for eps in noise(mu, samples, random):
            some = encoded_terms(model, images, mu, log_var, eps)
            log_px_given_z.append(some.log_px_given_z.double())
            log_weights.append(log_importance_weights(some, eps).double())
        reconstruction = torch.cat(log_px_given_z).mean(0)
        kl = kl_per_dimension(mu.double(), log_var.double()).sum(-1)
        return {
            "elbo": reconstruction - kl,
            "log_px_given_z": reconstruction,
            "kl": kl,
            **bounds(torch.cat(log_weights)),
            "mu": mu,
            "log_var": log_var,
        }

    return by_block(terms, x, "evaluate", seed, callback)


def bound_metrics(terms: dict[str, Floats], metadata: dict[str, Any]) -> dict[str, float]:
    """Means over images in nats per image, each with its standard error over images.

    `reconstruction_error` is −log_px_given_z. `metadata` is that of an evaluation; from it come
    `iwae_k` and `is_log_likelihood`, 1 if the bounds are bounds on log p(x).
    """
    values = {**terms, "reconstruction_error": -terms["log_px_given_z"]}
    names = ("elbo", "log_px_given_z", "reconstruction_error", "kl", "iwae_bound")
    metrics = means_with_errors({name: values[name] for name in names})
    metrics |= {"iwae_k": metadata["evaluate"]["iwae_k"], "images": len(terms["kl"])}
    suits = is_likelihood(metadata["likelihood"], metadata["binarisation"])
    return {**metrics, "is_log_likelihood": int(suits)}


def mean_kl_per_dimension(mu: Floats, log_var: Floats) -> Floats:
    """The KL term of each latent dimension, mean over images, [k]; the sum is the KL term."""
    tensors = torch.from_numpy(mu).double(), torch.from_numpy(log_var).double()
    with exact():
        return kl_per_dimension(*tensors).mean(0).float().numpy()
