"""Measure the variance of three estimators of the gradient of E_q[log p(x|z)].

The gradient by mu, in nats per unit of mu, is estimated without bias from one draw
z = mu + sigma ⊙ eps of q(z|x) = N(mu, diag sigma²):

    reparametrised    ∇_z log p(x|z)                        Kingma & Welling 2013, section 2.4
    score             log p(x|z) (z − mu) / sigma²          ibid., section 2.2; Williams 1992
    baseline          (log p(x|z) − b) (z − mu) / sigma²    b: mean over the image's other draws

(z − mu) / sigma² is the score, ∇_mu log q(z|x), which has mean 0; b adds no bias, because it does
not depend on the draw that it is subtracted from: Mohamed et al. 2020 (arXiv:1906.10652). The KL
term has a closed form, so its gradient has no variance.
"""

from aevb.bounds import LatentVariableModel, reparameterise
from aevb.evaluation import by_block, noise
from aevb.exact import exact
from aevb.intervals import mean, means_with_errors
from aevb.plumbing.params import GradientVariance
from aevb.research import scoring
from aevb.rng import Doubles, Floats, Random

import numpy as np
import torch
from torch import Tensor

ESTIMATORS = ("reparametrised", "score", "baseline")


@torch.no_grad()
def gradients(model: LatentVariableModel, x: Floats, samples: int, seed: int) -> dict[str, Floats]:
    """Mean and variance of each of ESTIMATORS, in their order and with the same draws.

    Returns:
        float32 arrays for images [N, D]: mean over the draws, [N, 3, k], and variance of one draw,
        summed over the k dimensions, [N, 3]. Only sums over draws are kept, in float64.
    """

    def estimates(images: Tensor, random: Random) -> dict[str, Tensor]:
        mu, log_var = model.encode(images)
        total = torch.zeros((len(images), 1), dtype=torch.float64)
        sums = torch.zeros((7, *mu.shape), dtype=torch.float64)
        for eps in noise(mu, samples, random):
            z = reparameterise(mu, log_var, eps).requires_grad_()
            with torch.enable_grad():
                log_px = model.log_px_given_z(images, z)
                (gradient,) = torch.autograd.grad(log_px.sum(), z)
            slope, value = gradient.double(), log_px.detach().double().unsqueeze(-1)
            score = eps.double() * torch.exp(-log_var.double() / 2)
            powers = (slope, score, value * score)
            sums += torch.stack((*powers, *(x * x for x in powers), value * score * score)).sum(1)
            total += value.sum(0)
        slope, score, product, slope_2, score_2, product_2, product_1 = sums / samples
        # With b the mean over the other draws, value − b is (value − mean) scale. The mean is known
        # only after the last draw, so squares are multiplied out, which float64 has the digits for.
        b, scale = total / samples, samples / (samples - 1)
        centred_2 = product_2 - 2 * b * product_1 + b * b * score_2
        first = torch.stack((slope, product, scale * (product - b * score)), 1)
        second = torch.stack((slope_2, product_2, scale**2 * centred_2), 1)
        return {"mean": first, "variance": (second - first * first).sum(-1) * scale}

    return by_block(estimates, x, "gradient_variance", seed)


def ratio_with_error(name: str, above: Doubles, below: Doubles) -> dict[str, float]:
    """Ratio of two means over images [N], and its standard error by the delta method.

    They are not finite if the lower mean is 0, as for a decoder that ignores z.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(np.divide(mean(above), mean(below)))
        residual = (above - ratio * below) / mean(below)
    return {**means_with_errors({name: residual}), name: ratio}


def gradient_metrics(terms: dict[str, Floats], samples: int) -> dict[str, float]:
    """Means over images, each with its standard error over images.

    `variance_NAME` is that of one draw, and `variance_ratio_NAME` its ratio to the reparametrised
    one. `squared_norm_NAME`, of the mean gradient, is unbiased and so sometimes below 0.
    """
    variance = terms["variance"].astype(float)
    squared_norm = (terms["mean"].astype(float) ** 2).sum(-1) - variance / samples
    metrics: dict[str, float] = {"images": len(variance), "samples": samples}
    for place, name in enumerate(ESTIMATORS):
        own = variance[:, place]
        metrics |= means_with_errors(
            {f"variance_{name}": own, f"squared_norm_{name}": squared_norm[:, place]}
        )
        if place:
            metrics |= ratio_with_error(f"variance_ratio_{name}", own, variance[:, 0])
    return metrics


def main(files: scoring.Scored, settings: GradientVariance) -> None:
    """Estimate means and variances per image; write them and their means over images."""
    inputs = scoring.read_inputs("gradient_variance", files.model, files.test)
    x = inputs.first(settings.images)
    with exact():
        terms = gradients(inputs.model, x, settings.samples, settings.seed)
    metrics = gradient_metrics(terms, settings.samples)
    metrics["is_log_likelihood"] = inputs.is_log_likelihood()
    summary = (
        "variance of the score function estimator {variance_ratio_score:.0f} ± "
        "{variance_ratio_score_se:.0f} times the reparametrised one's, with a baseline "
        "{variance_ratio_baseline:.1f} ± {variance_ratio_baseline_se:.1f}"
    )
    inputs.write(files, terms, metrics, summary)
