"""src/research.py, and the comparison of what its stages found on all runs."""

import copy
import re
import subprocess
import sys
from pathlib import Path

from aevb.files import InputError, write_json
from aevb.research.compare import (
    STAGES,
    SUMMARY,
    above_the_elbo,
    as_markdown,
    noise_of_the_gradient,
    readable,
    summary,
    table,
)

import numpy as np
import pytest
from scipy import stats

SCRIPT = Path(__file__).parents[2] / "src" / "research.py"


def test_help_lists_the_stages_and_an_unknown_stage_is_one_line():
    shown, unknown = (
        subprocess.run([sys.executable, SCRIPT, word], capture_output=True, text=True, check=False)
        for word in ("--help", "ladder")
    )
    assert (shown.returncode, unknown.returncode) == (0, 2)
    listed = re.findall(r"^  (\w+) +[A-Z].*\.$", shown.stdout, re.MULTILINE)
    assert listed == sorted([*STAGES, "classify", "compare", "curves", "traverse"])
    assert unknown.stderr.startswith(
        "research.py: error: argument stage: invalid choice: 'ladder' "
    )
    assert len(unknown.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("stage", "images", "sets"),
    [
        ("gradient_variance", 101, ("test",)),
        ("inference_gap", 101, ("train", "test")),
        ("inference_gap", 0, ("train", "test")),
    ],
)
def test_too_few_test_images_and_values_out_of_range_are_an_error(
    scored, untrained, stage, images, sets
):
    with pytest.raises(InputError, match=rf"^--images {images}: the test set has 100 |^--images"):
        scored(stage, untrained(), "--images", images, sets=sets)


def cells(text: str) -> dict[str, list[str]]:
    """The numbers of each metric in a table in Markdown."""
    rows = [re.split(r" *\| *", line) for line in text.splitlines() if line.startswith("|")]
    return {row[2]: row[3:-1] for row in rows}


def test_a_number_has_the_digits_of_its_error():
    found = {
        (k, 0): {
            "inference_gap": {
                "elbo": -130.123456 + k,
                "elbo_se": 0.4567,
                "flat": 1.0,
                "flat_se": 0.0,
            },
            **({"latents": {"active_units": 3, "images": 10000}} if k == 3 else {}),
        }
        for k in (3, 20)
    }
    shown = cells(as_markdown(readable(table(found))))
    assert shown["elbo"] == ["-127.12 ± 0.46", "-110.12 ± 0.46"]
    assert shown["flat"] == ["1", "1"]
    assert (shown["active_units"], shown["images"]) == (["3", ""], ["10,000", ""])
    assert "elbo_se" not in shown


def test_over_seeds_every_number_has_an_interval():
    several = [3.0, 4.0, 6.5]
    found = {
        (20, seed): {"inference_gap": {"gap": value, "gap_se": 0.1, "images": 100}}
        for seed, value in enumerate(several)
    }
    frame = table(found)
    rows = frame[frame["seed"] == "all"].set_index("metric")
    mean, se = sum(several) / 3, stats.sem(several)
    expected = [mean, se, *stats.t.interval(0.95, 2, mean, se)]
    assert rows.loc["gap", ["value", "se", "low", "high"]].tolist() == pytest.approx(expected)
    text = as_markdown(readable(frame))
    assert cells(text)["gap"] == [f"{mean:.1f} [{expected[2]:.1f}, {expected[3]:.1f}]"]
    assert cells(text)["images"] == ["100"]
    assert "k = 20, all seeds" in text
    assert "±" not in text


@pytest.fixture
def found() -> dict:
    """The metrics that summary and figures use, all of one value, of two k with two seeds."""
    names = {name for text in SUMMARY.values() for name in re.findall(r"{(\w+\.\w+)}", text)}
    metrics: dict[str, dict[str, float]] = {stage: {} for stage in STAGES}
    for stage, metric in (name.split(".") for name in names):
        metrics[stage][metric] = 1.25
    found = metrics["inference_gap"] | {"is_log_likelihood": 1}
    for place, k in enumerate((1, 10, 100)):
        for prefix, height in (("", place / 2), ("optimised_", place)):
            found[f"{prefix}iwae_{k}_minus_elbo"] = height
            found[f"{prefix}iwae_{k}_minus_elbo_se"] = 0.1
    metrics["inference_gap"] = found | {"ais_minus_elbo": 3.0, "ais_minus_elbo_se": 0.5}
    metrics["gradient_variance"] |= {
        "variance_reparametrised": 9.0,
        "variance_score": 4e4,
        "variance_baseline": 100.0,
        "squared_norm_reparametrised": 25.0,
    }
    runs = {(k, seed): copy.deepcopy(metrics) for k in (3, 20) for seed in (0, 1)}
    for seed in (0, 1):
        runs[3, seed]["inference_gap"] |= {"qmc_minus_elbo": 4.0, "qmc_minus_elbo_se": 0.1}
    return runs


def test_the_summary_has_the_metrics_of_each_run(found):
    rows = summary(readable(table({(k, 4): found[k, 0] for k in (3, 20)}))).splitlines()
    assert re.findall(r"k = .*?seed 4", rows[0]) == ["k = 3, seed 4", "k = 20, seed 4"]
    for row, cell in zip(rows[2:], SUMMARY.values(), strict=False):
        assert row.count("1.25") == 2 * cell.count("{")
    assert "k = 3, all seeds" in summary(readable(table(found)))


def test_an_unsuitable_likelihood_is_marked(found):
    assert "†" not in summary(readable(table(found)))
    found[3, 0]["inference_gap"]["is_log_likelihood"] = 0
    one = {(3, 0): found[3, 0]}
    assert "† The likelihood does not suit" in summary(readable(table(one)))


def test_bounds_are_drawn_above_the_elbo(found):
    figure = above_the_elbo(readable(table(found)))
    for axis, qmc in zip(figure.axes, ([4], []), strict=True):
        drawn = [line.get_ydata() for line in axis.lines if line.get_marker() == "o"]
        np.testing.assert_array_equal(drawn, [[0, 0.5, 1], [0, 1, 2]])
        heights = [line.get_ydata()[0] for line in axis.lines if line.get_xdata()[-1] == 1]
        assert sorted(heights) == [3, *qmc]
    assert len(figure.legends[0].get_texts()) == 4


def test_the_noise_of_a_gradient_falls_with_the_root_of_its_draws(found):
    panels = noise_of_the_gradient(readable(table(found))).axes
    assert [axis.get_title() for axis in panels] == ["k = 3, all seeds", "k = 20, all seeds"]
    for axis in panels:
        heights = {line.get_label(): list(line.get_ydata()) for line in axis.lines}
        assert heights["score function"] == pytest.approx([200, 200 / 1000**0.5])
        assert heights["reparametrised"] == pytest.approx([3, 3 / 1000**0.5])
        assert heights["norm of the gradient"] == pytest.approx([5, 5])


def test_compare_reads_the_runs_that_are_named(tmp_path, run_research, found):
    found[3, 0]["gradient_variance"]["squared_norm_reparametrised"] = -1.0
    for seed in (0, 1, 2):
        for stage in STAGES:
            write_json(tmp_path / stage / f"k3-seed{seed}.json", found[3, 0][stage])
    words = ("--results", tmp_path, "--output", tmp_path / "out", "--latent_dims", 3)
    run_research("compare", *words, "--seeds", 0, 1)
    names = {"table.csv", "table.md", "summary.md", "bounds.png", "gradient_variance.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    lines = (tmp_path / "out" / "table.csv").read_text().splitlines()
    assert [line.split(",")[3] for line in lines if "variance_score" in line] == ["0", "1", "all"]
