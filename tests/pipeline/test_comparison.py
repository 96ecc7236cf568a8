"""Tables, discussion and figures of runs with known numbers."""

import re
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats
from scipy.spatial.distance import pdist

from aevb.evaluation import bound_metrics
from aevb.files import write_csv, write_json, write_tensors
from aevb.report import tables
from aevb.report.comparison import FIGURES, STUDY_FIGURES, pushed_apart
from aevb.report.discussion import discussion
from aevb.report.figures import save_figure, show
from aevb.report.runs import TERMS, Run, files_of, principal_axes, setting
from stages import run_or_raise

N = 400


def a_run(
    latent_dim: int,
    seed: int = 0,
    gain: float = 0,
    cost: float = 0,
    is_log_likelihood: int = 1,
    epochs: int = 3,
    validated: bool = True,
    binarisation: str = "dynamic",
) -> Run:
    """A run with random results.

    The difference between images is larger than the difference between models. The reconstruction
    term is higher by `gain` than that of other runs, the KL term by `cost`.
    """
    images = np.random.default_rng(0).normal(0, 30, N)
    random = np.random.default_rng([latent_dim, seed])
    terms = {
        "log_px_given_z": images - 120 + gain + stats.zscore(random.normal(0, 1, N)),
        "kl": 9 + cost + random.normal(0, 0.1, N),
    }
    terms["elbo"] = terms["log_px_given_z"] - terms["kl"]
    terms["iwae_bound"] = terms["elbo"] + 2 + random.normal(0, 0.5, N)
    metrics = {name: float(values.mean()) for name, values in terms.items()}
    metrics |= {f"{name}_se": float(stats.sem(values)) for name, values in terms.items()}
    metrics["reconstruction_error"] = -metrics["log_px_given_z"]
    metrics |= {"is_log_likelihood": is_log_likelihood, "iwae_k": 50, "images": N}
    history = pd.DataFrame({"epoch": np.arange(1.0, epochs + 1), "learning_rate": 0.1})
    for half in ("train", "validation"):
        for term in ("elbo", "log_px_given_z", "kl"):
            values = random.standard_normal(epochs).cumsum()
            history[f"{half}_{term}"] = values if validated or half == "train" else np.nan
    pixels = random.random((4, 784), np.float32)
    evaluation = {
        **terms,
        "mu": random.standard_normal((N, latent_dim), np.float32),
        "kl_per_dimension": np.linspace(0.001, 2.5, latent_dim, dtype=np.float32),
        "labels": (np.arange(N) % 10).astype(np.uint8),
    }
    metadata = {
        "latent_dim": latent_dim,
        "seed": seed,
        "data": {"name": "kmnist"},
        "binarisation": binarisation,
        "likelihood": "continuous_bernoulli",
        "best_epoch": min(2, epochs),
        "train_images": 100,
    }
    reconstructions = {
        "originals": np.zeros_like(pixels),
        "inputs": pixels,
        "reconstructions": pixels / 2,
    }
    samples = {"means": pixels, "draws": pixels}
    return Run(latent_dim, seed, metrics, history, evaluation, samples, reconstructions, metadata)


def mean_change(run: Run, reference: Run, term: str = "elbo") -> np.ndarray:
    return run.evaluation[term] - reference.evaluation[term]


def interval(values) -> str:
    """Mean and 95 % interval by Student's t, as scipy computes it."""
    mean = np.mean(values)
    low, high = stats.t.interval(0.95, len(values) - 1, mean, stats.sem(values))
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


# Tables


def test_one_seed_gives_one_row_per_run():
    runs = [a_run(3), a_run(20)]
    table = tables.table({"": runs})
    assert table["elbo"].tolist() == [run.metrics["elbo"] for run in runs]
    cells = [f"{run.metrics['elbo']:.2f} ± {run.metrics['elbo_se']:.2f}" for run in runs]
    assert tables.readable(table)["ELBO"].tolist() == cells
    assert "sd" not in tables.as_markdown(table)


def test_several_seeds_of_each_variant_add_their_mean_its_error_and_their_deviation():
    variants = {
        name: [a_run(k, seed, gain=gain + seed**2) for k in (3, 20) for seed in range(3)]
        for name, gain in {"a": 0, "b": 30}.items()
    }
    table = tables.table(variants)
    assert len(table) == 2 * (6 + 2)
    text = tables.readable(table)
    for name, k in product(variants, (3, 20)):
        elbos = [run.metrics["elbo"] for run in variants[name] if run.latent_dim == k]
        row = table.query("variant == @name and latent_dim == @k and seed == 'all'").iloc[0]
        low, high = stats.t.interval(0.95, 2, np.mean(elbos), stats.sem(elbos))
        expected = [np.mean(elbos), stats.sem(elbos), np.std(elbos, ddof=1), low, high]
        found = row[["elbo", "elbo_se", "elbo_sd", "elbo_low", "elbo_high"]].tolist()
        assert found == pytest.approx(expected)
        cells = text[(text["variant"] == name) & (text["k"] == k)].set_index("seed")["ELBO"]
        assert cells["all, mean (sd)"] == f"{expected[0]:.2f} ({expected[2]:.2f})"
        assert cells["all, 95 %"] == f"[{low:.2f}, {high:.2f}]"
    assert "standard deviation over seeds" in tables.as_markdown(table)
    assert not re.search(r"(?<!\\)%.*\\\\", tables.as_latex(table))  # % would begin a comment


@pytest.mark.parametrize("is_log_likelihood", [0, 1])
def test_every_number_that_is_not_a_log_likelihood_is_marked(is_log_likelihood):
    variants = {"": [a_run(3, seed, is_log_likelihood=is_log_likelihood) for seed in (0, 1)]}
    table = tables.table(variants)
    cells = tables.readable(table)[["ELBO", "reconstruction term", "IWAE bound (K = 50)"]]
    assert cells.map(lambda cell: "†" in cell).all(axis=None) == (not is_log_likelihood)
    texts = [tables.caption(table), discussion(variants), setting(variants)]
    assert all(("†" in text) == (not is_log_likelihood) for text in texts)
    assert (r"$\dagger$" in tables.as_latex(table)) == (not is_log_likelihood)
    assert ("IWAE bound" in texts[1]) == is_log_likelihood


def test_differences_are_those_of_the_same_images():
    runs = [a_run(3, 7), a_run(20, 7, gain=17), a_run(5, 7, gain=1)]
    table = tables.differences({"": runs})
    assert table["latent_dim"].tolist() == 4 * [20] + 4 * [5]
    assert (table[["against", "seed"]] == [3, 7]).all(axis=None)
    for row in table.itertuples():
        other = next(run for run in runs if run.latent_dim == row.latent_dim)
        change = mean_change(other, runs[0], row.term)
        assert (row.difference, row.se) == pytest.approx((change.mean(), stats.sem(change)))
        assert row.se < 0.1  # about 2 for independent images
        assert f"{row.difference:+.2f} [{row.low:+.2f}, {row.high:+.2f}]" in (
            tables.differences_as_markdown(table)
        )


def test_differences_over_trainings_pair_their_seeds():
    runs = {k: [a_run(k, s, gain=10 * s + (k == 20) * s) for s in range(3)] for k in (3, 20)}
    table = tables.differences({"": [*runs[3], *runs[20]]})
    row = table.query("seed == 'all' and term == 'elbo'").iloc[0]
    pairs = [mean_change(*pair).mean() for pair in zip(runs[20], runs[3], strict=True)]
    expected = stats.t.interval(0.95, 2, np.mean(pairs), stats.sem(pairs))
    assert [row["low"], row["high"]] == pytest.approx(expected)
    each = table.query("seed != 'all' and term == 'elbo'")["difference"]
    assert each.tolist() == pytest.approx(pairs)
    assert "all seeds" in tables.differences_as_markdown(table)


def test_one_latent_dimension_has_no_differences():
    table = tables.differences({"": [a_run(3, 0), a_run(3, 1)]})
    assert table.empty
    assert "nothing to compare" in tables.differences_as_markdown(table)


# Discussion


def test_clear_differences_are_stated_with_their_intervals():
    first, second = a_run(3), a_run(20, gain=50, cost=17.5)
    text = discussion({"": [first, second]})
    changes = {term: mean_change(second, first, term) for term in ("elbo", "log_px_given_z", "kl")}
    for term, change in changes.items():
        assert f"the {TERMS[term]} is higher by {interval(change)}" in text
    for run in (first, second):
        assert f"The ELBO is {interval(run.evaluation['elbo'])}." in text
        gap = run.evaluation["iwae_bound"] - run.evaluation["elbo"]
        assert f"higher by {interval(gap)}" in text
    share = changes["kl"].mean() / changes["log_px_given_z"].mean()
    assert f"offsets {100 * share:.0f} % of the gain" in text


def test_a_difference_whose_interval_includes_zero_is_not_significant():
    text = discussion({"": [a_run(3), a_run(20, cost=-3)]})
    assert "the reconstruction term is not significantly different" in text
    assert re.search(r"the KL term is lower by (3\.0|2\.9)\d \[2\.9\d, 3\.0\d\]", text)
    assert "offsets" not in text


def test_intervals_are_over_trainings_if_there_are_several_seeds():
    runs = {k: [a_run(k, seed, gain=k) for seed in range(3)] for k in (3, 20)}
    pairs = [mean_change(*pair).mean() for pair in zip(runs[20], runs[3], strict=True)]
    several = discussion({"": [*runs[3], *runs[20]]})
    assert f"the ELBO is higher by {interval(pairs)}" in several
    assert "over trainings" in several
    assert "over test images" in discussion({"": [runs[3][0], runs[20][0]]})


def test_dimensions_epochs_and_pixels_are_counted():
    run = a_run(3)
    text = discussion({"": [run]})
    assert "between 0.00 and 2.50, and over 0.01 in 2 of 3 dimensions" in text
    gap = run.history["train_elbo"][1] - run.history["validation_elbo"][1]
    assert "3 epochs; the weights are those of epoch 2, when" in text
    assert f"ELBO was {abs(gap):.2f} {'higher' if gap > 0 else 'lower'} than" in text
    pixels = run.samples["means"]
    share = np.mean((pixels > 0.1) & (pixels < 0.9))
    assert f"is {100 * share:.0f} % in the decoder means of samples" in text
    assert "weights are those of epoch 2. " in discussion({"": [a_run(3, validated=False)]})


def test_variants_are_compared_on_one_scale_only():
    one, better = a_run(20, 0), a_run(20, 1, gain=5)
    foreign = a_run(20, 2, gain=9, is_log_likelihood=0)
    text = discussion({"one": [one], "better": [better], "foreign": [foreign]})
    change = interval(mean_change(better, one))
    assert f"Compared with one, the ELBO of better is higher by {change}." in text
    assert "No other variant is on the scale of foreign (not a log-likelihood †)." in text
    assert text.count("Compared") == 1


# Figures


ONE = {"": [a_run(1, epochs=1, validated=False, binarisation="none")]}
MANY = {"": [a_run(k, seed) for k in (2, 3, 20, 5) for seed in (4, 5)]}
STUDY = {
    name: [a_run(k, seed, gain, epochs=epochs) for k in (2, 20) for seed in (4, 5)]
    for name, gain, epochs in (("a", 0, 3), ("b-2", 1, 2))
}


@pytest.mark.parametrize(
    ("name", "variants"),
    [*product(FIGURES, (ONE, MANY)), *product(STUDY_FIGURES, (STUDY,))],
)
def test_figures_name_all_runs_and_have_the_same_bytes_again(name, variants, tmp_path):
    for path in (tmp_path / "a.png", tmp_path / "b.png"):
        figure = FIGURES[name](variants)
        save_figure(path, figure)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    texts = [item.get_text() for item in figure.findobj(lambda x: hasattr(x, "get_text"))]
    text = " ".join(" ".join(texts).split())
    ks = [f"k = {run.latent_dim}" for runs in variants.values() for run in runs]
    for word in ("KMNIST", "continuous Bernoulli", *ks, *variants):
        assert word in text, word


def test_learning_curves_of_variants_are_drawn_against_the_images_seen():
    variants = {"a": [a_run(3, epochs=2)], "b": [a_run(3, epochs=3)]}
    variants["b"][0].metadata["train_images"] = 50
    (axis,) = FIGURES["learning_curves"](variants).axes
    lines = [line for line in axis.lines if len(line.get_xdata())]
    for name, seen in (("a", [100, 200]), ("b", [50, 100, 150])):
        for half in ("train", "validation"):
            curve = variants[name][0].history[f"{half}_elbo"]
            assert any(
                [*line.get_xdata()] == seen and np.array_equal(line.get_ydata(), curve)
                for line in lines
            )


def test_a_mosaic_shows_every_image_once_in_black_on_white():
    images = np.zeros((3, 784), np.float32)
    images[2, 0] = 1
    axis = Figure().add_subplot()
    show(axis, images, columns=2)
    picture = axis.images[0].get_array()
    assert picture.shape == (58, 58)
    assert picture[30, 0] == 0
    assert picture.sum() == picture.size - 1


def test_principal_axes_are_those_of_the_singular_values():
    random = np.random.default_rng(0)
    mu = (random.standard_normal((500, 4)) * [3, 0.5, 2, 1] + 5).astype(np.float32)
    points, shares = principal_axes(mu)
    _, s, vt = np.linalg.svd(mu - mu.mean(0, dtype=np.float64), full_matrices=False)
    np.testing.assert_allclose(shares, (s**2 / (s**2).sum())[:2], rtol=1e-5)
    np.testing.assert_allclose(np.abs(points), np.abs((mu - mu.mean(0)) @ vt[:2].T), atol=1e-3)
    np.testing.assert_allclose(principal_axes(-mu)[0], -points, atol=1e-4)  # axes keep their sign


def test_labels_that_are_too_close_are_pushed_apart_around_their_mean():
    for spread in (0, 0.1):
        places = spread * np.random.default_rng(0).standard_normal((10, 2)) + [3, 4]
        pushed = pushed_apart(places, 0.5)
        assert pdist(pushed).min() >= 0.999 * 0.5
        np.testing.assert_allclose(pushed.mean(0), places.mean(0))
    places = np.array([[0, 0], [1, 0], [5, 5.0]])
    np.testing.assert_allclose(pushed_apart(places, 2.0), [[-0.5, 0], [1.5, 0], [5, 5]])


# The script


def write_run(folder: Path, run: Run) -> None:
    """Write the files of a run that compare reads."""
    paths = files_of(folder, run.latent_dim, run.seed)
    suits = {"is_log_likelihood": 0}  # of a continuous Bernoulli likelihood for zeros and ones
    write_json(paths["metrics"], bound_metrics(run.evaluation, 50) | suits)
    write_csv(paths["history"], list(run.history), run.history.to_numpy().tolist())
    files = dict.fromkeys(("model", "test", "history"), paths["history"])
    for kind in ("evaluation", "samples", "reconstructions"):
        metadata = {**run.metadata, "evaluate": {"iwae_k": 50}}
        write_tensors(paths[kind], kind, vars(run)[kind], metadata, **files)


@pytest.mark.parametrize("variants", [[], ["b", "a"]])
def test_the_script_compares_the_named_runs_only(variants, tmp_path):
    for variant in variants or [""]:
        for seed in (0, 1):
            write_run(tmp_path / variant, a_run(3, seed))
    words = ["--results", tmp_path, "--output", tmp_path / "out", "--latent_dims", 3, "--seeds", 1]
    words += ["--variants", *variants] if variants else []
    run_or_raise("compare", *words)
    assert {f"{name}.png" for name in (STUDY_FIGURES if variants else FIGURES)} == {
        path.name for path in (tmp_path / "out").glob("*.png")
    }
    table = pd.read_csv(tmp_path / "out/table.csv")
    assert table["seed"].tolist() == [1] * len(variants or [""])
    assert not variants or table["variant"].tolist() == variants
