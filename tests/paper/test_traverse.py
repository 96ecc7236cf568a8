"""Latents along walks through the latent space, and the figures of what is decoded there."""

import numpy as np
import pytest
import torch
from scipy import stats

from aevb.data import model_inputs
from aevb.files import InputError, read_tensors
from aevb.research import traverse as walks


def test_main_dimensions_are_those_of_the_largest_kl():
    kl = np.array([0.5, 3.0, 0.0, 3.0, 1.0], np.float32)
    assert walks.main_dimensions(kl, 3).tolist() == [1, 3, 4]
    assert walks.main_dimensions(kl, 10).tolist() == [1, 3, 4, 0, 2]


@pytest.mark.parametrize("size", [1, 2, 20, 101])
def test_quantiles_are_the_inverse_cdf(size):
    expected = stats.norm.ppf((np.arange(size) + 0.5) / size)
    np.testing.assert_allclose(walks.quantiles(size), expected, rtol=1e-6, atol=1e-7)


def test_the_manifold_rises_to_the_right_and_upwards():
    z, values = walks.manifold(5, np.array([3, 1]), 4), walks.quantiles(4)
    expected = [[0, up, 0, right, 0] for up in values[::-1] for right in values]
    np.testing.assert_array_equal(z, expected)
    np.testing.assert_array_equal(walks.manifold(1, np.array([0]), 4), values[:, None])


def test_a_traversal_changes_one_dimension_and_passes_through_its_code():
    code = np.array([0.1, -0.7, 2.0, 5.0], np.float32)
    values = np.array([-3.0, 2.0, 3.0], np.float32)
    z = walks.traversals(code, np.array([2, 0]), values)
    assert z.shape == (2, 3, 4)
    for row, dimension in enumerate([2, 0]):
        np.testing.assert_array_equal(z[row, :, dimension], values)
        others = np.delete(z[row], dimension, -1)
        np.testing.assert_array_equal(others, np.tile(np.delete(code, dimension), (3, 1)))
    np.testing.assert_array_equal(z[0, 1], code)


@pytest.mark.parametrize("steps", [2, 3, 13])
def test_interpolations_end_at_their_codes_and_are_straight(steps):
    random = np.random.default_rng(0)
    start, end = (random.standard_normal((6, 4)).astype(np.float32) * 9 for _ in range(2))
    z = walks.interpolations(start, end, steps)
    assert z.dtype == np.float32
    np.testing.assert_array_equal(z[:, 0], start)
    np.testing.assert_array_equal(z[:, -1], end)
    np.testing.assert_allclose(np.diff(z, 2, axis=1), 0, atol=1e-5)


def test_pairs_are_of_different_classes_and_seeded():
    labels = (np.arange(60) % 3).astype(np.uint8)
    labels[:40] = 1
    pairs, again, others = (
        walks.pairs_of_classes(labels, 30, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert (labels[pairs[:, 0]] != labels[pairs[:, 1]]).all()
    assert len(np.unique(pairs[:, 0])) == 30
    np.testing.assert_array_equal(pairs, again)
    assert (pairs != others).any()


@pytest.mark.parametrize(("labels", "count"), [([1, 1, 1], 2), ([0, 1], 3)])
def test_too_few_images_or_classes_for_pairs_are_an_error(labels, count):
    with pytest.raises(InputError, match=f"--pairs {count}: the test set has {len(labels)} images"):
        walks.pairs_of_classes(np.array(labels, np.uint8), count, np.random.default_rng(0))


def texts(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda x: hasattr(x, "get_text")))


def test_figures_name_what_they_show():
    named = walks.names(np.array([1, 0]), np.array([0.25, 2.0]))
    assert named == ["z[1], 2.00 nats", "z[0], 0.25 nats"]
    images = np.ones((9, 784), np.float32)
    rows, labels = images[:6].reshape(2, 3, 784), np.array([[7, 2], [7, 2]])
    values = np.linspace(-3, 3, 3, dtype=np.float32)
    first = texts(walks.manifold_figure(images, 3, named, "k = 2, seed 0"))
    second = texts(walks.traversals_figure(rows, values, named, "0", "k = 2, seed 0"))
    third = texts(walks.interpolations_figure(rows[:, :2], rows, labels, "k = 2, seed 0"))
    assert all(name in text for name in named for text in (first, second))
    assert "−3.0" in second
    assert "7 to 2" in third
    assert all("seed 0" in text for text in (first, second, third))


def pixels(figure) -> np.ndarray:
    """The picture in a figure, ink as 1, in cells of 28 by 28."""
    return 1 - figure.axes[0].images[0].get_array()


def test_images_are_where_the_axes_say():
    images = np.zeros((9, 784), np.float32)
    images[2] = 1  # the top row's last: both dimensions at their largest
    figure = walks.manifold_figure(images, 3, ["z[0]", "z[1]"], "run")
    (axis,) = figure.axes
    assert pixels(figure)[:28, 60:].all()
    assert pixels(figure).sum() == 784
    largest = f"{stats.norm.ppf(5 / 6):.1f}"
    x, y = (
        int(ticks[[label.get_text() for label in labels].index(largest)])
        for ticks, labels in (
            (axis.get_xticks(), axis.get_xticklabels()),
            (axis.get_yticks(), axis.get_yticklabels()),
        )
    )
    assert pixels(figure)[y, x] == 1


@pytest.mark.parametrize(("latent_dim", "around"), [(1, "origin"), (12, "image")])
def test_the_stage_shows_the_main_dimensions(
    small_sets, tmp_path, research_inputs, run_research, untrained, latent_dim, around
):
    model = untrained(latent_dim)
    figures = ("manifold", "traversals", "interpolations")
    outputs = [word for name in figures for word in (f"--{name}", tmp_path / f"{name}.png")]
    words = f"--grid 3 --steps 5 --extent 2 --pairs 4 --dimensions 6 --around {around}".split()
    outputs += ["--arrays", tmp_path / "arrays"]
    run_research("traverse", *research_inputs(model, "test"), *outputs, *words)
    for name in figures:
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    arrays, _ = read_tensors(tmp_path / "arrays", "traversals")
    for name in figures:
        means = model.mean(torch.from_numpy(arrays[f"{name}_z"])).numpy()
        np.testing.assert_allclose(arrays[f"{name}_means"], means, atol=1e-6)
    dims = arrays["traversals_dimensions"]
    assert dims.tolist() == np.argsort(-arrays["kl_per_dimension"])[:6].tolist()
    assert arrays["manifold_dimensions"].tolist() == dims[:2].tolist()
    test = small_sets[2]
    index = arrays["interpolations_index"]
    mu = model.encode(torch.from_numpy(model_inputs(test, "dynamic")))[0].numpy()
    np.testing.assert_allclose(arrays["interpolations_z"][:, 0], mu[index[:, 0]], atol=1e-6)
    np.testing.assert_allclose(arrays["interpolations_z"][:, -1], mu[index[:, 1]], atol=1e-6)
    assert (test.labels[index[:, 0]] != test.labels[index[:, 1]]).all()
    distances = abs(mu - arrays["traversals_code"]).max(1)
    assert (distances.min() < 1e-6) == (around == "image")
