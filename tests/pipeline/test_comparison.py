"""Tables, discussion and figures of runs with known numbers."""

from itertools import product

from aevb.plumbing.params import Model, Train
from aevb.report import tables
from aevb.report.comparison import FIGURES, STUDY_FIGURES
from aevb.report.figures import show
from aevb.report.runs import Models, Run, setting
from stages import run_or_raise

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

N = 400


def a_run(k: int, seed: int = 0, variant: str = "", gain=0, cost=0, epochs=3, **facts) -> Run:
    """A run with random results, of which some are changed by `facts`.

    The difference between images is larger than the difference between models. The reconstruction
    term is higher by `gain` than that of other runs, the KL term by `cost`.
    """
    random = np.random.default_rng([k, seed])
    images = np.random.default_rng(0).normal(-120, 30, N)
    terms = {
        "log_px_given_z": images + gain + stats.zscore(random.normal(0, 1, N)),
        "kl": 9 + cost + random.normal(0, 0.1, N),
    }
    terms["elbo"] = terms["log_px_given_z"] - terms["kl"]
    terms["iwae_bound"] = terms["elbo"] + 2 + random.normal(0, 0.5, N)
    metrics = {"iwae_k": 50, "images": N, "is_log_likelihood": facts.get("is_log_likelihood", 1)}
    for name, values in (*terms.items(), ("reconstruction_error", -terms["log_px_given_z"])):
        metrics |= {name: float(values.mean()), f"{name}_se": float(stats.sem(values))}
    epoch = np.arange(1.0, epochs + 1)
    history = pd.DataFrame({"epoch": epoch, "learning_rate": 0.1 / epoch.clip(2)})
    for half, term in product(("train", "validation"), ("elbo", "log_px_given_z", "kl")):
        values = random.standard_normal(epochs).cumsum()
        history[f"{half}_{term}"] = values if facts.get(half, True) else values * np.nan
    evaluation = {
        **terms,
        "mu": random.standard_normal((N, k), np.float32),
        "kl_per_dimension": np.linspace(0.001, 2.5, k, dtype=np.float32),
        "labels": (np.arange(N) % 10).astype(np.uint8),
    }
    pixels = random.random((4, 784), np.float32)
    samples = {"means": pixels, "draws": pixels}
    decoded = {"originals": 0 * pixels, "inputs": pixels, "reconstructions": pixels / 2}
    metadata = {**Model().model_dump(), **Train(device="cpu").model_dump()}
    metadata |= {"latent_dim": k, "seed": seed, "data": {"name": "kmnist"}, "train_images": 100}
    metadata |= {"likelihood": "continuous_bernoulli", "best_epoch": min(2, epochs)}
    metadata["binarisation"] = facts.get("binarisation", "dynamic")
    return Run(k, seed, metrics, history, evaluation, samples, decoded, metadata, variant)


def models(*runs: Run) -> Models:
    """Runs by the names that `read_models` gives to their models."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(f"{run.variant}, k = {run.latent_dim}".strip(", "), []).append(run)
    return found


def mean_change(run: Run, reference: Run, term: str = "elbo") -> np.ndarray:
    return run.evaluation[term] - reference.evaluation[term]


def interval(values, sign: str = "") -> str:
    """Mean and 95 % interval by Student's t, as scipy computes it."""
    mean = np.mean(values)
    low, high = stats.t.interval(0.95, len(values) - 1, mean, stats.sem(values))
    return f"{mean:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"


# Tables and discussion


def test_several_seeds_of_each_variant_add_their_mean_its_error_and_their_deviation():
    gains = {"a": 0, "b": 30}
    runs = [
        a_run(k, seed, variant, gain=gains[variant] + seed**2)
        for variant, k, seed in product(gains, (3, 20), range(3))
    ]
    table = tables.table(models(*runs))
    assert len(table) == 2 * (6 + 2)
    text = tables.as_markdown(table)
    for run in runs:
        assert f"{run.metrics['elbo']:.2f} ± {run.metrics['elbo_se']:.2f}" in text
    for name, k in product(gains, (3, 20)):
        elbos = [r.metrics["elbo"] for r in runs if (r.variant, r.latent_dim) == (name, k)]
        row = table.query("variant == @name and latent_dim == @k and seed == 'all'").iloc[0]
        low, high = stats.t.interval(0.95, 2, np.mean(elbos), stats.sem(elbos))
        expected = [np.mean(elbos), stats.sem(elbos), np.std(elbos, ddof=1), low, high]
        found = row[["elbo", "elbo_se", "elbo_sd", "elbo_low", "elbo_high"]].tolist()
        assert found == pytest.approx(expected)
        assert f"{expected[0]:.2f} ({expected[2]:.2f})" in text
        assert f"[{low:.2f}, {high:.2f}]" in text
    assert "standard deviation over seeds" in text
    changes = tables.differences(models(*runs))
    assert changes["variant"].tolist() == 4 * ["a"] + 4 * ["b"]
    assert "sd" not in tables.as_markdown(tables.table(models(runs[0])))


@pytest.mark.parametrize("is_log_likelihood", [0, 1])
def test_every_number_that_is_not_a_log_likelihood_is_marked(is_log_likelihood):
    runs = models(*(a_run(3, seed, is_log_likelihood=is_log_likelihood) for seed in (0, 1)))
    texts = tables.texts(runs)
    rows = [line for line in texts["table.md"].splitlines() if line.startswith("| 3")]
    assert {row.count("†") for row in rows} == {0 if is_log_likelihood else 5}
    for text in (texts["table.md"].rpartition("|")[2], texts["discussion.md"], setting(runs)):
        assert ("†" in text) == (not is_log_likelihood)
    assert ("IWAE bound" in texts["discussion.md"]) == is_log_likelihood


def test_differences_are_those_of_the_same_images():
    first, *others = a_run(3), a_run(20, gain=50, cost=17.5), a_run(5, gain=1, cost=-3)
    texts = tables.texts(models(first, *others))
    table = tables.differences(models(first, *others))
    assert table["latent_dim"].tolist() == 4 * [20] + 4 * [5]
    for row in table.itertuples():
        other = next(run for run in others if run.latent_dim == row.latent_dim)
        change = mean_change(other, first, row.term)
        assert (row.difference, row.se) == pytest.approx((change.mean(), stats.sem(change)))
        assert row.se < 0.1  # about 2 for independent images
        assert interval(change, "+") in texts["differences.md"]
        assert (interval(change, "+") in texts["discussion.md"]) == (row.term != "iwae_bound")
    for run in (first, *others):
        assert f"The ELBO is {interval(run.evaluation['elbo'])}." in texts["discussion.md"]
        gap = run.evaluation["iwae_bound"] - run.evaluation["elbo"]
        assert f"higher by {interval(gap)}" in texts["discussion.md"]
    assert "offsets 35 % of the gain" in texts["discussion.md"]
    assert texts["discussion.md"].count("offsets") == 1


def test_differences_over_trainings_pair_their_seeds():
    runs = {k: [a_run(k, s, gain=10 * s + (k == 20) * s) for s in range(3)] for k in (3, 20)}
    pairs = [mean_change(*pair).mean() for pair in zip(runs[20], runs[3], strict=True)]
    for text in ("differences.md", "discussion.md"):
        found = tables.texts(models(*runs[3], *runs[20]))[text]
        assert interval(pairs, "+") in found
        assert "over trainings" in found
        assert "over test images" in tables.texts(models(runs[3][0], runs[20][0]))[text]
    assert "nothing to compare" in tables.texts(models(*runs[3]))["differences.md"]


def test_dimensions_and_epochs_are_counted():
    run = a_run(3)
    text = tables.discussion(models(run))
    assert "between 0.00 and 2.50, and over 0.01 in 2 of 3 dimensions" in text
    gap = run.history["train_elbo"][1] - run.history["validation_elbo"][1]
    assert "3 epochs; the weights are those of epoch 2, when" in text
    assert f"ELBO was {abs(gap):.2f} {'higher' if gap > 0 else 'lower'} than" in text
    text = tables.discussion(models(a_run(3, validation=False)))
    assert "weights are those of epoch 2. " in text


def test_variants_are_compared_on_one_scale_only():
    one, better = a_run(20, 0, "one"), a_run(20, 1, "better", gain=5)
    text = tables.discussion(models(one, better, a_run(20, 2, "foreign", is_log_likelihood=0)))
    change = interval(mean_change(better, one), "+")
    assert f"Compared with one, the ELBO of better differs by {change}." in text
    assert "No other variant is on the scale of foreign (not a log-likelihood †)." in text
    assert text.count("Compared") == 1
    two = [a_run(20, seed, name, binarisation="none") for seed, name in enumerate(("cb", "normal"))]
    two[1].metadata["likelihood"] = "gaussian"
    text = tables.discussion(models(*two))
    assert "on the scale of cb (log-density, continuous bernoulli)." in text
    assert "on the scale of normal (log-density, gaussian)." in text


# Figures


ONE = models(a_run(1, epochs=1, validation=False, binarisation="none"))
MANY = models(*(a_run(k, seed) for k in (2, 3, 20, 5) for seed in (4, 5)))
STUDY = models(
    *(
        a_run(k, s, name, epochs=n)
        for name, n in (("a", 3), ("b-2", 2))
        for k in (2, 20)
        for s in (4, 5)
    )
)


@pytest.mark.parametrize(
    ("name", "shown"),
    [*product(FIGURES, (ONE, MANY)), *product(STUDY_FIGURES, (STUDY,))],
)
def test_figures_name_all_runs(name, shown):
    figure = FIGURES[name](shown)
    texts = [item.get_text() for item in figure.findobj(lambda x: hasattr(x, "get_text"))]
    text = " ".join(" ".join(texts).split())
    names = [name for model in shown for name in model.split(", ")]
    for word in ("KMNIST", "Continuous Bernoulli", *names):
        assert word in text, word


@pytest.mark.parametrize("variants", [("", ""), ("a", "b")])
def test_learning_curves_show_every_epoch(variants):
    runs = [a_run(3, 0, variants[0], epochs=2), a_run(4, 0, variants[1], epochs=5)]
    axes = FIGURES["learning_curves"](models(*runs)).axes
    lines = [line for axis in axes for line in axis.lines]
    for run, half in product(runs, ("train", "validation")):
        curve = run.history[f"{half}_elbo"]
        (line,) = (line for line in lines if np.array_equal(line.get_ydata(), curve))
        assert line.get_xdata().tolist() == run.history["epoch"].tolist()
        assert line.get_markevery() == [1]  # the rate falls from 0.05 after the second epoch
        low, high = line.axes.get_ylim()
        assert low < curve.min()
        assert curve.max() < high


@pytest.mark.parametrize("seeds", [1, 3])
def test_bars_of_the_terms_have_their_errors(seeds):
    runs = [a_run(3, seed, gain=seed) for seed in range(seeds)]
    (axis,) = FIGURES["terms"](models(*runs)).axes
    (bars,) = (found for found in axis.containers if hasattr(found, "patches"))
    errors = [np.diff(segment[:, 1])[0] / 2 for segment in bars.errorbar.lines[2][0].get_segments()]
    for place, (name, sign) in enumerate({"log_px_given_z": -1, "kl": 1, "elbo": -1}.items()):
        values = [sign * run.metrics[name] for run in runs]
        assert bars[place].get_height() == pytest.approx(np.mean(values))
        error = np.std(values, ddof=1) if seeds > 1 else runs[0].metrics[f"{name}_se"]
        assert errors[place] == pytest.approx(error)


def test_a_mosaic_shows_every_image_once_in_black_on_white():
    images = np.zeros((3, 784), np.float32)
    images[2, 0] = 1
    axis = Figure().add_subplot()
    show(axis, images, columns=2)
    picture = axis.images[0].get_array()
    assert picture.shape == (58, 58)
    assert picture[30, 0] == 0
    assert picture.sum() == picture.size - 1


# The script


@pytest.mark.parametrize("variants", [[], ["a"], ["b", "a"]])
def test_the_script_compares_the_named_runs_only(variants, finished, tmp_path):
    """The experiment has k = 2 and 3."""
    for variant in variants:
        (tmp_path / variant).symlink_to(finished / "results")
    results = tmp_path if variants else finished / "results"
    words = ["--results", results, "--output", tmp_path / "out", "--latent_dims", 3, "--seeds", 0]
    run_or_raise("compare", *words, *(["--variants", *variants] if variants else []))
    assert {f"{name}.png" for name in (STUDY_FIGURES if variants else FIGURES)} == {
        path.name for path in (tmp_path / "out").glob("*.png")
    }
    table = pd.read_csv(tmp_path / "out/table.csv")
    assert table["latent_dim"].tolist() == [3] * len(variants or [""])
    named = table["variant"].tolist() if "variant" in table else []
    assert named == (variants if len(variants) > 1 else [])
