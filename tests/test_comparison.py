"""The comparison: its table holds what the metrics say, its figures what the runs left behind."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from aevb.report import comparison, tables
from aevb.report.comparison import FIGURES, Run, principal_axes, pushed_apart
from aevb.report.figures import mosaic, save_figure


def row(latent_dim: int, seed: int, elbo: float, is_log_likelihood: int = 1) -> dict:
    terms = {"elbo": elbo, "log_px_given_z": elbo + 9, "kl": 9.0, "iwae_bound": elbo + 3}
    return {
        "latent_dim": latent_dim,
        "seed": seed,
        "binarisation": "dynamic",
        "likelihood": "bernoulli",
        "is_log_likelihood": is_log_likelihood,
        "iwae_k": 50,
        **terms,
        **{f"{key}_se": 0.25 for key in terms},
    }


def test_one_seed_gives_a_row_a_run():
    table = tables.table([row(3, 0, -130.0), row(20, 0, -97.0)])
    assert table["elbo"].tolist() == [-130, -97]
    assert tables.readable(table)["ELBO"].tolist() == ["-130.00 ± 0.25", "-97.00 ± 0.25"]


def test_several_seeds_add_mean_and_sample_deviation_for_each_k():
    elbos = {3: [-130.0, -131.0, -133.0], 20: [-97.0, -96.0, -98.5]}
    table = tables.table([row(k, seed, v) for k in elbos for seed, v in enumerate(elbos[k])])
    for k, values in elbos.items():
        of_k = table[table["latent_dim"] == k].set_index("seed")["elbo"]
        assert of_k["all, sd"] == of_k["all, ci95"] == pytest.approx(np.mean(values))
        spread = table[table["latent_dim"] == k].set_index("seed")["elbo_se"]
        assert spread["all, sd"] == pytest.approx(np.std(values, ddof=1))
        interval = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
        assert np.mean(values) + spread["all, ci95"] == pytest.approx(interval[1])
        lines = tables.readable(table).query("k == @k").set_index("seed")["ELBO"]
        assert lines["all, ± sd"] == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
        assert lines["all, ± 95 %"] == f"{np.mean(values):.2f} ± {spread['all, ci95']:.2f}"
    assert len(table) == 6 + 4


def evaluations(dims: list[int], seeds: list[int]) -> dict:
    """Values per image in which images differ much more than models do."""
    random = np.random.default_rng(0)
    images = random.normal(0, 30, 400)
    return {
        (k, seed): {term: images + k + random.normal(0, 1, 400) for term in tables.COLUMNS}
        for k in dims
        for seed in seeds
    }


def test_differences_are_taken_image_by_image():
    table = tables.differences(evaluations([3, 20], [7])).set_index("term")
    assert (table[["latent_dim", "against", "seed"]] == [20, 3, 7]).all(axis=None)
    for term in tables.COLUMNS:
        row = table.loc[term]
        assert abs(row["difference"] - 17) < 4 * row["se"]
        assert row["se"] == pytest.approx(np.sqrt(2 / 400), rel=0.15)  # unpaired: 2.1
        assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * row["se"])


def test_differences_over_trainings_pair_their_seeds():
    values = evaluations([3, 20, 5], [0, 1, 2])
    for (k, seed), terms in values.items():
        terms["elbo"] = terms["elbo"] + 10 * seed + (k == 20) * seed  # seeds differ, pairs less
    table = tables.differences(values).query("seed == 'all' and term == 'elbo'")
    assert table["latent_dim"].tolist() == [20, 5]
    row = table.iloc[0]
    pairs = [(values[20, s]["elbo"] - values[3, s]["elbo"]).mean() for s in range(3)]
    assert [row["low"], row["high"]] == pytest.approx(
        stats.t.interval(0.95, 2, np.mean(pairs), stats.sem(pairs))
    )
    text = tables.differences_as_markdown(tables.differences(values))
    assert f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]" in text
    assert len([line for line in text.splitlines() if line.startswith("| k =")]) == 2 * 4


def test_one_latent_dimension_has_no_differences():
    table = tables.differences(evaluations([3], [0, 1]))
    assert table.empty
    assert tables.as_csv(table).startswith("latent_dim,against,term,seed,difference,se,low,high")
    assert "nothing to compare" in tables.differences_as_markdown(table)


@pytest.mark.parametrize("is_log_likelihood", [0, 1])
def test_every_number_that_is_no_log_likelihood_is_marked(is_log_likelihood: int):
    table = tables.table([row(3, seed, -130.0 - seed, is_log_likelihood) for seed in (0, 1)])
    cells = tables.readable(table)[["ELBO", "reconstruction term", "IWAE bound (K = 50)"]]
    assert cells.map(lambda cell: "†" in cell).all(axis=None) == (not is_log_likelihood)
    for text, mark in ((tables.as_markdown(table), "†"), (tables.as_latex(table), r"$\dagger$")):
        assert (mark in text) == (not is_log_likelihood)
        assert ("Not a log-likelihood" in text) == (not is_log_likelihood)


def test_markdown_and_latex_have_a_cell_for_each_column():
    table = tables.table([row(3, 0, -130.0), row(20, 1, -97.0)])
    lines = [line for line in tables.as_markdown(table).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {9}
    body = [line for line in tables.as_latex(table).splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in body} == {7}


def test_principal_axes_are_those_of_the_singular_values():
    random = np.random.default_rng(0)
    mu = (random.standard_normal((500, 4)) * [3, 0.5, 2, 1] + 5).astype(np.float32)
    points, shares = principal_axes(mu)
    _, s, vt = np.linalg.svd(mu - mu.mean(0, dtype=np.float64), full_matrices=False)
    np.testing.assert_allclose(shares, (s**2 / (s**2).sum())[:2], rtol=1e-5)
    np.testing.assert_allclose(np.abs(points), np.abs((mu - mu.mean(0)) @ vt[:2].T), atol=1e-3)
    np.testing.assert_allclose(principal_axes(-mu)[0], -points, atol=1e-4)  # axes keep their sign


def test_one_dimension_has_one_axis():
    points, shares = principal_axes(np.arange(10, dtype=np.float32)[:, None])
    assert points[:, 0].tolist() == (np.arange(10) - 4.5).tolist()
    assert points[:, 1].tolist() == [0] * 10
    assert shares == [1]


def distances(places: np.ndarray) -> np.ndarray:
    """Between each two of them."""
    apart = np.linalg.norm(places[:, None] - places, axis=-1)
    return apart[np.triu_indices(len(places), 1)]


@pytest.mark.parametrize("spread", [0, 1e-3, 0.1, 1])
def test_labels_are_pushed_apart_around_where_they_were(spread):
    places = spread * np.random.default_rng(0).standard_normal((10, 2)) + [3, 4]
    pushed = pushed_apart(places, 0.5)
    assert distances(pushed).min() >= 0.999 * 0.5
    np.testing.assert_allclose(pushed.mean(0), places.mean(0))
    np.testing.assert_array_equal(pushed, pushed_apart(places, 0.5))


def test_labels_that_are_apart_stay():
    places = np.array([[0, 0], [1, 0], [5, 5.0]])
    np.testing.assert_array_equal(pushed_apart(places, 1.0), places)
    np.testing.assert_allclose(pushed_apart(places, 2.0), [[-0.5, 0], [1.5, 0], [5, 5]])


def test_a_mosaic_shows_every_image_once_ink_black():
    images = np.zeros((3, 784), np.float32)
    images[2, 0] = 1
    picture = mosaic(images, columns=2)
    assert picture.shape == (58, 58)
    assert picture[30, 0] == 0
    assert picture.sum() == picture.size - 1


def a_run(latent_dim: int, seed: int, epochs: int, validated: bool, binarisation: str) -> Run:
    """A run with arbitrary numbers in the shapes of real ones."""
    random = np.random.default_rng(seed)
    history = pd.DataFrame({"epoch": np.arange(1.0, epochs + 1), "learning_rate": 0.1})
    for name in ("train", "validation"):
        for term in ("elbo", "log_px_given_z", "kl"):
            values = random.standard_normal(epochs) if validated or name == "train" else np.nan
            history[f"{name}_{term}"] = values
    images = random.random((4, 784), np.float32)
    return Run(
        latent_dim,
        seed,
        {"elbo": -2.0, "reconstruction_error": 1.5, "kl": 0.5, "is_log_likelihood": 1},
        history,
        {
            "mu": random.standard_normal((50, latent_dim), np.float32),
            "kl_per_dimension": random.random(latent_dim, np.float32),
            "labels": (np.arange(50) % 10).astype(np.uint8),
        },
        {"means": images, "draws": images},
        {"originals": images, "inputs": images, "reconstructions": images},
        {
            "data": {"name": "kmnist"},
            "binarisation": binarisation,
            "likelihood": "continuous_bernoulli",
        },
    )


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize(
    ("dims", "seeds", "epochs", "validated", "binarisation"),
    [([1], [0], 1, False, "none"), ([2, 3, 20], [4, 5], 3, True, "static")],
)
def test_figures_of_few_and_of_many_runs(
    name, dims, seeds, epochs, validated, binarisation, tmp_path
):
    runs = [a_run(k, seed, epochs, validated, binarisation) for k in dims for seed in seeds]
    for path in (tmp_path / "a.png", tmp_path / "b.png"):
        save_figure(path, FIGURES[name](runs))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    figure = FIGURES[name](runs)
    texts = [text.get_text() for text in figure.findobj(lambda x: hasattr(x, "get_text"))]
    assert any("KMNIST" in text and "continuous Bernoulli" in text for text in texts)
    if name != "reconstructions" or len(dims) > 1:
        assert all(any(f"k = {k}" in text for text in texts) for k in dims)


def test_titles_say_what_is_no_log_likelihood():
    run = a_run(1, 0, 1, True, "none")
    assert "†" not in comparison.setting([run])
    run.metrics["is_log_likelihood"] = 0
    assert "† no log-likelihood" in comparison.setting([run])
