"""Compute the IWAE bound on log p(x) against its number of samples, K.

K is 1, 10, 100 … With each bound comes the effective sample size, which shows how unequal the
weights are.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aevb.bounds import LatentVariableModel, iwae_bound
from aevb.evaluation import Callback, Floats, evaluate, silent
from aevb.plumbing.params import Iwae
from aevb.research import scoring


def sample_counts(samples: int) -> list[int]:
    """The values of K: the powers of ten below `samples`, then `samples`."""
    return [10**power for power in range(len(str(samples - 1))) if 10**power < samples] + [samples]


def groups(log_weights: Tensor, k: int) -> Tensor:
    """Log weights [R, B] as disjoint groups of K draws, [K, R // K, B]; a rest is left out.

    So every draw is used for every K, and bounds with small K have little noise.
    """
    count = len(log_weights) // k
    return log_weights[: count * k].reshape(count, k, -1).transpose(0, 1)


def effective_samples(log_weights: Tensor) -> Tensor:
    """(Σw)² / Σw² over the K weights of a group, from 1 to K (Kong 1992), [G, B] for [K, G, B].

    It is K where all weights are equal, as with q(z|x) = p(z|x). It is estimated from the draws
    themselves, so it is too high where all of them miss the posterior.
    """
    return torch.exp(2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0))


def bounds_against_k(
    model: LatentVariableModel, x: Floats, samples: int, seed: int, callback: Callback = silent
) -> dict[str, NDArray[Any]]:
    """The bound at each of the n `sample_counts(samples)`, for images [N, D].

    Returns:
        k, int64 [n]; and per image in float32: iwae_bound and effective_samples, each [N, n],
        log_px_given_z (mean over all draws) and kl (closed form), each [N].
    """
    counts = sample_counts(samples)

    def against_k(log_weights: Tensor) -> dict[str, Tensor]:
        grouped = [groups(log_weights, k) for k in counts]
        bounds = [iwae_bound(some).mean(0) for some in grouped]
        sizes = [effective_samples(some).mean(0) for some in grouped]
        return {"iwae_bound": torch.stack(bounds, 1), "effective_samples": torch.stack(sizes, 1)}

    terms = evaluate(model, x, samples, seed, callback, against_k)
    names = ("iwae_bound", "effective_samples", "log_px_given_z", "kl")
    return {"k": np.array(counts), **{name: terms[name] for name in names}}


def iwae_metrics(terms: dict[str, NDArray[Any]]) -> dict[str, float]:
    """Means over images in nats per image, each with its standard error over images.

    `ess_K` is the effective sample size divided by K, mean over images, and `ess_K_p10` its
    10th percentile.
    """
    elbo = terms["log_px_given_z"].astype(float) - terms["kl"]
    metrics = {"images": len(elbo), **scoring.means({"elbo": elbo})}
    for place, k in enumerate(terms["k"].tolist()):
        share = terms["effective_samples"][:, place].astype(float) / k
        metrics |= scoring.means({f"iwae_{k}": terms["iwae_bound"][:, place], f"ess_{k}": share})
        metrics[f"ess_{k}_p10"] = float(np.quantile(share, 0.1))
    return metrics


def main(files: scoring.Files, settings: Iwae) -> None:
    """Compute the bounds per image; write them and their means."""
    inputs = scoring.read_inputs("iwae", files)
    x, samples = inputs.first(settings.images), settings.samples
    with inputs.progress(len(x)) as bar:
        terms = bounds_against_k(inputs.model, x, samples, settings.seed, bar.update)
    metrics = iwae_metrics(terms) | inputs.is_log_likelihood()
    bound = f"{{iwae_{samples}:.2f}} ± {{iwae_{samples}_se:.2f}}"
    summary = f"ELBO {{elbo:.2f}}, IWAE bound with K = {samples} {bound} nats per image"
    inputs.write(files, terms | {"labels": inputs.test.labels[: len(x)]}, metrics, summary)
