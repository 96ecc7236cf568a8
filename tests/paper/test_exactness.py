"""Estimates of log p(x), and the parts of the inference gap, where log p(x) is known.

It is a closed form for the linear-Gaussian model, a quadrature for a VAE with two dimensions.
"""

import math
from itertools import pairwise

from aevb.bounds import iwae_bound
from aevb.data import model_inputs
from aevb.model import VAE
from aevb.research import ais, inference_gap, qmc
from aevb.research.inference_gap import Optimised, bounds_against_k
from aevb.rng import Random
from linear_gaussian import K, LinearGaussian, S, model, z_score

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from torch.nn.functional import softplus

torch.set_num_threads(1)


# The IWAE bound against K.


def test_sample_counts_are_powers_of_ten_and_the_last():
    expected = {1: [1], 2: [1, 2], 10: [1, 10], 11: [1, 10, 11], 5000: [1, 10, 100, 1000, 5000]}
    assert {samples: inference_gap.sample_counts(samples) for samples in expected} == expected


@pytest.mark.parametrize("k", [1, 7, 250])
def test_groups_are_disjoint(k):
    log_weights = torch.arange(1000.0).reshape(250, 4)
    expected = log_weights[: 250 // k * k].split(k)
    assert torch.equal(inference_gap.groups(log_weights, k), torch.stack(expected, 1))


def test_with_the_exact_posterior_every_bound_is_log_px():
    exact = model()
    x = exact.draw(120)
    terms = bounds_against_k(exact, x, 130, seed=0)
    for k in (1, 10, 100, 130):
        np.testing.assert_allclose(terms[f"iwae_{k}"], exact.log_px(x), rtol=1e-6)


def test_bounds_rise_from_the_elbo_to_log_px():
    wrong = model(wrong=3)
    x = wrong.draw(400)
    terms = bounds_against_k(wrong, x, 2000, seed=0)
    counts = inference_gap.sample_counts(2000)
    bounds = np.stack([terms[f"iwae_{k}"] for k in counts], 1).astype(float)
    elbo, log_px = wrong.mean_log_px_given_z(x) - wrong.kl(x), wrong.log_px(x)
    assert abs(z_score(bounds[:, 0] - elbo)) < 4
    assert min(z_score(step) for step in np.diff(bounds, axis=1).T[:3]) > 4
    assert z_score(log_px - bounds[:, 2]) > 4
    assert z_score(log_px - bounds[:, -1]) > -4
    assert (log_px - bounds[:, -1]).mean() < 0.03 < 1 < (log_px - bounds[:, 1]).mean()
    assert terms["elbo"].mean() == pytest.approx(elbo.mean(), abs=0.1)


# The Gaussian that is optimised for each image.


def test_the_optimised_gaussian_is_the_posterior():
    wrong = model(wrong=2)
    x = wrong.draw(130)
    best = Optimised(wrong, 1000, seed=0)
    mean, variance = wrong.posterior(torch.from_numpy(x))
    mu, log_var = best.encode(torch.from_numpy(x[:100]))
    assert (wrong.encode(torch.from_numpy(x[:100]))[0] - mean[:100]).abs().max() > 1
    np.testing.assert_allclose(mu, mean[:100], atol=0.1)
    np.testing.assert_allclose(log_var, variance.log().expand(100, K), atol=0.2)
    # The posterior is a Gaussian with diagonal covariance, so the whole gap is amortisation.
    terms = bounds_against_k(best, x, 500, seed=0)
    np.testing.assert_allclose(terms["iwae_500"], wrong.log_px(x), atol=0.02)
    assert 0 <= (wrong.log_px(x) - terms["iwae_1"]).mean() < 0.02


def test_optimising_does_not_depend_on_the_other_images():
    wrong = model(wrong=1)
    x = torch.from_numpy(wrong.draw(100))
    best = Optimised(wrong, 5, seed=0)
    for whole, part in zip(best.encode(x), best.encode(x[:7]), strict=True):
        torch.testing.assert_close(part, whole[:7])


# Quasi-Monte Carlo.


@pytest.mark.parametrize("k", [1, 2, 3])
def test_points_fill_the_prior_more_evenly_than_random_ones(k):
    z = qmc.points(2**12, k, seed=0, shift=0)
    assert z.shape == (2**12, k)
    probabilities = stats.norm.cdf(z)
    assert stats.qmc.discrepancy(probabilities) < 0.1 * stats.qmc.discrepancy(
        np.random.default_rng(0).random(z.shape)
    )
    for other in (qmc.points(2**12, k, 0, 1), qmc.points(2**12, k, 1, 0)):
        assert np.isin(other, z).mean() < 0.01


def test_the_error_of_quasi_monte_carlo_is_known_and_falls_with_the_points():
    exact = model()
    x = exact.draw(200)
    images, errors = torch.from_numpy(x), []
    for count in (2**8, 2**12):
        estimates = qmc.log_means(
            lambda z: exact.log_px_given_z(images, z[:, None]), K, count, seed=0
        )
        log_px, error, doubling = qmc.summarise(estimates)
        assert abs(float(log_px.mean()) - exact.log_px(x).mean()) < 4 * error
        errors.append((error, abs(doubling), abs(log_px.numpy() - exact.log_px(x)).max()))
    assert (np.array(errors[1]) < np.array(errors[0]) / 4).all()
    np.testing.assert_allclose(log_px, exact.log_px(x), atol=0.1)


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli"])
def test_one_product_scores_all_images(untrained, likelihood):
    net = untrained(3, likelihood=likelihood)
    random = Random("test", 1)
    x, z = (torch.from_numpy(random.uniform(shape)) for shape in ((5, 784), (9, 3)))
    expected = net.log_px_given_z(x, z[:, None])
    torch.testing.assert_close(qmc.bernoulli_score(net, x)(z), expected, rtol=1e-4, atol=0)


# Hamiltonian Monte Carlo.


def chains_at_target(exact: LinearGaussian, x: Tensor, beta: float, chains: int) -> Tensor:
    """Draws of p(z) p(x|z)^beta, [R, B, k]."""
    mean, variance = exact.posterior(x, beta)
    e = torch.from_numpy(np.random.default_rng(0).standard_normal((chains, len(x), K)))
    return (mean + variance.sqrt() * e).float()


def test_leapfrog_is_reversible_and_its_error_is_of_second_order():
    """The second order also shows that the force is the gradient of the log density."""
    exact, beta = model(), 0.7
    x = torch.from_numpy(exact.draw(10))
    start = ais.state_at(exact, x, chains_at_target(exact, x, beta, 8))
    momentum = ais.normal([Random("test", 9)], (8, 10, K))

    def energy(state: ais.State, momentum: Tensor) -> Tensor:
        return momentum.double().square().sum(-1) / 2 - state.log_density(beta)

    errors = []
    for step, count in ((0.1, 10), (0.05, 20)):
        end, turned = ais.leapfrog(exact, x, start, momentum, beta, step, count)
        again, back = ais.leapfrog(exact, x, end, -turned, beta, step, count)
        assert float((end.z - start.z).abs().mean()) > 0.1
        torch.testing.assert_close(again.z, start.z, rtol=0, atol=1e-4)
        torch.testing.assert_close(-back, momentum, rtol=0, atol=2e-4)
        errors.append(float((energy(end, turned) - energy(start, momentum)).abs().mean()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize(("beta", "step"), [(0.0, 1.3), (0.3, 0.5), (1.0, 0.4)])
@pytest.mark.parametrize("start", ["target", "elsewhere"])
def test_a_transition_converges_to_its_target_and_leaves_it_invariant(beta, step, start):
    exact, chains = model(), 1000
    x = torch.from_numpy(exact.draw(5))
    mean, variance = exact.posterior(x, beta)
    z = chains_at_target(exact, x, beta, chains)
    if start == "elsewhere":
        z = 2 * z + 1
    state, streams, shares = ais.state_at(exact, x, z), [Random("test", 9)], []
    for _ in range(10 if start == "target" else 60):
        state, share = ais.transition(exact, x, state, beta, step, 4, streams)
        shares.append(float(share.mean()))
    # The steps are so large that the dynamics without rejections would miss the target.
    assert 0.5 < np.mean(shares) < 0.97
    standard = (state.z.double() - mean) / variance.sqrt()
    moments = torch.stack([standard, standard.square() - 1, standard.roll(1, -1) * standard])
    errors = moments.mean(1) / moments.std(1) * math.sqrt(chains)
    assert float(errors.abs().max()) < 4.5
    renewed = ais.state_at(exact, x, state.z)
    torch.testing.assert_close(state.log_px, renewed.log_px)
    torch.testing.assert_close(state.gradient, renewed.gradient)


def test_diverging_dynamics_are_rejected():
    exact = model()
    x = torch.from_numpy(exact.draw(3))
    state = ais.state_at(exact, x, chains_at_target(exact, x, 1, 7))
    moved, share = ais.transition(exact, x, state, 1, 1e4, 20, [Random("test", 9)])
    assert torch.equal(moved.z, state.z)
    assert not share.any()


# Annealed importance sampling.


def plan(temperatures: int, exact: LinearGaussian) -> ais.Plan:
    """Steps that accept about three quarters of the moves of the linear-Gaussian model."""
    betas = ais.schedule(temperatures)
    largest = float(exact.w.square().sum(0).max()) / S**2
    return ais.Plan(betas, [1.5 / math.sqrt(1 + beta * largest) for beta in betas], 4)


def test_the_schedule_is_a_sigmoid_from_0_to_1():
    betas = np.array(ais.schedule(100))
    assert (betas[0], betas[-1], len(betas)) == (0, 1, 101)
    assert betas[50] == pytest.approx(0.5)
    assert (np.diff(betas) > 0).all()
    np.testing.assert_allclose(betas + betas[::-1], 1)
    np.testing.assert_allclose(np.diff(betas)[50] / np.diff(betas)[0], 0.25 / 0.0177, rtol=0.05)


@pytest.mark.parametrize(
    ("temperatures", "backward"), [(3, False), (10, False), (60, False), (60, True)]
)
def test_weights_are_unbiased(temperatures, backward):
    """E[w] = p(x) from the prior, however few the temperatures, E[1/w] = 1/p(x) from p(z|x)."""
    exact, count = model(), 500
    x, z = exact.draw_both(count, seed=2)
    start, sign = (z, -1) if backward else (None, 1)
    weights, accepted = ais.log_weights(exact, x, plan(temperatures, exact), 10, 0, start)
    assert weights.shape == (10, count)
    assert 0.5 < accepted < 0.95
    # The backward chains of an image share their start.
    values = np.exp(sign * (weights.numpy() - exact.log_px(x))).mean(0)
    assert abs(z_score(values - 1)) < 4
    assert stats.sem(values) < 0.1


def test_bounds_enclose_log_px_and_approach_it_with_temperatures():
    exact, count, chains = model(), 150, 4
    x, z = exact.draw_both(count, seed=1)
    log_px, gaps = exact.log_px(x), []
    for temperatures in (10, 40, 160):
        fixed = (plan(temperatures, exact), chains, 0)
        below = log_px - iwae_bound(ais.log_weights(exact, x, *fixed)[0]).numpy()
        above = -iwae_bound(-ais.log_weights(exact, x, *fixed, z)[0]).numpy() - log_px
        assert z_score(below) > -3
        assert z_score(above) > -3
        gaps.append(below + above)
    assert all(z_score(wide - narrow) > 3 for wide, narrow in pairwise(gaps))
    assert gaps[-1].mean() < 0.3 < 0.7 < gaps[0].mean()
    # With the most temperatures the estimate is log p(x) within its error.
    assert abs(below.mean()) < 0.1


def test_chains_do_not_depend_on_how_many_images_there_are():
    exact = model()
    x, z = exact.draw_both(70)
    for start in (None, z):
        whole, _ = ais.log_weights(exact, x, plan(5, exact), 3, 0, start)
        for count in (1, 50, 60):
            some = None if start is None else start[:count]
            part, _ = ais.log_weights(exact, x[:count], plan(5, exact), 3, 0, some)
            np.testing.assert_allclose(part, whole[:, :count], rtol=1e-4)
        other, _ = ais.log_weights(exact, x, plan(5, exact), 3, 1, start)
        assert len(np.unique([whole, other])) == 2 * whole.numel()


def test_steps_are_tuned_to_the_acceptance():
    exact = model()
    tuned = ais.tuned(exact, exact.draw(25, seed=3), 200, 5, 0)
    assert tuned.leapfrog == 5
    assert len(tuned.steps) == len(tuned.betas) == 201
    _, accepted = ais.log_weights(exact, exact.draw(40), tuned, 4, 0)
    assert accepted == pytest.approx(ais.ACCEPTANCE, abs=0.05)


# The stages, on a VAE with two latent dimensions, whose log p(x) is summed over a grid.


@pytest.fixture(scope="module")
def vae(untrained) -> VAE:
    """A VAE whose posteriors are far narrower than the prior and have other shapes than q(z|x)."""
    net = untrained()
    net.decoder.output.weight.mul_(2)
    net.encoder.output.bias[2:] -= 3
    return net


@torch.inference_mode()
def by_quadrature(net: VAE, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """log p(x) for images [N, 784], by the sum over a grid of z."""
    line = torch.linspace(-5, 5, 201)
    z = torch.cartesian_prod(line, line)
    logits = net.decoder(z).double()
    log_joint = torch.from_numpy(x).double() @ logits.T - softplus(logits).sum(-1)
    log_joint -= z.square().sum(-1) / 2 + math.log(2 * math.pi)
    return (torch.logsumexp(log_joint, 1) + 2 * math.log(float(line[1] - line[0]))).numpy()


def test_every_estimate_of_a_vae_agrees_with_quadrature(scored, vae, small_sets):
    words = ("--images", 25, "--samples", 500, "--points", 4096, "--steps", 50)
    words += ("--temperatures", 100)
    metrics, terms = scored("inference_gap", vae, *words, sets=("train", "test"))
    x = model_inputs(small_sets[2], "dynamic")
    log_px = by_quadrature(vae, inference_gap.shuffled(x, 25, 0, "test")[0])
    np.testing.assert_allclose(terms["log_px"], log_px, atol=0.05)
    assert abs(terms["log_px"] - log_px).mean() < 0.002
    assert metrics["qmc_error"] < 0.001

    encoder, best, ais_error = (
        log_px - terms["elbo"] - terms[f"{name}_minus_elbo"]
        for name in ("iwae_10", "optimised_iwae_500", "ais")
    )
    assert z_score(encoder) > 4
    np.testing.assert_allclose(best.mean(), 0, atol=0.05)
    assert -0.5 < ais_error.mean() < 2
    simulated = by_quadrature(vae, ais.simulate(vae, ais.SIMULATED, 0)[0])
    assert z_score(simulated - terms["simulated_lower"]) > -3
    assert z_score(terms["simulated_upper"] - simulated) > -3
    assert -0.5 < metrics["simulated_gap"] < 4
    assert 0.4 < metrics["acceptance"] < 0.9

    for name in ("", "train_"):
        gap, *parts = (
            terms[f"{name}{part}gap"] for part in ("", "approximation_", "amortisation_")
        )
        np.testing.assert_allclose(gap, terms[f"{name}log_px"] - terms[f"{name}elbo"])
        np.testing.assert_allclose(gap, sum(parts))
        assert min(z_score(part) for part in parts) > 4
    means = [terms[f"{name}amortisation_gap"].mean() for name in ("", "train_")]
    assert metrics["overfitting"] == pytest.approx(means[0] - means[1], rel=1e-4)
    assert (metrics["images"], metrics["is_log_likelihood"]) == (25, 1)


def test_simulated_images_are_draws_of_the_model(vae):
    x, z = ais.simulate(vae, 400, 0)
    assert set(np.unique(x)) == {0, 1}
    assert abs(z.mean()) < 4 / math.sqrt(z.size)
    assert z.std() == pytest.approx(1, abs=0.15)
    means = vae.mean(torch.from_numpy(z)).numpy()
    error = (x - means).sum() / math.sqrt((means * (1 - means)).sum())
    assert abs(error) < 4
    assert not np.array_equal(ais.simulate(vae, 400, 1)[1], z)
