"""The KL term, the ELBO and the importance-weighted bound compared with their definitions."""

import math

from aevb.bounds import (
    Terms,
    bound_terms,
    elbo,
    iwae_bound,
    kl_per_dimension,
    log_importance_weights,
    reparameterise,
)
from linear_gaussian import K, model, z_score

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from torch import Tensor, distributions

POSTERIORS = [(0.0, 0.0), (1.5, 0.0), (-0.3, -4.0), (0.0, 2.0), (-2.0, 1.0), (0.1, 1e-3)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


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
    terms = bound_terms(model(wrong=1), normal(6, 12), normal(1, 6, K))
    full = distributions.MultivariateNormal(terms.mu, torch.diag_embed(terms.log_var.exp()))
    prior = distributions.MultivariateNormal(terms.mu * 0, torch.eye(K, dtype=torch.float64))
    torch.testing.assert_close(terms.kl, distributions.kl_divergence(full, prior))


@pytest.mark.parametrize(("mu", "log_var"), POSTERIORS)
def test_reparametrised_noise_is_a_draw_from_q(mu, log_var):
    means, log_vars = torch.tensor([[[mu]], [[log_var]]], dtype=torch.float64)
    z = reparameterise(means, log_vars, normal(20000, 1, 1))
    assert z.shape == (20000, 1, 1)
    expected = stats.norm(mu, math.exp(log_var / 2))
    assert stats.kstest(z.flatten().numpy(), expected.cdf).pvalue > 1e-3


def test_terms_are_those_of_each_image_and_sample():
    wrong, x, eps = model(wrong=1), normal(4, 12), normal(3, 4, K, seed=9)
    terms = bound_terms(wrong, x, eps)
    assert (terms.log_px_given_z.shape, terms.kl.shape) == ((3, 4), (4,))
    for image in range(4):
        alone = bound_terms(wrong, x[image : image + 1], eps[:, image : image + 1])
        torch.testing.assert_close(alone.log_px_given_z, terms.log_px_given_z[:, image : image + 1])
        torch.testing.assert_close(elbo(alone), elbo(terms)[image : image + 1])


def test_elbo_is_the_mean_over_samples_less_the_kl():
    log_px_given_z = torch.tensor([[1.0, 10.0], [2.0, 20.0], [6.0, 30.0]])
    terms = Terms(log_px_given_z, torch.tensor([0.5, 4.0]), torch.empty(0), torch.empty(0))
    assert elbo(terms).tolist() == [2.5, 16.0]


@pytest.mark.parametrize("samples", [1, 3])
def test_elbo_and_its_gradients_in_phi_are_unbiased(samples):
    wrong, x = model(wrong=1), normal(3, 12, seed=7)
    phi = [wrong.a.requires_grad_(), wrong.v.requires_grad_()]

    def value_and_gradients(bound: Tensor) -> Tensor:
        parts = [bound, *torch.autograd.grad(bound, phi)]
        return torch.cat([part.detach().flatten() for part in parts])

    reconstruction, kl = wrong.elbo_terms(x)
    exact = value_and_gradients((reconstruction - kl).sum())
    draws = torch.stack(
        [
            value_and_gradients(elbo(bound_terms(wrong, x, normal(samples, 3, K, seed=seed))).sum())
            for seed in range(600)
        ]
    )
    assert (draws.std(0) > 0).all()
    z = (draws.mean(0) - exact) / (draws.std(0) / math.sqrt(600))
    assert float(z.abs().max()) < 4


def test_log_importance_weights_are_made_of_three_log_densities():
    wrong, x, eps = model(wrong=1), normal(4, 12), normal(7, 4, K, seed=9)
    terms = bound_terms(wrong, x, eps)
    scale = (terms.log_var / 2).exp()
    z = terms.mu + scale * eps
    log_prior = distributions.Normal(torch.zeros_like(scale), 1.0).log_prob(z).sum(-1)
    log_q = distributions.Normal(terms.mu, scale).log_prob(z).sum(-1)
    expected = wrong.log_px_given_z(x, z) + log_prior - log_q
    torch.testing.assert_close(log_importance_weights(terms, eps), expected)


def test_mean_importance_weight_is_the_marginal_likelihood():
    """The encoder is wider than the posterior, so the weights are bounded."""
    wide = model(wrong=1)
    x, eps = wide.draw(2), normal(20000, 2, K, seed=5)
    log_weights = log_importance_weights(bound_terms(wide, torch.from_numpy(x), eps), eps)
    for ratios in np.exp(log_weights.numpy() - wide.log_px(x)).T:
        assert abs(z_score(ratios - 1)) < 4


def test_iwae_bound_is_the_log_of_the_mean_weight():
    weights = torch.tensor([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]], dtype=torch.float64)
    torch.testing.assert_close(
        iwae_bound(weights.log()), torch.tensor([3.0, 5.0], dtype=torch.float64).log()
    )
    torch.testing.assert_close(iwae_bound(weights[:1].log()), weights[0].log())


@pytest.mark.parametrize("shift", [-1e4, -3.0, 1e4])
def test_iwae_bound_moves_with_its_weights_and_forgets_their_order(shift):
    log_weights = 5 * normal(20, 8)
    order = np.random.default_rng(0).permutation(20)
    moved = iwae_bound(log_weights[order] + shift)
    torch.testing.assert_close(moved - shift, iwae_bound(log_weights), rtol=0, atol=1e-9)


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
