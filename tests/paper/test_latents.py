"""Active units, mutual information and KL: integrals, limits, closed forms and invariances."""

import math
from pathlib import Path

from aevb.data import fixed_draw, model_inputs
from aevb.files import InputError
from aevb.research.latents import above_prior, codes, information, log_aggregate_ratio
from aevb.research.scoring import read_inputs

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from sklearn.mixture import GaussianMixture

torch.set_num_threads(1)

HANDFUL = np.array([-1.5, -0.2, 0.0, 0.9, 2.0]), np.array([-1.0, -3.0, 0.5, 0.0, -2.0])
"""mu and log sigma² of five images in one dimension."""


def column(values: np.ndarray) -> np.ndarray:
    """Values as a latent of one dimension, float32 [N, 1]."""
    return values.astype(np.float32)[:, None]


def arbitrary(images: int, latent_dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Posteriors that partly overlap."""
    random = np.random.default_rng(3)
    mu = random.standard_normal((images, latent_dim), np.float32)
    return mu, random.uniform(-4, 1, mu.shape).astype(np.float32)


def integrals(mu: np.ndarray, log_var: np.ndarray) -> dict[str, np.ndarray]:
    """The terms of each image in one dimension, by quadrature."""
    posteriors = [stats.norm(m, math.exp(v / 2)) for m, v in zip(mu, log_var, strict=True)]

    def log_aggregate(z: float) -> float:
        return math.log(np.mean([q.pdf(z) for q in posteriors]))

    def mean(q: stats.rv_continuous, f: object) -> float:
        return quad(lambda z: q.pdf(z) * f(z), q.ppf(1e-15), q.ppf(1 - 1e-15), limit=200)[0]

    kl = [mean(q, lambda z, q=q: q.logpdf(z) - stats.norm.logpdf(z)) for q in posteriors]
    marginal = [mean(q, lambda z: log_aggregate(z) - stats.norm.logpdf(z)) for q in posteriors]
    mutual = [mean(q, lambda z, q=q: q.logpdf(z) - log_aggregate(z)) for q in posteriors]
    terms = {"kl": kl, "mutual_information": mutual, "marginal_kl": marginal}
    return {name: np.array(values) for name, values in terms.items()}


def test_terms_match_their_integrals():
    expected = integrals(*HANDFUL)
    runs = [information(*map(column, HANDFUL), 500, seed) for seed in range(20)]
    np.testing.assert_allclose(runs[0]["kl"], expected["kl"], rtol=1e-6)
    for name in ("mutual_information", "marginal_kl"):
        draws = np.array([terms[name] for terms in runs])
        error = draws.std(0, ddof=1) / math.sqrt(len(draws))
        assert (error < 0.02).all()
        assert (abs(draws.mean(0) - expected[name]) < 4.5 * error).all(), name


def test_the_residual_has_the_variance_of_monte_carlo_error():
    mu, log_var = arbitrary(400, 4)
    terms = information(mu, log_var, 7, seed=0)
    both = terms["mutual_information"] + terms["marginal_kl"]
    np.testing.assert_allclose(terms["kl_residual"], terms["kl"] - both, atol=1e-12)
    # log q(z|x) − log p(z) is quadratic in the noise: its variance has a closed form.
    var = np.exp(log_var.astype(float))
    variance = (mu.astype(float) ** 2 * var + (var - 1) ** 2 / 2).sum(1) / 7
    z = terms["kl_residual"] / np.sqrt(variance)
    assert abs(z.mean()) < 4 / math.sqrt(len(z))
    assert (z**2).mean() == pytest.approx(1, abs=4 * (z**2).std() / math.sqrt(len(z)))


@pytest.mark.parametrize("images", [1, 130])
def test_equal_posteriors_have_no_mutual_information(images):
    mu, log_var = arbitrary(1, 3)
    terms = information(np.repeat(mu, images, 0), np.repeat(log_var, images, 0), 6, seed=1)
    np.testing.assert_allclose(terms["mutual_information"], 0, atol=1e-12)


def test_mutual_information_of_separate_posteriors_is_log_n():
    count = 64
    mu = np.stack([np.arange(count), np.arange(count) % 5], 1).astype(np.float32)
    terms = information(mu, np.full_like(mu, -10), 2, seed=0)
    np.testing.assert_allclose(terms["mutual_information"], math.log(count), atol=1e-7)
    assert (information(*arbitrary(50, 6), 1, 0)["mutual_information"] <= math.log(50)).all()


def test_the_aggregate_posterior_is_a_mixture():
    mu, log_var = (torch.from_numpy(array).double() for array in arbitrary(50, 3))
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 6, 3)) * 3)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(50, dtype=torch.float64)),
        torch.distributions.Independent(torch.distributions.Normal(mu, (log_var / 2).exp()), 1),
    )
    prior = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    expected = mixture.log_prob(z) - prior.log_prob(z).sum(-1)
    actual = log_aggregate_ratio(z, mu, log_var)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)


def test_every_image_draw_and_seed_has_its_own_noise():
    mu, log_var = np.zeros((250, 1), np.float32), np.full((250, 1), 1.0, np.float32)
    one, again, other = (information(mu, log_var, 1, seed)["kl_residual"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert len(np.unique(np.concatenate([one, other]))) == 500
    spread = [information(mu, log_var, n, 2)["kl_residual"].std() for n in (1, 4, 25, 103)]
    np.testing.assert_allclose(spread, spread[0] / np.sqrt([1, 4, 25, 103]), rtol=0.3)
    part = information(mu[:130], log_var[:130], 1, 0)["kl_residual"]
    np.testing.assert_allclose(part, one[:130], rtol=1e-12)


def codes_of(mean: np.ndarray, covariance: np.ndarray, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).multivariate_normal(mean, covariance, count)


@pytest.mark.parametrize("scale", [0, 1])
def test_the_lower_bound_for_gaussian_codes_is_the_closed_form(scale):
    """For codes of N(0, I) it is 0; with few codes a flexible mixture lowers it."""
    mean, covariance = scale * np.array([1.0, -2, 0]), np.eye(3)
    covariance[0, 1] = covariance[1, 0] = 0.8 * scale
    kl = (mean @ mean + np.trace(covariance) - 3 - np.linalg.slogdet(covariance)[1]) / 2
    training, test = (codes_of(mean, covariance, 20000, seed) for seed in (0, 1))
    bound = above_prior(GaussianMixture(2, random_state=0).fit(training), test)
    # Each of the 19 free parameters of the mixture costs about 1 / 2N nats.
    assert bound.mean() == pytest.approx(kl, abs=4 * stats.sem(bound) + 1e-3)
    flexible = above_prior(GaussianMixture(30, random_state=0).fit(training[:500]), test)
    assert flexible.mean() < kl


def test_codes_are_draws_of_their_posteriors():
    mu, log_var = arbitrary(20000, 2)
    eps = (codes(mu, log_var, "test", 0) - mu) / np.exp(log_var / 2)
    assert stats.kstest(eps.ravel(), "norm").pvalue > 1e-3


def test_too_few_training_images_are_an_error(scored, untrained):
    with pytest.raises(InputError, match=r"^--components 301: there are 300 training images"):
        scored("latents", untrained(), "--components", 301, sets=("train", "test"))


def test_training_images_have_the_static_draw_of_training(
    research_inputs, untrained, small_sets, set_files
):
    _, model, _, test = research_inputs(untrained(), "test")
    found = read_inputs("any", Path(model), Path(test)).training_images(set_files / "train")
    expected = fixed_draw(small_sets[0].images, "train", 0).reshape(-1, 784)
    np.testing.assert_array_equal(found, expected)


def test_the_stage_writes_metrics_of_its_arrays(scored, untrained, small_sets):
    words = ("--samples", 3, "--threshold", 0.02, "--components", 3)
    metrics, arrays = scored("latents", untrained(3), *words, sets=("train", "test"))
    assert metrics["images"] == 100
    both = metrics["mutual_information"] + metrics["marginal_kl"] + metrics["kl_residual"]
    assert metrics["kl"] == pytest.approx(both, abs=1e-5)
    residual = arrays["kl_residual"]
    assert metrics["kl_residual_se"] == pytest.approx(stats.sem(residual), rel=1e-5)
    x = torch.from_numpy(model_inputs(small_sets[2], "dynamic"))
    mu, _ = encoded = [each.numpy() for each in untrained(3).encode(x)]
    np.testing.assert_allclose(arrays["unit_variances"], mu.var(0, ddof=1), rtol=1e-3)
    assert metrics["active_units"] == (arrays["unit_variances"] > 0.02).sum() < 3
    # Untrained, q(z|x) hardly depends on x, so one Gaussian is the aggregate posterior.
    assert metrics["marginal_kl_lower"] == pytest.approx(metrics["marginal_kl"], abs=0.1)
    z = arrays["mixture_z"]
    assert z.shape == mu.shape
    assert stats.ks_2samp(z.ravel(), codes(*encoded, "test", 0).ravel()).pvalue > 1e-3
