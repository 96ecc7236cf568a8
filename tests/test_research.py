"""The findings on all runs side by side: every number once, with the digits that it has."""

import re

import numpy as np
import pytest
from scipy import stats

from aevb.report.figures import save_figure
from aevb.research import (
    ALL,
    SENTENCES,
    above_the_elbo,
    as_markdown,
    findings,
    noise_of_the_gradient,
    observations,
    over_seeds,
)

FOUND = {
    (k, 0): {
        "ladder": {"elbo": -130.123456 + k, "elbo_se": 0.4567, "ess_1": 1.0, "ess_1_se": 0.0},
        "ais": {"log_px_minus_elbo": 3.0 + k, "log_px_minus_elbo_se": 0.1, "images": 100},
        **({"latents": {"active_units": 3}} if k == 3 else {}),
    }
    for k in (3, 20)
}


def ladder(k: int) -> dict:
    """Bounds that rise by k / 10 from rung to rung, above ELBOs that differ much more."""
    elbo = np.random.default_rng(k).normal(-100, 30, 50)
    rungs = np.array([1, 10, 100])
    bounds = elbo[:, None] + k / 10 * np.arange(3)
    return {
        "k": rungs,
        "log_px_given_z": (elbo + 9).astype(np.float32),
        "kl": np.full(50, 9, np.float32),
        "iwae_bound": bounds.astype(np.float32),
    }


def test_every_number_stands_once_beside_its_error():
    table = findings(FOUND)
    rows = table.set_index(["stage", "metric", "latent_dim"])
    assert rows.loc[("ladder", "elbo", 20), "value"] == pytest.approx(-110.123456)
    assert rows.loc[("ladder", "elbo", 20), "se"] == pytest.approx(0.4567)
    assert np.isnan(rows.loc[("ais", "images", 3), "se"])
    assert not table["metric"].str.endswith("_se").any()
    assert len(table) == 2 * 4 + 1


def test_a_number_has_the_digits_of_its_error():
    text = as_markdown(findings(FOUND))
    lines = {line.split("|")[2].strip(): line.split("|")[3:5] for line in text.splitlines()[2:-2]}
    assert [cell.strip() for cell in lines["elbo"]] == ["-127.12 ± 0.46", "-110.12 ± 0.46"]
    assert [cell.strip() for cell in lines["ess_1"]] == ["1.00 ± 0.00", "1.00 ± 0.00"]
    assert [cell.strip() for cell in lines["active_units"]] == ["3", ""]


def test_over_seeds_every_number_has_an_interval():
    values = [3.0, 4.0, 6.5]
    found = {
        (k, seed): {
            "ais": {"gap": k + value, "gap_se": 0.1, "images": 100, "units": seed, "real": 0.9}
        }
        for k in (3, 20)
        for seed, value in enumerate(values)
    }
    summary = over_seeds(found)
    assert list(summary) == [(3, ALL), (20, ALL)]
    low, high = stats.t.interval(0.95, 2, 20 + np.mean(values), stats.sem(values))
    metrics = summary[20, ALL]["ais"]
    assert metrics["gap"] == pytest.approx((low + high) / 2)
    assert metrics["gap_se"] == pytest.approx((high - low) / 2)
    assert (metrics["units"], metrics["images"], metrics["real"]) == (1, 100, 0.9)
    assert not {"images_se", "real_se"} & metrics.keys()
    text = as_markdown(findings(summary))
    assert "k = 20, all seeds" in text
    assert f"{20 + np.mean(values):.1f} ± {(high - low) / 2:.1f}" in text
    assert "Student's t" in text
    assert "Student's t" not in as_markdown(findings(FOUND))


def stages(value: float) -> dict:
    """Metrics of all stages, as many as the sentences ask for, all of one value."""
    names = {name for text in SENTENCES.values() for name in re.findall(r"{(\w+\.\w+)}", text)}
    found: dict = {}
    for stage, metric in (name.split(".") for name in names):
        found.setdefault(stage, {})[metric] = value
    return found


def test_sentences_are_made_of_the_metrics_of_each_run():
    said = observations({(3, 0): stages(1.25), (20, 4): stages(2.5)})
    assert said.count("At k = 3, seed 0,") == said.count("At k = 20, seed 4,") == len(SENTENCES)
    named = sum(text.count("{") - 1 for text in SENTENCES.values())
    assert said.count("1.25") == len(re.findall(r"(?<!\d)2\.5", said)) == named
    assert "At k = 3, all seeds," in observations(
        over_seeds({(3, s): stages(s + 0.5) for s in (0, 1)})
    )


def test_bounds_are_drawn_above_the_elbo_of_the_same_images(tmp_path):
    ladders = {run: ladder(run[0]) for run in FOUND}
    axis = above_the_elbo(FOUND, ladders).axes[0]
    drawn = {float(line.get_ydata()[-1]): line for line in axis.lines if line.get_marker() == "o"}
    assert sorted(drawn) == pytest.approx([0.6, 4.0], abs=1e-4)
    for k, line in zip((3, 20), (drawn[key] for key in sorted(drawn)), strict=True):
        np.testing.assert_allclose(
            np.array(line.get_ydata(), float), k / 10 * np.arange(3), atol=1e-4
        )
    for name in ("a", "b"):
        save_figure(tmp_path / name, above_the_elbo(FOUND, ladders))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_noise_of_a_gradient_falls_with_the_root_of_its_draws(tmp_path):
    estimates = {
        "variance_reparametrised": 9.0,
        "variance_score": 4e4,
        "variance_baseline": 100.0,
        "squared_norm_reparametrised": 25.0,
    }
    found = {(k, seed): {"estimators": estimates} for k in (3, 20) for seed in (0, 1)}
    panels = noise_of_the_gradient(found).axes
    assert [axis.get_title() for axis in panels] == ["k = 3", "k = 20"]
    for axis in panels:
        heights = {line.get_label(): np.asarray(line.get_ydata(), float) for line in axis.lines}
        np.testing.assert_allclose(heights["score function"], [200, 200 / 1000**0.5])
        np.testing.assert_allclose(heights["reparametrised"], [3, 3 / 1000**0.5])
        np.testing.assert_allclose(heights["norm of the gradient"], 5)
        assert len(axis.lines) == 2 * 4
    one = {(3, 0): {"estimators": {**estimates, "squared_norm_reparametrised": -1.0}}}
    for name in ("a", "b"):
        save_figure(tmp_path / name, noise_of_the_gradient(one))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
