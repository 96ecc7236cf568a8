"""Means and variances of the gradient estimators against closed forms and the definition."""

import math

from aevb.data import model_inputs
from aevb.files import InputError
from aevb.research.gradient_variance import (
    ESTIMATORS,
    gradient_metrics,
    gradients,
    ratio_with_error,
)
from linear_gaussian import D, LinearGaussian, S, model

import numpy as np
import pytest
import torch
from scipy import stats

torch.set_num_threads(1)

IMAGES, SAMPLES = 150, 3000


@pytest.fixture(scope="module", params=[1, 3], ids=["nearly right", "wrong"])
def case(request):
    """A model with a wrong encoder, images, and the estimates."""
    wrong = model(wrong=request.param)
    x = wrong.draw(IMAGES)
    return wrong, x, gradients(wrong, x, SAMPLES, seed=0)


def closed_forms(exact: LinearGaussian, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The gradient by mu, [N, k], and the variance of a draw of each estimator, [N, 3, k].

    With z = mu + √v ⊙ e and orthogonal columns of W, log p(x|z) = c + Σ_j a_j e_j − d_j e_j² / 2.
    The score is e_j / √v_j; its products with log p have moments of e up to the sixth.
    """
    residual = exact.residual(torch.from_numpy(x))
    a = (residual @ exact.w * exact.v.sqrt() / S**2).numpy()
    d = (exact.v * exact.w.square().sum(0) / S**2).numpy()
    v = exact.v.numpy()
    c = (-residual.square().sum(-1) / (2 * S**2) - D / 2 * math.log(2 * math.pi * S**2)).numpy()
    others = (a**2 + d**2 / 2).sum(-1, keepdims=True) - (a**2 + d**2 / 2)

    def by_score(baseline: np.ndarray) -> np.ndarray:
        mean = (c - baseline)[:, None] - (d.sum() - d) / 2  # of log p less what e_j adds to it
        second = 3 * a**2 + 15 / 4 * d**2 - 3 * d * mean + mean**2 + others
        return (second - a**2) / v

    slope = np.broadcast_to(d**2 / v, a.shape)
    variances = (slope, by_score(np.zeros(len(x))), by_score(exact.mean_log_px_given_z(x)))
    return a / np.sqrt(v), np.stack(variances, 1)


@pytest.mark.parametrize("place", range(3), ids=ESTIMATORS)
def test_means_and_variances_match_the_closed_forms(case, place):
    exact, x, terms = case
    gradient, variance = closed_forms(exact, x)
    z = (terms["mean"][:, place] - gradient) / np.sqrt(variance[:, place] / SAMPLES)
    assert abs(z.mean()) * math.sqrt(z.size) < 4
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    ratio = terms["variance"][:, place] / variance[:, place].sum(-1)
    assert abs(ratio.mean() - 1) < 4 * stats.sem(ratio)
    assert stats.sem(ratio) < 0.01


def test_estimates_depend_on_image_and_seed_but_not_on_how_they_are_split(monkeypatch):
    wrong = model(wrong=1)
    x = wrong.draw(130)
    all_of_them = gradients(wrong, x, 20, seed=2)
    with monkeypatch.context() as context:
        context.setattr("aevb.evaluation.DRAWS", 16)
        for name, values in gradients(wrong, x[:30], 20, seed=2).items():
            np.testing.assert_allclose(values, all_of_them[name][:30], rtol=1e-5, err_msg=name)
    twins = gradients(wrong, np.repeat(x[:1], 130, 0), 20, seed=2)
    assert len(np.unique(twins["mean"][:, 0, 0])) == 130
    assert not np.array_equal(gradients(wrong, x, 20, seed=3)["mean"], all_of_them["mean"])


def test_estimates_for_a_vae_follow_the_definition(untrained, small_sets, monkeypatch):
    """Draw by draw: gradients by backpropagation, the score from log q, a leave-one-out mean."""
    vae, samples, drawn = untrained(), 7, []
    log_px_given_z = vae.log_px_given_z

    def recorded(x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        drawn.append(z.detach())
        return log_px_given_z(x, z)

    x = torch.from_numpy(model_inputs(small_sets[2], "dynamic")[:3])
    with monkeypatch.context() as context:
        context.setattr(vae, "log_px_given_z", recorded)
        terms = gradients(vae, x.numpy(), samples, seed=5)
    mu, log_var = (tensor.detach().requires_grad_() for tensor in vae.encode(x))
    z = torch.cat(drawn).requires_grad_()
    log_px = vae.log_px_given_z(x, z)
    (slopes,) = torch.autograd.grad(log_px.sum(), z)
    log_q = torch.distributions.Normal(mu, torch.exp(log_var / 2)).log_prob(z.detach()).sum(-1)
    scores = torch.stack(
        [torch.autograd.grad(row.sum(), mu, retain_graph=True)[0] for row in log_q]
    )
    values = log_px.detach().unsqueeze(-1)
    others = (values.sum(0) - values) / (samples - 1)
    expected = torch.stack((slopes, values * scores, (values - others) * scores), 2).double()
    np.testing.assert_allclose(terms["mean"], expected.mean(0), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(terms["variance"], expected.var(0).sum(-1), rtol=1e-3)


def test_metrics_match_the_closed_forms(case):
    exact, x, terms = case
    gradient, variance = closed_forms(exact, x)
    total, norm = variance.sum(-1).mean(0), np.square(gradient).sum(-1)
    metrics = gradient_metrics(terms, SAMPLES)
    assert (metrics["images"], metrics["samples"]) == (IMAGES, SAMPLES)
    for place, name in enumerate(ESTIMATORS):
        expected = {
            f"variance_{name}": total[place],
            f"squared_norm_{name}": norm.mean(),
        }
        if place > 0:
            expected[f"variance_ratio_{name}"] = total[place] / total[0]
        for key, value in expected.items():
            error = 4 * metrics[f"{key}_se"]
            assert error >= 0
            assert metrics[key] == pytest.approx(value, rel=0.05, abs=error), key


def test_the_squared_norm_is_unbiased():
    """With four draws the noise of the mean is as large as the gradient itself."""
    wrong = model(wrong=3)
    x = wrong.draw(3000)
    metrics = gradient_metrics(gradients(wrong, x, 4, seed=0), 4)
    truth = np.square(closed_forms(wrong, x)[0]).sum(-1).mean()
    for name in ("reparametrised", "score"):
        error = metrics[f"squared_norm_{name}"] - truth
        assert abs(error) < 4 * metrics[f"squared_norm_{name}_se"]


def test_the_standard_error_of_a_ratio_is_right():
    random = np.random.default_rng(0)
    below = random.gamma(2, 1, (2000, 400))
    above = 3 * below + random.standard_normal(below.shape)
    found = [ratio_with_error("r", *pair) for pair in zip(above, below, strict=True)]
    z = np.array([(ratio["r"] - 3) / ratio["r_se"] for ratio in found])
    assert z.std() == pytest.approx(1, abs=0.06)


def test_a_decoder_that_ignores_z_is_one_error(untrained, scored):
    blind = untrained()
    blind.decoder.output.weight.zero_()
    with pytest.raises(InputError, match="is inf; train the model again"):
        scored("gradient_variance", blind, "--images", 5, "--samples", 10)


def test_the_stage_scores_the_first_images(untrained, scored, small_sets):
    model, x = untrained(), model_inputs(small_sets[2], "dynamic")[:20]
    metrics, terms = scored("gradient_variance", model, "--images", 20, "--samples", 300)
    np.testing.assert_allclose(terms["mean"], gradients(model, x, 300, 0)["mean"], atol=1e-2)
    assert (metrics["images"], metrics["samples"], metrics["is_log_likelihood"]) == (20, 300, 1)
    assert metrics["variance_ratio_score"] > metrics["variance_ratio_baseline"] > 1
