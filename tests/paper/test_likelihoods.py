"""Each likelihood against its definition, integrals and its own samples."""

import math

from aevb.likelihoods import LIKELIHOODS, gaussian_scale, is_likelihood
from aevb.rng import Random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.integrate import quad
from torch import Tensor, distributions

BERNOULLI, CONTINUOUS_BERNOULLI, GAUSSIAN = LIKELIHOODS.values()

LOGITS = [0.0, 1e-6, 1e-3, 0.1, 0.49, 0.5, 0.51, 1.0, 5.0, 20.0, 80.0]
LOGITS = sorted({sign * logit for logit in LOGITS for sign in (-1, 1)})
GRAY = [0.0, 1e-3, 0.25, 0.5, 0.8, 1.0]
PRECISIONS = {torch.float32: 2e-6, torch.float64: 3e-9}
EACH_PRECISION = pytest.mark.parametrize("dtype", PRECISIONS, ids=str)


def column(values: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    """Images of one pixel each."""
    return torch.tensor(values, dtype=dtype)[:, None]


def log_partition(logit: float) -> float:
    """log ∫ eˡˣ dx over [0, 1] = log((eˡ − 1) / l), the continuous Bernoulli's log-partition."""
    if logit == 0:
        return 0.0
    positive = math.log(-math.expm1(-abs(logit)) / abs(logit)) + abs(logit)
    return positive if logit > 0 else positive + logit


def density(likelihood, params: Tensor):
    """p(x) of one pixel as a function of a number."""
    return lambda x: math.exp(float(likelihood.log_prob(column([x]), params)))


def close(actual: Tensor, expected, dtype: torch.dtype, scale: float = 1) -> None:
    """Equal to the precision of the type, relative to `scale` or to the value."""
    tolerance = PRECISIONS[dtype] * scale
    expected = torch.as_tensor(expected, dtype=torch.float64).reshape(actual.shape)
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)


def test_an_image_is_the_product_of_its_pixels():
    torch.manual_seed(0)
    x = torch.rand(5, 7, dtype=torch.float64)
    for likelihood in LIKELIHOODS.values():
        raw = torch.randn(3, 5, likelihood.outputs, 7, dtype=torch.float64)
        total = likelihood.log_prob(x, raw.flatten(-2))
        pixels = [likelihood.log_prob(x[..., i : i + 1], raw[..., i]) for i in range(7)]
        assert total.shape == (3, 5)
        torch.testing.assert_close(total, sum(pixels))
        means = [likelihood.mean(raw[..., i]) for i in range(7)]
        torch.testing.assert_close(likelihood.mean(raw.flatten(-2)), torch.cat(means, -1))


@EACH_PRECISION
@pytest.mark.parametrize("x", GRAY)
def test_bernoulli_log_prob_is_the_cross_entropy(x, dtype):
    logits = column(LOGITS, dtype)
    actual = BERNOULLI.log_prob(torch.full_like(logits, x), logits)
    assert actual.dtype == dtype
    expected = [x * logit - max(logit, 0) - math.log1p(math.exp(-abs(logit))) for logit in LOGITS]
    close(actual, expected, dtype)


@EACH_PRECISION
@pytest.mark.parametrize("x", GRAY)
def test_continuous_bernoulli_log_prob(x, dtype):
    logits = column(LOGITS, dtype)
    actual = CONTINUOUS_BERNOULLI.log_prob(torch.full_like(logits, x), logits)
    assert actual.dtype == dtype
    close(actual, [x * logit - log_partition(logit) for logit in LOGITS], dtype)


@EACH_PRECISION
@pytest.mark.parametrize("raw_scale", [-1e4, -20.0, -1.0, 0.0, 3.0])
@pytest.mark.parametrize("raw_mean", [-80.0, -1.0, 0.0, 2.0, 80.0])
def test_gaussian_log_prob(raw_mean, raw_scale, dtype):
    params = torch.tensor([[raw_mean, raw_scale]], dtype=dtype)
    mean = 1 / (1 + math.exp(-raw_mean))
    scale = 1 / 255 + (math.log1p(math.exp(raw_scale)) if raw_scale > -700 else 0)
    reference = distributions.Normal(*torch.tensor([mean, scale], dtype=torch.float64))
    for x in GRAY:
        expected = reference.log_prob(torch.tensor(x, dtype=torch.float64))
        actual = GAUSSIAN.log_prob(torch.tensor([[x]], dtype=dtype), params)
        # In the narrowest Gaussian a rounding of x counts 255² fold.
        close(actual, expected, dtype, scale=10)


@pytest.mark.parametrize("logit", LOGITS)
def test_bernoulli_sums_to_one(logit):
    likelihood, params = BERNOULLI, column([logit])
    one, zero = (density(likelihood, params)(x) for x in (1.0, 0.0))
    assert one + zero == pytest.approx(1, abs=1e-14)
    assert float(likelihood.mean(params)) == pytest.approx(one, rel=1e-12)


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_integrates_to_one(logit):
    likelihood, params = CONTINUOUS_BERNOULLI, column([logit])
    p = density(likelihood, params)
    assert quad(p, 0, 1)[0] == pytest.approx(1, abs=1e-8)
    mean = quad(lambda x: x * p(x), 0, 1)[0]
    assert float(likelihood.mean(params)) == pytest.approx(mean, abs=1e-8)


@pytest.mark.parametrize("raw", [(-2.0, -20.0), (0.0, 0.0), (1.0, 2.0)])
def test_gaussian_integrates_to_one(raw):
    likelihood, params = GAUSSIAN, torch.tensor([raw], dtype=torch.float64)
    p = density(likelihood, params)
    mean, scale = float(likelihood.mean(params)), float(gaussian_scale(params))
    limits = (mean - 12 * scale, mean + 12 * scale)
    assert quad(p, *limits)[0] == pytest.approx(1, abs=1e-8)
    assert quad(lambda x: x * p(x), *limits)[0] == pytest.approx(mean, abs=1e-8)
    second = quad(lambda x: (x - mean) ** 2 * p(x), *limits)[0]
    assert math.sqrt(second) == pytest.approx(scale, rel=1e-8)


@EACH_PRECISION
def test_continuous_bernoulli_mean_is_odd_around_one_half(dtype):
    mean = CONTINUOUS_BERNOULLI.mean(column(LOGITS, dtype))
    close(mean, 1 - mean.flip(0).double(), dtype)
    assert (mean.diff(dim=0) >= 0).all()


def draws(likelihood, params: list[float], dtype: torch.dtype) -> NDArray[np.float64]:
    """20,000 draws of one pixel."""
    repeated = torch.tensor([params], dtype=dtype).expand(20000, -1)
    x = likelihood.sample(repeated, Random("test"))
    assert x.dtype == dtype
    return x.double().flatten().numpy()


@EACH_PRECISION
@pytest.mark.parametrize("logit", [-80.0, -3.0, -0.1, 0.0, 1.0, 5.0, 80.0])
def test_bernoulli_samples_are_zeros_and_ones_with_its_mean(logit, dtype):
    x = draws(BERNOULLI, [logit], dtype)
    assert set(x) <= {0, 1}
    expected = 1 / (1 + math.exp(-logit))
    assert abs(x.mean() - expected) <= 4 * math.sqrt(expected * (1 - expected) / len(x))


@EACH_PRECISION
@pytest.mark.parametrize("logit", [-80.0, -5.0, -0.51, -1e-3, 0.0, 1e-6, 0.49, 2.0, 20.0])
def test_continuous_bernoulli_samples_follow_its_distribution_function(logit, dtype):
    x = draws(CONTINUOUS_BERNOULLI, [logit], dtype)
    assert ((x >= 0) & (x <= 1)).all()

    def cumulative(t):
        return np.expm1(t * logit) / math.expm1(logit) if logit else t

    assert stats.kstest(x, cumulative).pvalue > 1e-3


@EACH_PRECISION
@pytest.mark.parametrize("raw", [(-2.0, -20.0), (0.0, 0.0), (1.0, 2.0)])
def test_gaussian_samples_follow_its_distribution_function(raw, dtype):
    scale = 1 / 255 + math.log1p(math.exp(raw[1]))
    normal = stats.norm(1 / (1 + math.exp(-raw[0])), scale)
    assert stats.kstest(draws(GAUSSIAN, raw, dtype), normal.cdf).pvalue > 1e-3


def test_gradients_in_an_exponential_family_are_data_minus_mean():
    """d log p(x) / d logit = x − E[x], for both Bernoullis."""
    for likelihood in (BERNOULLI, CONTINUOUS_BERNOULLI):
        for x in GRAY:
            logits = column(LOGITS).requires_grad_()
            likelihood.log_prob(torch.full_like(logits, x), logits).sum().backward()
            expected = x - likelihood.mean(logits.detach())
            torch.testing.assert_close(logits.grad, expected, rtol=0, atol=1e-7)


@EACH_PRECISION
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_everything_is_finite_at_extreme_outputs(name, dtype):
    likelihood = LIKELIHOODS[name]
    extremes = [-1e4, -800.0, -100.0, -80.0, 0.0, 80.0, 100.0, 800.0, 1e4]
    corners = torch.cartesian_prod(*[torch.tensor(extremes, dtype=dtype)] * likelihood.outputs)
    for x in (0.0, 0.5, 1.0):
        params = corners.reshape(-1, likelihood.outputs).clone().requires_grad_()
        value = likelihood.log_prob(torch.full_like(params[:, :1], x), params)
        mean = likelihood.mean(params)
        assert value.isfinite().all()
        assert ((mean >= 0) & (mean <= 1)).all()
        (slope,) = torch.autograd.grad(value.sum(), params, retain_graph=True)
        assert slope.isfinite().all()
        (slope,) = torch.autograd.grad(mean.sum(), params)
        assert slope.isfinite().all()
        assert likelihood.sample(params.detach(), Random("test")).isfinite().all()


@pytest.mark.parametrize(
    ("likelihood", "binarisations"),
    [
        ("bernoulli", {"dynamic", "static"}),
        ("continuous_bernoulli", {"none"}),
        ("gaussian", {"none"}),
    ],
)
def test_which_numbers_are_log_likelihoods(likelihood, binarisations):
    found = {name for name in ("dynamic", "static", "none") if is_likelihood(likelihood, name)}
    assert found == binarisations
