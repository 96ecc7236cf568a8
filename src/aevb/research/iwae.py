"""Compute the IWAE bound on log p(x) against its number of samples, K.

K is 1, 10, 100 … With each bound comes the effective sample size, which shows how unequal the
weights are.
"""

import numpy as np
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
    return (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp()


def bounds_against_k(
    model: LatentVariableModel, x: Floats, samples: int, seed: int, callback: Callback = silent
) -> dict[str, Floats]:
    """The ELBO and, for each K of `sample_counts(samples)`, the IWAE bound, for images [N, D].

    Returns:
        Per image, float32 [N]: `elbo`, `iwae_K`, and `ess_K`, the effective sample size over K.
    """

    def against_k(log_weights: Tensor) -> dict[str, Tensor]:
        grouped = {k: groups(log_weights, k) for k in sample_counts(samples)}
        bounds = {f"iwae_{k}": iwae_bound(some).mean(0) for k, some in grouped.items()}
        shares = {f"ess_{k}": effective_samples(some).mean(0) / k for k, some in grouped.items()}
        return bounds | shares

    terms = evaluate(model, x, samples, seed, callback, against_k)
    return {name: terms[name] for name in terms if name.startswith(("elbo", "iwae", "ess"))}


def iwae_metrics(terms: dict[str, Floats]) -> dict[str, float]:
    """Means over images in nats per image, each with its standard error over images.

    `iwae_K_minus_elbo` is the mean difference from the ELBO, and `ess_K_p10` the 10th percentile.
    """
    metrics = {"images": len(terms["elbo"]), **scoring.means(terms)}
    for name, values in terms.items():
        if name.startswith("iwae"):
            metrics |= scoring.means({f"{name}_minus_elbo": values.astype(float) - terms["elbo"]})
        if name.startswith("ess"):
            metrics[f"{name}_p10"] = float(np.quantile(values.astype(float), 0.1))
    return metrics


def main(files: scoring.Scored, settings: Iwae) -> None:
    """Compute the bounds per image; write them and their means."""
    inputs = scoring.read_inputs("iwae", files)
    x, samples = inputs.first(settings.images), settings.samples
    with inputs.exactly(len(x)) as callback:
        terms = bounds_against_k(inputs.model, x, samples, settings.seed, callback)
    bound = f"{{iwae_{samples}:.2f}} ± {{iwae_{samples}_se:.2f}}"
    summary = f"ELBO {{elbo:.2f}}, IWAE bound with K = {samples} {bound} nats per image"
    inputs.write(files, terms, iwae_metrics(terms) | inputs.is_log_likelihood(), summary)
