"""Evaluation on a model whose log p(x), ELBO and sampling noise are known in closed form."""

import math

from aevb.evaluation import bound_metrics, evaluate, mean_kl_per_dimension
from linear_gaussian import D, K, S, model, z_score

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

torch.set_num_threads(1)


def about(samples: int) -> dict:
    """The metadata of an evaluation."""
    setting = {"likelihood": "bernoulli", "binarisation": "dynamic"}
    return {**setting, "evaluate": {"iwae_k": samples}}


@pytest.mark.parametrize("samples", [1, 2, 100, 101, 250])
def test_with_the_exact_posterior_every_bound_is_log_px(samples):
    exact = model()
    x = exact.draw(130)
    terms = evaluate(exact, x, samples, seed=0)
    np.testing.assert_allclose(terms["iwae_bound"], exact.log_px(x), rtol=1e-5)
    # The ELBO's estimate has noise, since its KL is in closed form; its mean has not.
    np.testing.assert_allclose(exact.mean_log_px_given_z(x) - exact.kl(x), exact.log_px(x))
    metrics = bound_metrics(terms, about(samples))
    noise = math.sqrt((exact.noise(x) ** 2).mean() / samples / len(x))
    assert abs(metrics["elbo"] - exact.log_px(x).mean()) < 4 * noise
    assert metrics["iwae_bound"] == pytest.approx(exact.log_px(x).mean(), rel=1e-5)


def test_bounds_are_ordered_rise_with_k_and_converge():
    wrong = model(wrong=3)
    x = wrong.draw(1500)
    elbo = wrong.mean_log_px_given_z(x) - wrong.kl(x)
    log_px = wrong.log_px(x)
    one, ten, hundred, thousand = (
        evaluate(wrong, x, samples, seed=3)["iwae_bound"].astype(float)
        for samples in (1, 10, 100, 1000)
    )

    # With one sample the bound is the ELBO in the mean.
    assert abs(z_score(one - elbo)) < 4
    assert (elbo <= log_px).all()
    for gap in (ten - elbo, hundred - ten, thousand - hundred, log_px - hundred):
        assert z_score(gap) > 4
    assert z_score(log_px - thousand) > -4
    assert abs((log_px - thousand).mean()) < 0.05 < 1 < (log_px - ten).mean()


@pytest.mark.parametrize("samples", [1, 30, 100, 1000])
def test_elbo_is_met_within_its_sampling_noise(samples):
    wrong = model(wrong=1)
    x = wrong.draw(250)
    terms = evaluate(wrong, x, samples, seed=1)
    z = (terms["log_px_given_z"] - wrong.mean_log_px_given_z(x)) / wrong.noise(x)
    z *= math.sqrt(samples)
    assert abs(z.mean()) < 4 / math.sqrt(len(x))
    # Each draw counts once: noise used twice would show here.
    assert (z**2).mean() == pytest.approx(1, abs=4 * (z**2).std() / math.sqrt(len(x)))
    np.testing.assert_allclose(terms["kl"], wrong.kl(x), rtol=1e-5)
    np.testing.assert_allclose(terms["mu"], wrong.encode(torch.from_numpy(x))[0], rtol=1e-5)
    np.testing.assert_allclose(terms["log_var"], wrong.v.log().expand(250, K), rtol=1e-6)
    for name, values in terms.items():
        shape = (250, K) if name in ("mu", "log_var") else (250,)
        assert (values.shape, values.dtype) == (shape, np.float32), name


@pytest.mark.parametrize("samples", [1, 99, 100, 101, 250])
def test_as_many_samples_are_drawn_as_asked_for(samples):
    exact, drawn = model(), []
    score = exact.log_px_given_z

    def counted(x: Tensor, z: Tensor) -> Tensor:
        drawn.append((z[..., 0].numpy().copy(), len(x)))
        return score(x, z)

    exact.log_px_given_z = counted
    evaluate(exact, exact.draw(120), samples, seed=0)
    for count in (100, 20):
        z = np.concatenate([values for values, images in drawn if images == count])
        assert z.shape == (samples, count)
        assert len(np.unique(z)) == z.size


def test_standard_errors_have_nominal_coverage():
    """The mean over all x lies in the 95 % intervals of 95 % of sets of 40 images."""
    wrong = model(wrong=1)
    sets, size = 400, 40
    terms = evaluate(wrong, wrong.draw(sets * size, seed=5), 1, seed=0)
    # Expectations over x ~ N(b, C) of quadratic forms are traces.
    w, a, v, c = (wrong.w.numpy(), wrong.a.numpy(), wrong.v.numpy(), wrong.covariance)
    rest = np.eye(D) - w @ a
    distance = np.trace(rest @ c @ rest.T) + (v * (w**2).sum(0)).sum()
    truth = {"log_px_given_z": -distance / (2 * S**2) - D / 2 * math.log(2 * math.pi * S**2)}
    truth["kl"] = (np.trace(a @ c @ a.T) + (v - 1 - np.log(v)).sum()) / 2
    truth["elbo"] = truth["log_px_given_z"] - truth["kl"]
    truth["reconstruction_error"] = -truth["log_px_given_z"]
    width = stats.t(size - 1).ppf(0.975)
    metrics = [
        bound_metrics({name: x[start : start + size] for name, x in terms.items()}, about(1))
        for start in range(0, sets * size, size)
    ]
    for name, expected in truth.items():
        z = np.array([(row[name] - expected) / row[f"{name}_se"] for row in metrics])
        covered = int((abs(z) < width).sum())
        # Skewness costs up to two points of coverage at this size.
        low, high = stats.binom(sets, 0.93).ppf(1e-3), stats.binom(sets, 0.95).ppf(1 - 1e-3)
        assert low <= covered <= high, name


def test_noise_does_not_depend_on_how_many_images_are_evaluated():
    wrong = model(wrong=1)
    x = wrong.draw(250)
    finished: list[int] = []
    whole = evaluate(wrong, x, 120, 0, finished.append)
    assert sum(finished) == 250
    for count in (1, 100, 150):
        part = evaluate(wrong, x[:count], 120, seed=0)
        for name in whole:
            np.testing.assert_allclose(part[name], whole[name][:count], rtol=2e-6, err_msg=name)


def test_noise_is_of_its_image_and_its_seed():
    """The same image at each place has equal terms, apart from the noise."""
    wrong = model(wrong=1)
    x = np.repeat(wrong.draw(1), 250, 0)
    terms, again, other = (evaluate(wrong, x, 1, seed=seed) for seed in (0, 0, 1))
    for name, values in terms.items():
        np.testing.assert_array_equal(again[name], values)
    both = np.concatenate([terms["log_px_given_z"], other["log_px_given_z"]])
    assert len(np.unique(both)) > 490


def test_metrics_are_means_over_images_with_their_standard_errors():
    terms = evaluate(model(1), model(1).draw(130), 7, seed=0)
    metrics = bound_metrics(terms, about(7))
    expected = {name: terms[name].astype(float) for name in ("log_px_given_z", "kl", "iwae_bound")}
    expected["elbo"] = expected["log_px_given_z"] - expected["kl"]
    expected["reconstruction_error"] = -expected["log_px_given_z"]
    for name, values in expected.items():
        assert metrics[name] == pytest.approx(values.mean()), name
        assert metrics[f"{name}_se"] == pytest.approx(stats.sem(values)), name
    assert (metrics["iwae_k"], metrics["images"]) == (7, 130)
    per_dimension = mean_kl_per_dimension(terms["mu"], terms["log_var"])
    assert per_dimension.shape == (K,)
    assert per_dimension.sum() == pytest.approx(metrics["kl"], rel=1e-5)
    assert (per_dimension >= 0).all()
