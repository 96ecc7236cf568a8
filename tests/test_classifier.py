"""The classifier learns, from gray levels and zeros and ones alike, the same way each time."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from aevb import classifier
from aevb.classifier import Network, accuracy, classes, features, read_classifier, write_classifier
from aevb.data import model_inputs
from aevb.files import InputError, write_tensors
from aevb.plumbing.params import Classifier

SETTINGS = Classifier(epochs=10, batch_size=20)


@pytest.fixture(scope="module")
def trained(small_sets) -> Network:
    torch.set_num_threads(1)
    return classifier.train(small_sets[0], SETTINGS)


def weights(network: Network) -> list[bytes]:
    return [value.numpy().tobytes() for value in network.state_dict().values()]


def test_it_learns(trained, small_sets):
    """300 images are enough for four in five; chance is one in ten."""
    found = accuracy(trained, small_sets[2])
    assert found["accuracy_gray"] > 0.75
    assert found["accuracy_binary"] > 0.7
    assert found["images"] == 100


def test_the_same_bytes_twice_and_others_for_another_seed(trained, small_sets):
    assert weights(classifier.train(small_sets[0], SETTINGS)) == weights(trained)
    short = Classifier(epochs=1, seed=1)
    assert weights(classifier.train(small_sets[0], short)) != weights(
        classifier.train(small_sets[0], Classifier(epochs=1))
    )


def test_batches_are_moved_and_half_of_each_is_drawn_anew(small_sets, monkeypatch):
    seen: list[torch.Tensor] = []
    forward = Network.forward
    monkeypatch.setattr(
        Network, "forward", lambda self, x: (seen.append(x.clone()), forward(self, x))[1]
    )
    callback: list[int] = []
    classifier.train(small_sets[0], Classifier(epochs=2, batch_size=50), callback.append)
    assert callback == [50] * 12
    gray = {
        row.tobytes(): (place, move)
        for move in product((-1, 0, 1), repeat=2)
        for place, row in enumerate(
            np.roll(model_inputs(small_sets[0], "none").reshape(-1, 28, 28), move, (1, 2))
        )
    }
    drawn = torch.cat([x[::2] for x in seen])
    assert set(drawn.unique().tolist()) == {0, 1}
    moves = []
    for epoch in (seen[:6], seen[6:]):
        left = [[gray[row.numpy().tobytes()] for row in x[1::2]] for x in epoch]
        assert len({place for batch in left for place, _ in batch}) == 150
        moves += [{move for _, move in batch} for batch in left]
    assert {len(batch) for batch in moves} == {1}
    assert len(set.union(*moves)) > 4
    # As many ones as the gray levels say, within the noise of the choice of images.
    mean = model_inputs(small_sets[0], "none").mean()
    assert float(drawn.mean()) == pytest.approx(float(mean), rel=0.05)
    assert len({row.numpy().tobytes() for row in drawn}) == 300


def test_initial_weights_are_uniform_in_their_range():
    network = Network()
    network.initialise(torch.Generator().manual_seed(0))
    for layer, inputs in (
        (network.first, 25),
        (network.second, 400),
        (network.hidden, 1568),
        (network.output, 64),
    ):
        bound = 1 / math.sqrt(inputs)
        both = torch.cat([parameter.detach().flatten() for parameter in layer.parameters()])
        assert float(both.abs().max()) <= bound
        assert float(both.std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_features_are_what_the_classes_are_read_from(trained, small_sets, monkeypatch):
    x = model_inputs(small_sets[2], "none")
    found = features(trained, x)
    assert found.shape == (100, classifier.FEATURES)
    assert found.dtype == np.float32
    assert (found >= 0).all()
    logits = trained(torch.from_numpy(x))
    np.testing.assert_array_equal(classes(trained, found), logits.argmax(1))
    monkeypatch.setattr(classifier, "BLOCK", 7)
    np.testing.assert_allclose(features(trained, x), found, rtol=1e-4, atol=1e-5)


def test_accuracy_counts_and_its_error_is_binomial(trained, small_sets, monkeypatch):
    test = small_sets[2]
    right = np.arange(100) < 90
    monkeypatch.setattr(
        classifier, "classes", lambda *_: np.where(right, test.labels, 9 - test.labels)
    )
    found = accuracy(trained, test)
    for name in ("gray", "binary"):
        assert found[f"accuracy_{name}"] == 0.9
        assert found[f"accuracy_{name}_se"] == pytest.approx(math.sqrt(0.9 * 0.1 / 99))


def test_written_and_read_again(trained, tmp_path):
    path = tmp_path / "classifier.safetensors"
    write_classifier(path, trained, {"data": "x"})
    assert weights(read_classifier(path)) == weights(trained)
    assert not any(parameter.requires_grad for parameter in read_classifier(path).parameters())


@pytest.mark.parametrize("wrong", [{}, {"first.weight": np.zeros(3, np.float32)}])
def test_foreign_weights_are_one_line(wrong, trained, tmp_path):
    path: Path = tmp_path / "classifier.safetensors"
    whole = {name: value.numpy() for name, value in trained.state_dict().items()}
    write_tensors(path, "classifier", {**whole, **wrong} if wrong else {}, {})
    with pytest.raises(InputError, match=f"^{path}: its weights do not fit"):
        read_classifier(path)
