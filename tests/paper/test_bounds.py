"""The KL term, the ELBO and the importance-weighted bound against what they are by definition."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from torch import Tensor, distributions

from aevb.bounds import (
    Terms,
    bound_terms,
    elbo,
    iwae_bound,
    kl_per_dimension,
    log_importance_weights,
    reparameterise,
)

POSTERIORS = [(0.0, 0.0), (1.5, 0.0), (-0.3, -4.0), (0.0, 2.0), (-2.0, 1.0), (0.1, 1e-3)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def q(mu: Tensor, log_var: Tensor) -> distributions.Normal:
    return distributions.Normal(mu, torch.exp(log_var / 2))


PRIOR = distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)


class Linear:
    """p(x|z) = N(W z, I) and q(z|x) = N(A x + c, diag e^v), with the closed form of its ELBO."""

    def __init__(self) -> None:
        self.w = normal(5, 2, seed=1)
        self.a = normal(2, 5, seed=2).div(3).requires_grad_()
        self.c = normal(2, seed=3).requires_grad_()
        self.v = normal(2, seed=4).requires_grad_()

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x @ self.a.T + self.c, self.v.expand(len(x), -1)

    def log_px_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        return distributions.Normal(z @ self.w.T, 1.0).log_prob(x).sum(-1)

    def exact_elbo(self, x: Tensor) -> Tensor:
        mu, log_var = self.encode(x)
        var = log_var.exp()
        distance = (x - mu @ self.w.T).square().sum(-1) + (var * self.w.square().sum(0)).sum(-1)
        reconstruction = -(x.shape[1] * math.log(2 * math.pi) + distance) / 2
        return reconstruction - (mu.square() + var - 1 - log_var).sum(-1) / 2


@pytest.mark.parametrize(("mu", "log_var"), POSTERIORS)
def test_kl_is_the_integral(mu, log_var):
    scale = math.exp(log_var / 2)
    posterior, prior = stats.norm(mu, scale), stats.norm()
    expected, _ = quad(
        lambda z: posterior.pdf(z) * (posterior.logpdf(z) - prior.logpdf(z)),
        *(mu - 12 * scale, mu + 12 * scale),
    )
    actual = kl_per_dimension(*torch.tensor([[mu], [log_var]], dtype=torch.float64))
    assert float(actual) == pytest.approx(expected, abs=1e-10)


def test_kl_agrees_with_torch_in_each_dimension():
    mu, log_var = 3 * normal(50, 4), 2 * normal(50, 4, seed=1)
    expected = distributions.kl_divergence(q(mu, log_var), PRIOR)
    torch.testing.assert_close(kl_per_dimension(mu, log_var), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_kl_is_zero_at_the_prior_and_positive_elsewhere(dtype):
    zero = torch.zeros(1, dtype=dtype)
    assert float(kl_per_dimension(zero, zero)) == 0
    small = torch.logspace(-12, 1, 2000, dtype=dtype)
    for log_var in (small, -small):
        assert (kl_per_dimension(zero, log_var) >= 0).all()
    assert (kl_per_dimension(small[1000:], zero) > 0).all()


def test_kl_keeps_its_digits_near_the_prior_in_float32():
    log_var = torch.tensor([1e-2, -1e-2, 1e-3, -1e-3])
    exact = (torch.expm1(log_var.double()) - log_var.double()) / 2
    torch.testing.assert_close(
        kl_per_dimension(torch.zeros(4), log_var).double(), exact, rtol=2e-4, atol=0
    )


def test_kl_adds_over_dimensions():
    model, x = Linear(), normal(6, 5)
    terms = bound_terms(model, x, normal(1, 6, 2))
    full = distributions.MultivariateNormal(terms.mu, torch.diag_embed(terms.log_var.exp()))
    prior = distributions.MultivariateNormal(
        *(f(2, dtype=x.dtype) for f in (torch.zeros, torch.eye))
    )
    torch.testing.assert_close(terms.kl, distributions.kl_divergence(full, prior))


@pytest.mark.parametrize(("mu", "log_var"), POSTERIORS)
def test_reparametrised_noise_is_a_draw_from_q(mu, log_var):
    means, log_vars = torch.tensor([[[mu]], [[log_var]]], dtype=torch.float64)
    z = reparameterise(means, log_vars, normal(20000, 1, 1))
    assert z.shape == (20000, 1, 1)
    expected = stats.norm(mu, math.exp(log_var / 2))
    assert stats.kstest(z.flatten().numpy(), expected.cdf).pvalue > 1e-3
    assert float(z.mean()) == pytest.approx(mu, abs=4 * expected.std() / math.sqrt(20000))
    assert float(z.var()) == pytest.approx(expected.var(), rel=4 * math.sqrt(2 / 20000))


def test_terms_are_those_of_each_image_and_sample():
    model, x, eps = Linear(), normal(4, 5), normal(3, 4, 2, seed=9)
    terms = bound_terms(model, x, eps)
    assert (terms.log_px_given_z.shape, terms.kl.shape) == ((3, 4), (4,))
    for image in range(4):
        alone = bound_terms(model, x[image : image + 1], eps[:, image : image + 1])
        torch.testing.assert_close(alone.log_px_given_z, terms.log_px_given_z[:, image : image + 1])
        torch.testing.assert_close(elbo(alone), elbo(terms)[image : image + 1])


def test_elbo_is_the_mean_over_samples_less_the_kl():
    log_px_given_z = torch.tensor([[1.0, 10.0], [2.0, 20.0], [6.0, 30.0]])
    terms = Terms(log_px_given_z, torch.tensor([0.5, 4.0]), torch.empty(0), torch.empty(0))
    assert elbo(terms).tolist() == [2.5, 16.0]


@pytest.mark.parametrize("samples", [1, 3])
def test_elbo_and_its_gradients_in_phi_are_unbiased(samples):
    model, x = Linear(), normal(3, 5, seed=7)
    phi = {"A": model.a, "c": model.c, "v": model.v}
    exact = model.exact_elbo(x).sum()
    exact_gradients = torch.autograd.grad(exact, list(phi.values()))
    values, gradients = [], []
    for repetition in range(600):
        estimate = elbo(bound_terms(model, x, normal(samples, 3, 2, seed=100 + repetition))).sum()
        values.append(estimate.detach())
        gradients.append(torch.autograd.grad(estimate, list(phi.values())))
    draws = {"ELBO": torch.stack(values)[:, None]}
    truths = {"ELBO": exact.detach()[None]}
    for place, name in enumerate(phi):
        draws[name] = torch.stack([gradient[place].flatten() for gradient in gradients])
        truths[name] = exact_gradients[place].flatten()
    for name, values in draws.items():
        z = (values.mean(0) - truths[name]) / (values.std(0) / math.sqrt(len(values)))
        assert float(z.abs().max()) < 4, name
        assert float(values.std(0).min()) > 0, name


def test_log_importance_weights_are_made_of_three_log_densities():
    model, x, eps = Linear(), normal(4, 5), normal(7, 4, 2, seed=9)
    terms = bound_terms(model, x, eps)
    z = terms.mu + (terms.log_var / 2).exp() * eps
    expected = (
        model.log_px_given_z(x, z)
        + PRIOR.log_prob(z).sum(-1)
        - q(terms.mu, terms.log_var).log_prob(z).sum(-1)
    )
    torch.testing.assert_close(log_importance_weights(terms, eps), expected)


def test_mean_importance_weight_is_the_marginal_likelihood():
    model, x = Linear(), normal(2, 5)
    with torch.no_grad():
        model.v.fill_(1.0)  # wider than the posterior, so that the weights are bounded
        eps = normal(20000, 2, 2, seed=5)
        weights = log_importance_weights(bound_terms(model, x, eps), eps).exp()
        covariance = model.w @ model.w.T + torch.eye(5, dtype=x.dtype)
        marginal = distributions.MultivariateNormal(torch.zeros(5, dtype=x.dtype), covariance)
        z = (weights.mean(0) - marginal.log_prob(x).exp()) / (weights.std(0) / math.sqrt(20000))
    assert float(z.abs().max()) < 4


def test_iwae_bound_is_the_log_of_the_mean_weight():
    weights = torch.tensor([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]], dtype=torch.float64)
    torch.testing.assert_close(
        iwae_bound(weights.log()), torch.tensor([3.0, 5.0], dtype=torch.float64).log()
    )


def test_iwae_bound_of_one_sample_is_its_log_weight():
    log_weights = 30 * normal(1, 8)
    torch.testing.assert_close(iwae_bound(log_weights), log_weights[0])


@pytest.mark.parametrize("shift", [-1e4, -3.0, 1e4])
def test_iwae_bound_moves_with_its_weights(shift):
    log_weights = 5 * normal(20, 8)
    moved = iwae_bound(log_weights + shift)
    torch.testing.assert_close(moved - shift, iwae_bound(log_weights), rtol=0, atol=1e-9)


def test_iwae_bound_forgets_the_order_of_samples():
    log_weights = 5 * normal(20, 8)
    order = torch.from_numpy(np.random.default_rng(0).permutation(20))
    torch.testing.assert_close(iwae_bound(log_weights[order]), iwae_bound(log_weights))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_iwae_bound_does_not_overflow(dtype):
    log_weights = torch.tensor([[1e4, -1e4, 1e4], [1e4, -1e4, -1e4]], dtype=dtype)
    log_weights.requires_grad_()
    bound = iwae_bound(log_weights)
    expected = torch.tensor([1e4, -1e4, 1e4 - math.log(2)], dtype=dtype)
    torch.testing.assert_close(bound, expected)
    bound.sum().backward()
    shares = torch.tensor([[0.5, 0.5, 1], [0.5, 0.5, 0]], dtype=dtype)
    torch.testing.assert_close(log_weights.grad, shares, rtol=0, atol=1e-3)


def test_iwae_bound_lies_between_the_mean_and_the_largest_log_weight():
    log_weights = 5 * normal(20, 8)
    bound = iwae_bound(log_weights)
    assert (bound > log_weights.mean(0)).all()
    assert (bound < log_weights.max(0).values).all()
