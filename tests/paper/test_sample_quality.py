"""Scores distinguish good samples, bad ones and copies; changed digits are counted."""

import math

from aevb.data import model_inputs
from aevb.files import InputError, write_tensors
from aevb.plumbing.params import Classifier
from aevb.research.classify import features, trained
from aevb.research.sample_quality import closer_to_train, digit_changes, draws, scores_with_errors
from aevb.rng import Random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

torch.set_num_threads(1)

Floats = NDArray[np.float32]


def test_draws_have_the_means_of_the_decoder(untrained):
    z = np.repeat(np.float32([[1, -2], [0.5, 0]]), 2000, 0)
    x = draws(untrained(), z, Random("test")).reshape(2, 2000, 784)
    assert set(np.unique(x)) == {0, 1}
    means = untrained().mean(torch.from_numpy(z[::2000])).numpy()
    error = (x.mean(1) - means) / np.sqrt(means * (1 - means) / 2000)
    assert np.square(error).mean() == pytest.approx(1, abs=0.15)


@pytest.fixture(scope="module")
def network(small_sets) -> nn.Sequential:
    torch.set_num_threads(1)
    return trained(small_sets[0], Classifier(epochs=5, batch_size=20))


def images(count: int, seed: int) -> Floats:
    """Images that differ in five directions."""
    directions = np.random.default_rng(9).standard_normal((5, 784)) * 2
    spots = np.random.default_rng(seed).standard_normal((count, 5)) @ directions
    return (1 / (1 + np.exp(-spots))).astype(np.float32)


def test_good_samples_are_like_real_images_and_bad_ones_are_not(network):
    real, good = (features(network, images(200, seed)) for seed in (2, 3))
    found = scores_with_errors(real, good, 5)
    assert min(found["precision"], found["recall"]) > 0.8
    worse = scores_with_errors(real, features(network, 3 * images(200, 3)), 5)
    assert worse["precision"] == 0
    assert worse["frechet"] > 10 * found["frechet"]
    one = scores_with_errors(real, np.repeat(good[:1], 200, 0), 5)
    assert one["recall"] < 0.05


def test_copies_of_training_images_are_recognised():
    test, train, other = (images(200, seed) for seed in (2, 1, 3))
    assert closer_to_train(train, test, train).mean() == 1
    closer = closer_to_train(other, test, train)
    assert abs(closer.mean() - 0.5) < 4 * 0.5 / math.sqrt(200)
    assert (closer_to_train(other, train, train) == 0.5).all()


def test_equal_images_change_no_digit_and_others_do(network, small_sets):
    x = model_inputs(small_sets[2], "none")
    logits = network(torch.from_numpy(x).view(-1, 1, 28, 28)).numpy()
    assert not digit_changes(network, x, x).any()
    expected = logits.argmax(1) != logits[::-1].argmax(1)
    assert expected.any()
    np.testing.assert_array_equal(digit_changes(network, x, x[::-1].copy()), expected)


@pytest.fixture
def stage(tmp_path, network, scored, untrained):
    """Runs the stage on an untrained model, with codes in the middle of the prior."""
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    write_tensors(tmp_path / "classifier", "classifier", weights, {})

    def run(*words: object, latent_dim: int = 2):
        codes = {"mixture_z": np.zeros((100, latent_dim), np.float32)}
        write_tensors(tmp_path / "latents", "latents", codes, {})
        paths = [(f"--{name}", tmp_path / name) for name in ("latents", "classifier", "figure")]
        words = (*words, *(word for pair in paths for word in pair))
        return scored("sample_quality", untrained(), *words, sets=("train", "test"))

    return run


def test_the_stage_scores_samples_and_shows_their_neighbours(stage, small_sets, tmp_path):
    metrics, arrays = stage("--images", 60)
    assert (tmp_path / "figure").read_bytes().startswith(b"\x89PNG")
    assert (metrics["images"], metrics["neighbours"]) == (60, 5)
    assert metrics["recall"] < 0.5 < min(metrics["real_precision"], metrics["real_recall"])
    assert metrics["mixture_frechet"] != metrics["frechet"]
    assert metrics["classifier_error"] < 0.4
    assert metrics["digit_changes"] > 0.7  # the model is not trained, so all digits become one
    train = model_inputs(small_sets[0], "none")[arrays["neighbours"]]
    distances = np.linalg.norm(arrays["shown"][:, None] - train, axis=-1)
    np.testing.assert_allclose(arrays["distances"], distances, rtol=1e-5)


@pytest.mark.parametrize(("images", "fault"), [(59, "60 or more"), (101, "100 at most")])
def test_too_few_or_too_many_images_are_an_error(stage, images, fault):
    with pytest.raises(InputError, match=f"--images {images}.*{fault}"):
        stage("--images", images)


def test_codes_of_another_model_are_an_error(stage):
    with pytest.raises(InputError, match=r"latents: belongs to another model or test set$"):
        stage("--images", 60, latent_dim=3)
