"""Latents along walks through the latent space, and what is decoded there."""

from aevb.bounds import kl_per_dimension
from aevb.data import model_inputs
from aevb.files import InputError, read_tensors
from aevb.research import traverse as walks
from aevb.rng import Random

import numpy as np
import pytest
import torch
from scipy import stats


def test_the_manifold_rises_to_the_right_and_upwards_by_quantiles():
    code, values = np.arange(5, 10, dtype=np.float32), walks.quantiles(4)
    z = walks.manifold(code, np.array([3, 1]), 4)
    np.testing.assert_allclose(values, stats.norm.ppf([1 / 8, 3 / 8, 5 / 8, 7 / 8]), atol=1e-4)
    expected = [[5, up, 7, right, 9] for up in values[::-1] for right in values]
    np.testing.assert_array_equal(z, expected)
    np.testing.assert_array_equal(walks.manifold(code[:1], np.array([0]), 4), values[:, None])


def test_a_traversal_changes_one_dimension_and_passes_through_its_code():
    code, values = np.array([0.5, -1, 2, 5], np.float32), np.array([-3, 2, 3], np.float32)
    z = walks.traversals(code, np.array([2, 0]), values)
    first, second = ([[0.5, -1, v, 5] for v in values], [[v, -1, 2, 5] for v in values])
    np.testing.assert_array_equal(z, [first, second])


@pytest.mark.parametrize("steps", [2, 13])
def test_interpolations_end_at_their_codes_and_are_straight(steps):
    random = np.random.default_rng(0)
    start, end = (random.standard_normal((6, 4)).astype(np.float32) * 9 for _ in range(2))
    z = walks.interpolations(start, end, steps)
    np.testing.assert_array_equal(z[:, [0, -1]], np.stack((start, end), 1))
    np.testing.assert_allclose(np.diff(z, 2, axis=1), 0, atol=1e-5)


def test_pairs_are_of_different_classes_and_seeded():
    labels = (np.arange(60) % 3).astype(np.uint8)
    labels[:40] = 1
    pairs, again, others = (
        walks.pairs_of_classes(labels, 30, Random("test", seed)) for seed in (0, 0, 1)
    )
    assert (labels[pairs[:, 0]] != labels[pairs[:, 1]]).all()
    assert len(np.unique(pairs[:, 0])) == 30
    np.testing.assert_array_equal(pairs, again)
    assert (pairs != others).any()


@pytest.mark.parametrize(("labels", "count"), [([1, 1, 1], 2), ([0, 1], 3)])
def test_too_few_images_or_classes_for_pairs_are_an_error(labels, count):
    with pytest.raises(InputError, match=f"--pairs {count}: the test set has {len(labels)} images"):
        walks.pairs_of_classes(np.array(labels, np.uint8), count, Random("test"))


@pytest.mark.parametrize("latent_dim", [1, 12])
def test_the_stage_shows_the_main_dimensions(
    small_sets, tmp_path, research_inputs, run_research, untrained, latent_dim
):
    model, figures = untrained(latent_dim), ("manifold", "traversals", "interpolations")
    outputs = [word for name in (*figures, "arrays") for word in (f"--{name}", tmp_path / name)]
    words = ("--grid", 3, "--steps", 5, "--extent", 2, "--pairs", 4, "--dimensions", 6)
    run_research("traverse", *research_inputs(model, "test"), *outputs, *words)
    arrays, _ = read_tensors(tmp_path / "arrays", "traverse")
    for name in figures:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        means = model.mean(torch.from_numpy(arrays[f"{name}_z"])).numpy()
        np.testing.assert_allclose(arrays[name], means, atol=1e-4)
    pairs = arrays["pairs"]
    mu, log_var = model.encode(torch.from_numpy(model_inputs(small_sets[2], "dynamic")))
    ends = arrays["interpolations_z"][:, [0, -1]]
    np.testing.assert_allclose(ends, mu.numpy()[pairs], atol=1e-4)
    assert (np.diff(small_sets[2].labels[pairs].astype(int)) != 0).all()
    dims, rows = arrays["dimensions"], arrays["traversals_z"]
    kl = kl_per_dimension(mu, log_var).mean(0)
    assert dims.tolist() == kl.argsort(descending=True)[:6].tolist()
    np.testing.assert_allclose(rows[range(len(dims)), :, dims], [[-2, -1, 0, 1, 2]] * len(dims))
