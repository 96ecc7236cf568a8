"""Samples follow the model, and their scores distinguish good samples, bad ones and copies."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import nn

from aevb.data import model_inputs
from aevb.files import InputError, write_tensors
from aevb.research.classify import new_network
from aevb.research.sample_quality import sample_metrics, samples
from aevb.rng import Random

torch.set_num_threads(1)

Floats = NDArray[np.float32]


def echo() -> Any:
    """A model whose decoder returns z itself, and whose draws add noise."""
    noise = SimpleNamespace(
        mean=lambda z: z,
        sample=lambda z, random: z + torch.from_numpy(random.normal(z.shape)),
    )
    return SimpleNamespace(latent_dim=3, decoder=lambda z: z, likelihood=noise)


def test_samples_come_from_the_prior_with_independent_noise():
    z, x = samples(echo(), 2050, seed=0)
    assert z.shape == x.shape == (2050, 3)
    for values in (z, x - z):
        assert stats.kstest(values.ravel(), "norm").pvalue > 1e-3
        assert len(np.unique(values)) > 0.999 * values.size
    assert abs(np.corrcoef(z.ravel(), (x - z).ravel())[0, 1]) < 4 / math.sqrt(z.size)
    other, _ = samples(echo(), 2050, seed=1)
    assert np.isin(z, other).mean() < 0.001  # float32 has few numbers near 1


def test_the_first_samples_do_not_depend_on_how_many_there_are():
    whole = samples(echo(), 230, seed=3)
    for count in (1, 100, 150):
        for part, all_of_them in zip(samples(echo(), count, 3), whole, strict=True):
            np.testing.assert_array_equal(part, all_of_them[:count])


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    return new_network(Random("test")).eval().requires_grad_(False)


def images(count: int, seed: int) -> Floats:
    """Images that differ in five directions."""
    directions = np.random.default_rng(9).standard_normal((5, 784)) * 2
    spots = np.random.default_rng(seed).standard_normal((count, 5)) @ directions
    return (1 / (1 + np.exp(-spots))).astype(np.float32)


@pytest.fixture(scope="module")
def real() -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Test images, training images and the indices of chosen ones."""
    return images(200, 2), images(500, 1), np.random.default_rng(0).permutation(500)[:200]


def test_good_samples_are_like_real_images(network, real):
    metrics = sample_metrics(network, images(200, 3), *real, 5)
    for name in ("precision", "recall", "density", "coverage"):
        assert metrics[name] > 0.8
        assert metrics[name] == pytest.approx(metrics[f"{name}_real"], abs=0.1), name
    both = math.hypot(metrics["distance_to_train_se"], metrics["distance_to_train_real_se"])
    assert abs(metrics["distance_to_train"] - metrics["distance_to_train_real"]) < 4 * both
    assert abs(metrics["closer_to_train"] - 0.5) < 4 * metrics["closer_to_train_se"]


def test_copies_of_training_images_are_recognised(network, real):
    _, train, chosen = real
    metrics = sample_metrics(network, train[chosen], *real, 5)
    assert metrics["closer_to_train"] == 1
    assert metrics["distance_to_train"] == pytest.approx(0, abs=1e-3)
    assert metrics["distance_to_train_real"] > 1
    for name in ("precision", "recall", "density", "coverage", "frechet", "class_entropy"):
        assert metrics[name] == metrics[f"{name}_real"], name


def test_ties_between_test_and_training_images_count_half(network, real):
    train = real[1]
    same = train[:200], train, np.arange(200)
    metrics = sample_metrics(network, images(200, 3), *same, 5)
    assert (metrics["closer_to_train"], metrics["closer_to_train_se"]) == (0.5, 0)


def test_bad_samples_are_not_precise_and_one_class_has_no_entropy(network, real):
    metrics = sample_metrics(network, 3 * images(200, 3), *real, 5)
    assert metrics["precision"] == metrics["density"] == metrics["coverage"] == 0
    assert metrics["frechet"] > 10 * metrics["frechet_real"]
    one = sample_metrics(network, np.repeat(real[0][:1], 200, 0), *real, 5)
    assert one["class_entropy"] == 0
    assert one["recall"] < 0.05


@pytest.fixture
def classifier(tmp_path, network) -> list[object]:
    """The flag that names the classifier, and that of the figure."""
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    write_tensors(tmp_path / "classifier", "classifier", weights, {})
    return ["--classifier", tmp_path / "classifier", "--figure", tmp_path / "figure"]


def test_the_stage_scores_samples_and_shows_their_neighbours(
    classifier, scored, untrained, small_sets
):
    words = (*classifier, "--images", 60)
    metrics, arrays = scored("sample_quality", untrained(), *words, sets=("train", "test"))
    assert classifier[-1].read_bytes().startswith(b"\x89PNG")
    assert (metrics["images"], metrics["neighbours"]) == (60, 5)
    assert metrics["precision"] < 0.5 < metrics["precision_real"]
    train = model_inputs(small_sets[0], "none")[arrays["neighbours"]]
    distances = np.linalg.norm(arrays["shown"][:, None] - train, axis=-1)
    np.testing.assert_allclose(arrays["distances"], distances, rtol=1e-5)


@pytest.mark.parametrize(("images", "fault"), [(59, "60 or more"), (101, "100 at most")])
def test_too_few_or_too_many_images_are_an_error(classifier, scored, untrained, images, fault):
    words = (*classifier, "--images", images)
    with pytest.raises(InputError, match=f"--images {images}.*{fault}"):
        scored("sample_quality", untrained(), *words, sets=("train", "test"))
