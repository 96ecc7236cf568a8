"""src/research.py, and the comparison of what its stages found on all runs."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from aevb.files import InputError, write_json, write_tensors
from aevb.research.compare import (
    ALL,
    REMAINDER,
    SENTENCES,
    STAGES,
    above_the_elbo,
    as_markdown,
    discussion,
    noise_of_the_gradient,
    over_seeds,
    table,
)

SCRIPT = Path(__file__).parents[2] / "src" / "research.py"

FOUND = {
    (k, 0): {
        "iwae": {"elbo": -130.123456 + k, "elbo_se": 0.4567, "ess_1": 1.0, "ess_1_se": 0.0},
        "ais": {"log_px_minus_elbo": 3.0 + k, "log_px_minus_elbo_se": 0.1, "images": 10000},
        **({"latents": {"active_units": 3}} if k == 3 else {}),
    }
    for k in (3, 20)
}


def bounds(k: int) -> dict:
    """Bounds that rise by k / 10 at each K, above ELBOs that differ much more."""
    elbo = np.random.default_rng(k).normal(-100, 30, 50)
    return {
        "k": np.array([1, 10, 100]),
        "log_px_given_z": (elbo + 9).astype(np.float32),
        "kl": np.full(50, 9, np.float32),
        "iwae_bound": (elbo[:, None] + k / 10 * np.arange(3)).astype(np.float32),
    }


def test_help_lists_the_stages_and_an_unknown_stage_is_one_line():
    shown, unknown = (
        subprocess.run([sys.executable, SCRIPT, word], capture_output=True, text=True, check=False)
        for word in ("--help", "ladder")
    )
    assert (shown.returncode, unknown.returncode) == (0, 2)
    listed = re.findall(r"^  (\w+) +[A-Z].*\.$", shown.stdout, re.MULTILINE)
    assert listed == sorted([*STAGES, "classify", "compare", "traverse"])
    assert unknown.stderr.startswith(
        "research.py: error: argument stage: invalid choice: 'ladder' "
    )
    assert len(unknown.stderr.splitlines()) == 1


@pytest.mark.parametrize(("stage", "images"), [("iwae", 101), ("ais", 76), ("iwae", 0)])
def test_too_few_test_images_and_values_out_of_range_are_an_error(scored, untrained, stage, images):
    with pytest.raises(InputError, match=rf"^--images {images}: the test set has 100 |^--images"):
        scored(stage, untrained(), "--images", images)


def test_a_number_has_the_digits_of_its_error():
    rows = [re.split(r" *\| *", line) for line in as_markdown(table(FOUND)).splitlines()]
    cells = {row[2]: row[3:5] for row in rows if len(row) == 6}
    assert cells["elbo"] == ["-127.12 ± 0.46", "-110.12 ± 0.46"]
    assert cells["ess_1"] == ["1.00 ± 0.00", "1.00 ± 0.00"]
    assert cells["active_units"] == ["3", ""]
    assert cells["images"] == ["10,000", "10,000"]
    assert not any(name.endswith("_se") for name in cells)


def test_over_seeds_every_number_has_an_interval():
    several = [3.0, 4.0, 6.5]
    found = {
        (20, seed): {"ais": {"gap": value, "gap_se": 0.1, "images": 100, "units": seed}}
        for seed, value in enumerate(several)
    }
    summary = over_seeds(table(found))
    assert set(summary["seed"]) == {ALL}
    mean = np.mean(several)
    low, high = stats.t.interval(0.95, 2, mean, stats.sem(several))
    rows = summary.set_index("metric")
    assert rows.loc["gap", ["value", "low", "high"]].tolist() == pytest.approx([mean, low, high])
    assert rows.loc[["units", "images"], "value"].tolist() == [1, 100]
    assert rows["low"].isna().tolist() == [False, True, False]
    assert rows["se"].isna().all()
    text = as_markdown(summary)
    assert f"{mean:.1f} [{low:.1f}, {high:.1f}]" in text
    assert "k = 20, all seeds" in text
    assert "Student's t" in text
    assert "±" not in text


def stages(value: float) -> dict:
    """The metrics that the sentences use, all of one value."""
    texts = [*SENTENCES.values(), *REMAINDER.values()]
    names = {name for text in texts for name in re.findall(r"{(\w+\.\w+)}", text)}
    found: dict = {}
    for stage, metric in (name.split(".") for name in names):
        found.setdefault(stage, {})[metric] = value
    return found


def test_the_discussion_has_the_metrics_of_each_run():
    said = discussion(table({(3, 0): stages(1.25), (20, 4): stages(2.5)}))
    assert said.count("At k = 3, seed 0,") == said.count("At k = 20, seed 4,") == len(SENTENCES)
    assert said.count("1.25") == len(re.findall(r"(?<!\d)2\.5(?!\d)", said)) > 20


@pytest.mark.parametrize(
    ("stage", "metric", "good", "bad", "mark"),
    [
        ("latents", "mutual_information", 7.7, 9.2, "is not a distance"),
        ("iwae", "is_log_likelihood", 1, 0, "† The likelihood does not suit"),
    ],
)
def test_saturated_information_and_an_unsuitable_likelihood_are_marked(
    stage, metric, good, bad, mark
):
    for value in (good, bad):
        found = stages(9.2)
        found.setdefault(stage, {})[metric] = value
        assert (mark in discussion(table({(20, 0): found}))) == (value == bad)


def test_bounds_are_drawn_above_the_elbo_of_the_same_images():
    all_bounds = {run: bounds(run[0]) for run in FOUND}
    axis = above_the_elbo(FOUND, all_bounds).axes[0]
    drawn = {float(line.get_ydata()[-1]): line for line in axis.lines if line.get_marker() == "o"}
    assert sorted(drawn) == pytest.approx([0.6, 4.0], abs=1e-4)
    for k, height in zip((3, 20), sorted(drawn), strict=True):
        heights = np.array(drawn[height].get_ydata(), float)
        np.testing.assert_allclose(heights, k / 10 * np.arange(3), atol=1e-4)


ESTIMATES = {
    "variance_reparametrised": 9.0,
    "variance_score": 4e4,
    "variance_baseline": 100.0,
    "squared_norm_reparametrised": 25.0,
}


def test_the_noise_of_a_gradient_falls_with_the_root_of_its_draws():
    found = {(k, seed): {"gradient_variance": ESTIMATES} for k in (3, 20) for seed in (0, 1)}
    panels = noise_of_the_gradient(found).axes
    assert [axis.get_title() for axis in panels] == ["k = 3", "k = 20"]
    for axis in panels:
        heights = {line.get_label(): np.asarray(line.get_ydata(), float) for line in axis.lines}
        np.testing.assert_allclose(heights["score function"], [200, 200 / 1000**0.5])
        np.testing.assert_allclose(heights["reparametrised"], [3, 3 / 1000**0.5])
        np.testing.assert_allclose(heights["norm of the gradient"], 5)
        assert len(axis.lines) == 2 * 4


def test_compare_reads_the_runs_that_are_named(tmp_path, run_research):
    found = stages(1.25)
    found["gradient_variance"] |= ESTIMATES | {"squared_norm_reparametrised": -1.0}
    found["ais"] |= {"log_px_minus_elbo_se": 0.1}
    found["iwae"] = {"elbo": -100.0, "elbo_se": 1.0}
    for seed in (0, 1, 2):
        for stage in STAGES:
            write_json(tmp_path / stage / f"k3-seed{seed}.json", found[stage])
        path = tmp_path / f"iwae/k3-seed{seed}.safetensors"
        write_tensors(path, "iwae", bounds(3), {"latent_dim": 3, "seed": seed})
    words = ("--results", tmp_path, "--output", tmp_path / "out", "--latent_dims", 3)
    run_research("compare", *words, "--seeds", 0, 1)
    names = {"table.csv", "table.md", "discussion.md", "bounds.png", "gradient_variance.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    table = (tmp_path / "out" / "table.csv").read_text()
    assert all(f"elbo,3,{seed}," in table for seed in ("0", "1", ALL))
    assert "elbo,3,2," not in table
