"""The likelihoods p(x|z): what the decoder's last layer parameterises.

A likelihood is three functions of the decoder's raw outputs, called `params` here: the
log-probability or log-density of an image, its mean, and a draw from it. Shapes: `params` is
[..., outputs × D] and `x` is [..., D] with values in [0, 1], for images of D pixels.

To add a likelihood, add an entry to LIKELIHOODS; nothing else names them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from aevb.rng import Random

import torch
from torch import Tensor

LOG_2, HALF_LOG_2PI = 0.6931471805599453, 0.9189385332046727
"""As numbers, because the last digit of `math.log` depends on the machine."""
MIN_SCALE = 1 / 255
"""One gray level: the pixels are quantised, so a smaller scale has no meaning."""
SERIES = 0.5
"""Below this |logit| the continuous Bernoulli uses series; the first dropped term is below 1e-8."""


@dataclass(frozen=True)
class Likelihood:
    """A likelihood p(x|z), given the decoder's outputs for z.

    Attributes:
        outputs: raw decoder outputs per pixel.
        binary: whether it is a probability of zeros and ones; otherwise it is a density.
        log_prob: (x, params) to log p(x|z) in nats per image, [...].
        mean: params to E[x|z], [..., D].
        sample: (params, random) to x ~ p(x|z), [..., D].
    """

    outputs: int
    binary: bool
    log_prob: Callable[[Tensor, Tensor], Tensor]
    mean: Callable[[Tensor], Tensor]
    sample: Callable[[Tensor, Random], Tensor]


def softplus(logits: Tensor) -> Tensor:
    """log(1 + eˡ), elementwise, with an error below 1e-6 in float32.

    Written as (l + |l|) / 2 − log σ(|l|): on a CPU, F.softplus takes three times as long.
    """
    return (logits + logits.abs()) / 2 - logits.abs().sigmoid().log()


def bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x|z) = Σ x l − log(1 + eˡ) with λ = σ(l): Kingma & Welling, appendix C.1.

    It is computed from logits, so that no λ rounds to 0 or 1. On gray levels the formula has a
    value, which the literature reports, but it is not a log-likelihood.
    """
    return (x * logits - softplus(logits)).sum(-1)


def bernoulli_sample(logits: Tensor, random: Random) -> Tensor:
    """Zeros and ones, one with probability σ(l)."""
    u = torch.from_numpy(random.uniform(logits.shape)).to(logits)
    return (u < torch.sigmoid(logits)).to(logits)


def continuous_bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x|z) = Σ log C(λ) + x l − log(1 + eˡ) for x in [0, 1].

    Loaiza-Ganem & Cunningham 2019 (arXiv:1907.06845).
    """
    return bernoulli_log_prob(x, logits) + log_normaliser(logits).sum(-1)


def log_normaliser(logits: Tensor) -> Tensor:
    """log C(λ) = log(|l| / tanh(|l| / 2)), elementwise: log 2 at l = 0, by series around it."""
    near = logits.abs() < SERIES
    # The branch that is not used gets a harmless argument; its gradient would be nan otherwise.
    far = torch.where(near, torch.ones_like(logits), logits.abs())
    q = torch.where(near, logits, torch.zeros_like(logits)).square() / 4
    taylor = LOG_2 + q * (1 / 3 - q * (7 / 90 - q * (62 / 2835 - q * (127 / 18900))))
    return torch.where(near, taylor, far.log() - torch.tanh(far / 2).log())


def continuous_bernoulli_mean(logits: Tensor) -> Tensor:
    """E[x|z] = 1 / (1 − e⁻ˡ) − 1 / l, by series around l = 0."""
    near = logits.abs() < SERIES
    far = torch.where(near, torch.ones_like(logits), logits.abs())
    t = torch.where(near, logits, torch.zeros_like(logits))
    taylor = 0.5 + t * (1 / 12 - t**2 * (1 / 720 - t**2 * (1 / 30240 - t**2 / 1209600)))
    below = 1 / far + torch.exp(-far) / torch.expm1(-far)  # the mean at −|l|
    return torch.where(near, taylor, torch.where(logits > 0, 1 - below, below))


def continuous_bernoulli_sample(logits: Tensor, random: Random) -> Tensor:
    """Draws by the inverse distribution function at −|l|, which cannot overflow."""
    u = torch.from_numpy(random.uniform(logits.shape)).to(logits)
    negative = -logits.abs().clamp(min=1e-6)
    x = torch.log1p(u * torch.expm1(negative)) / negative
    return torch.where(logits > 0, 1 - x, x).clamp(0, 1)


def gaussian_log_prob(x: Tensor, params: Tensor) -> Tensor:
    """log p(x|z) = Σ log N(x; m, s²): Kingma & Welling, appendix C.2."""
    mean, scale = gaussian_mean(params), gaussian_scale(params)
    per_pixel = ((x - mean) / scale).square() / 2 + scale.log() + HALF_LOG_2PI
    return -per_pixel.sum(-1)


def gaussian_mean(params: Tensor) -> Tensor:
    """m = σ(raw) in (0, 1), as in section 5 of the paper."""
    return torch.sigmoid(params.chunk(2, -1)[0])


def gaussian_scale(params: Tensor) -> Tensor:
    """s = 1/255 + softplus(raw), [..., D].

    The lower limit is needed: without it, the density of pixels that are always black is unbounded.
    """
    return MIN_SCALE + softplus(params.chunk(2, -1)[1])


def gaussian_sample(params: Tensor, random: Random) -> Tensor:
    """m + s ε with ε ~ N(0, I)."""
    mean = gaussian_mean(params)
    noise = torch.from_numpy(random.normal(mean.shape)).to(mean)
    return mean + gaussian_scale(params) * noise


LIKELIHOODS = {
    "bernoulli": Likelihood(
        outputs=1,
        binary=True,
        log_prob=bernoulli_log_prob,
        mean=torch.sigmoid,
        sample=bernoulli_sample,
    ),
    "continuous_bernoulli": Likelihood(
        outputs=1,
        binary=False,
        log_prob=continuous_bernoulli_log_prob,
        mean=continuous_bernoulli_mean,
        sample=continuous_bernoulli_sample,
    ),
    "gaussian": Likelihood(
        outputs=2,
        binary=False,
        log_prob=gaussian_log_prob,
        mean=gaussian_mean,
        sample=gaussian_sample,
    ),
}


def is_likelihood(likelihood: str, binarisation: str) -> bool:
    """Whether bounds of this model on such data are bounds on log p(x).

    A Bernoulli is a likelihood of zeros and ones, a density one of gray levels. The other
    combinations have a value that is not a log-likelihood; it is marked wherever it is shown.
    """
    return LIKELIHOODS[likelihood].binary == (binarisation != "none")
