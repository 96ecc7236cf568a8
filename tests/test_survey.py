"""The variants of a study side by side: every run stands in the figures, whatever its recipe."""

import numpy as np
import pytest

from aevb.report import survey, tables
from aevb.report.figures import save_figure
from test_comparison import a_run, row


def variants(names: list[str], dims: list[int], seeds: list[int]) -> dict:
    """Runs with arbitrary numbers; each variant has trained on other numbers of images."""
    result = {}
    for place, name in enumerate(names):
        runs = [a_run(k, seed, 2 + place, True, "none") for k in dims for seed in seeds]
        for run in runs:
            run.metadata["train_images"] = 100 * (place + 1)
        result[name] = runs
    return result


@pytest.mark.parametrize("name", survey.FIGURES)
@pytest.mark.parametrize(
    ("names", "dims", "seeds"), [(["a"], [1], [0]), (["a", "b-2", "c"], [2, 20], [4, 5])]
)
def test_figures_name_every_variant_and_k(name, names, dims, seeds, tmp_path):
    for path in (tmp_path / "a.png", tmp_path / "b.png"):
        save_figure(path, survey.FIGURES[name](variants(names, dims, seeds)))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    figure = survey.FIGURES[name](variants(names, dims, seeds))
    texts = [text.get_text() for text in figure.findobj(lambda x: hasattr(x, "get_text"))]
    for word in [*names, *(f"k = {k}" for k in dims), "KMNIST"]:
        assert any(word in text for text in texts), word


def test_curves_are_drawn_against_the_images_that_were_seen():
    runs = variants(["a", "b"], [3], [0])
    axis = survey.curves(runs).axes[0]
    drawn = {
        tuple(line.get_xdata()): line.get_ydata() for line in axis.lines if len(line.get_xdata())
    }
    assert set(drawn) == {(100, 200), (200, 400, 600)}
    for name, seen in (("a", (100, 200)), ("b", (200, 400, 600))):
        history = runs[name][0].history
        curves = [history[f"{half}_elbo"].to_numpy() for half in ("train", "validation")]
        assert any(np.array_equal(drawn[seen], curve) for curve in curves)


def test_a_table_of_variants_keeps_them_apart():
    rows = [
        {"variant": variant, **row(k, seed, elbo + seed)}
        for variant, elbo in (("a", -130.0), ("b", -100.0))
        for k in (3, 20)
        for seed in (0, 1)
    ]
    table = tables.table(rows)
    means = table[table["seed"] == "all, sd"].set_index(["variant", "latent_dim"])["elbo"]
    assert means.to_dict() == {
        ("a", 3): -129.5,
        ("a", 20): -129.5,
        ("b", 3): -99.5,
        ("b", 20): -99.5,
    }
    assert tables.readable(table)["variant"].tolist().count("a") == 4 + 4
