"""The classifier learns from gray and binarised images, and its training is repeatable."""

from itertools import product

from aevb.data import model_inputs, write_set
from aevb.files import read_json
from aevb.plumbing.params import Classifier
from aevb.research import classify
from aevb.research.classify import accuracies, classes, features, read_classifier

import numpy as np
import pytest
import torch
from torch import nn

SETTINGS = Classifier(epochs=10, batch_size=20)


@pytest.fixture(scope="module")
def trained(small_sets) -> nn.Sequential:
    torch.set_num_threads(1)
    return classify.trained(small_sets[0], SETTINGS)


def weights(network: nn.Sequential) -> list[bytes]:
    return [value.numpy().tobytes() for value in network.state_dict().values()]


def test_it_learns(trained, small_sets):
    """300 images are enough for four in five; chance is one in ten."""
    found = accuracies(trained, small_sets[2])
    assert found["accuracy_gray"] > 0.75
    assert found["accuracy_binary"] > 0.7
    assert found["images"] == 100


def test_training_is_repeatable_and_depends_on_the_seed(trained, small_sets):
    assert weights(classify.trained(small_sets[0], SETTINGS)) == weights(trained)
    seeds = (Classifier(epochs=1, batch_size=20, seed=seed) for seed in (0, 1))
    one, other = (weights(classify.trained(small_sets[0], settings)) for settings in seeds)
    assert one != other


def test_batches_are_shifted_and_half_of_each_is_binarised_anew(small_sets, monkeypatch):
    seen: list[torch.Tensor] = []
    forward = nn.Sequential.forward
    monkeypatch.setattr(
        nn.Sequential, "forward", lambda self, x: (seen.append(x.flatten(1)), forward(self, x))[1]
    )
    classify.trained(small_sets[0], Classifier(epochs=2, batch_size=50))
    assert len(seen) == 12
    gray = model_inputs(small_sets[0], "none").reshape(-1, 28, 28)
    shifted = {
        row.tobytes(): (place, move)
        for move in product((-1, 0, 1), repeat=2)
        for place, row in enumerate(np.roll(gray, move, (1, 2)))
    }
    drawn = torch.cat([x[::2] for x in seen])
    assert set(drawn.unique().tolist()) == {0, 1}
    moves = []
    for epoch in (seen[:6], seen[6:]):
        left = [[shifted[row.numpy().tobytes()] for row in x[1::2]] for x in epoch]
        assert len({place for batch in left for place, _ in batch}) == 150
        moves += [{move for _, move in batch} for batch in left]
    assert {len(batch) for batch in moves} == {1}
    assert len(set.union(*moves)) > 4
    # The share of ones is the mean gray level, within the noise of the choice of images.
    assert float(drawn.mean()) == pytest.approx(float(gray.mean()), rel=0.05)
    assert len({row.numpy().tobytes() for row in drawn}) == 300


def test_classes_are_predicted_from_features(trained, small_sets):
    x = model_inputs(small_sets[2], "none")
    found = features(trained, x)
    assert (found.shape, found.dtype) == ((100, classify.FEATURES), np.float32)
    logits = trained(torch.from_numpy(x).view(-1, 1, 28, 28))
    np.testing.assert_array_equal(classes(trained, found), logits.argmax(1))


def test_the_stage_writes_a_classifier_that_can_be_read(small_sets, tmp_path, run_research):
    for name, images in (("train", small_sets[0]), ("test", small_sets[2])):
        write_set(tmp_path / name, images)
    names = ("train", "test", "classifier", "accuracy")
    words = [word for name in names for word in (f"--{name}", tmp_path / name)]
    run_research("classify", *words, "--epochs", 1)
    found = accuracies(read_classifier(tmp_path / "classifier"), small_sets[2])
    assert read_json(tmp_path / "accuracy") == pytest.approx(found, rel=1e-5)
