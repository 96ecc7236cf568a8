"""Three unbiased estimators of the gradient of E_q[log p(x|z)] by mu, and how noisy each is.

From one draw z = mu + sigma ⊙ eps of q(z|x) = N(mu, diag sigma²):

    reparametrised    ∇_z log p(x|z)                        Kingma & Welling 2013, section 2.4
    score             log p(x|z) (z − mu) / sigma²          ibid., section 2.2; Williams 1992
    baseline          (log p(x|z) − b) (z − mu) / sigma²    b: mean over the image's other draws

(z − mu) / sigma² is ∇_mu log q(z|x), the score, whose mean is 0: as b does not depend on the draw
it is taken from, it adds no bias. All are reviewed by Mohamed et al. 2020 (arXiv:1906.10652).

mu stands for all of phi: by the chain rule the gradient by phi is linear in those by mu and sigma,
through the encoder's Jacobian, which no draw changes. The KL term has a closed form and no noise.

Shapes: B images of D pixels, R draws of each, k latent dimensions. log p(x|z) is in nats, so a
gradient is in nats per unit of mu.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aevb.bounds import reparameterise
from aevb.evaluation import BLOCK, DRAWS, Floats
from aevb.files import Arrays, InputError
from aevb.hmc import Model, state_at
from aevb.intervals import mean_with_error
from aevb.rng import generator

ESTIMATORS = ("reparametrised", "score", "baseline")


@torch.no_grad()
def gradients(
    model: Model,
    x: Floats,
    samples: int,
    seed: int,
    callback: Callable[[int], Any] = lambda _: None,
) -> Arrays:
    """Mean and variance of each of ESTIMATORS, in their order, for images [N, D].

    Returns:
        float32 arrays per image: mean over the draws, [N, 3, k], and variance of one draw, summed
        over the k dimensions, [N, 3].

    All use the same draws; noise is keyed by (seed, block of images). Only sums over draws are
    kept, in float64: memory does not grow with `samples`.
    """
    means, variances = [], []
    for block, images in enumerate(torch.from_numpy(x).split(BLOCK)):
        mu, log_var = model.encode(images)
        random = generator("estimators", seed, block)
        total = torch.zeros((len(images), 1), dtype=torch.float64)
        sums = torch.zeros((7, *mu.shape), dtype=torch.float64)
        for start in range(0, samples, DRAWS):
            shape = (min(DRAWS, samples - start), BLOCK, mu.shape[1])
            eps = torch.from_numpy(random.standard_normal(shape, np.float32))[:, : len(images)]
            state = state_at(model, images, reparameterise(mu, log_var, eps))
            slope, value = state.gradient.double(), state.log_px.double().unsqueeze(-1)
            score = eps.double() * torch.exp(-log_var.double() / 2)
            powers = (slope, score, value * score)
            squares = (slope**2, score**2, value * score**2, (value * score) ** 2)
            sums += torch.stack((*powers, *squares)).sum(1)
            total += value.sum(0)
        slope, score, product, slope_2, score_2, product_1, product_2 = sums / samples
        # Over the other draws, value − b is (value − mean) scale. The mean is known only after the
        # last draw, so squares are multiplied out, for which float64 has the digits to spare.
        b, scale = total / samples, samples / (samples - 1)
        centred_2 = product_2 - 2 * b * product_1 + b**2 * score_2
        mean = torch.stack((slope, product, scale * (product - b * score)), 1)
        second = torch.stack((slope_2, product_2, scale**2 * centred_2), 1)
        means.append(mean)
        variances.append((second - mean**2).sum(-1) * scale)
        callback(len(images))
    return {
        "mean": torch.cat(means).float().numpy(),
        "variance": torch.cat(variances).float().numpy(),
    }


def ratio_with_error(
    name: str, above: NDArray[np.float64], below: NDArray[np.float64]
) -> dict[str, float]:
    """Ratio of two means over images [N], and its standard error by the delta method.

    Raises:
        InputError: if the lower mean is 0, as where the decoder does not look at z.
    """
    if not below.mean():
        raise InputError("log p(x|z) does not depend on z: there is no gradient to estimate")
    ratio = above.mean() / below.mean()
    residual = (above - ratio * below) / below.mean()
    return {name: float(ratio), f"{name}_se": float(residual.std(ddof=1) / math.sqrt(len(below)))}


def summarise(terms: Arrays, samples: int) -> dict[str, float]:
    """Means over images, each with its standard error over images.

    `variance_NAME` is that of one draw; `squared_norm_NAME` is that of the mean gradient, less what
    noise adds to it, so unbiased and below 0 at times; `variance_ratio_NAME` is to the
    reparametrised one. `samples_needed_NAME` is how many draws bring the variance of their mean
    down to the squared norm, a signal-to-noise ratio of 1; since all have the same mean, the norm
    is taken from the draws that tell it best, the reparametrised ones.
    """
    variance = terms["variance"].astype(float)
    squared_norm = (terms["mean"].astype(float) ** 2).sum(-1) - variance / samples
    metrics: dict[str, float] = {"images": len(variance), "samples": samples}
    for place, name in enumerate(ESTIMATORS):
        own = variance[:, place]
        metrics |= mean_with_error(f"variance_{name}", own)
        metrics |= mean_with_error(f"squared_norm_{name}", squared_norm[:, place])
        metrics |= ratio_with_error(f"samples_needed_{name}", own, squared_norm[:, 0])
        if place:
            metrics |= ratio_with_error(f"variance_ratio_{name}", own, variance[:, 0])
    return metrics
