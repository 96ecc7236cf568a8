"""Train the classifier in whose features samples are compared.

Samples are gray levels or zeros and ones, depending on what their model was trained on; so half of
the images of each batch are gray and the other half are binarised anew.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from aevb.data import CLASSES, ImageSet, model_inputs, read_set
from aevb.files import read_tensors, write_json, write_tensors
from aevb.intervals import mean_with_error
from aevb.plumbing import cli
from aevb.plumbing.machine import repeatable
from aevb.plumbing.params import Classifier, Section, TestSet, TrainSet
from aevb.rng import Random

FEATURES = 64
BLOCK = 500
"""Images that are classified at once."""

Floats = NDArray[np.float32]


class Network(nn.Module):
    """Two convolutions with stride 2, a hidden layer whose units are the features, a linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 5, stride=2, padding=2)
        self.second = nn.Conv2d(16, 32, 5, stride=2, padding=2)
        self.hidden = nn.Linear(32 * 7 * 7, FEATURES)
        self.output = nn.Linear(FEATURES, CLASSES)

    @torch.no_grad()
    def initialise(self, random: Random) -> None:
        """Draw the initial weights and biases: uniform in ±1/√inputs, PyTorch's own choice."""
        for layer in (self.first, self.second, self.hidden, self.output):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            for parameter in layer.parameters():
                values = (random.uniform(parameter.shape) * 2 - 1) * bound
                parameter.copy_(torch.from_numpy(values))

    def features(self, x: Tensor) -> Tensor:
        """Images [B, 784] to the units before the last layer, [B, FEATURES], all ≥ 0."""
        maps = F.relu(self.second(F.relu(self.first(x.view(-1, 1, 28, 28)))))
        return F.relu(self.hidden(maps.flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 784] to the logits of the classes, [B, 10]."""
        return torch.as_tensor(self.output(self.features(x)))


def train(
    images: ImageSet, settings: Classifier, callback: Callable[[int], Any] = lambda _: None
) -> Network:
    """A network trained by Adam on the cross entropy, with a rate that falls linearly to 0."""
    seed, batch_size = settings.seed, settings.batch_size
    network = Network()
    network.initialise(Random("initialise classifier", seed))
    random = Random("train classifier", seed)
    labels = torch.from_numpy(images.labels).long()
    optimiser = torch.optim.Adam(network.parameters(), settings.learning_rate, fused=True)
    steps = settings.epochs * math.ceil(len(images) / batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    for _ in range(settings.epochs):
        order = random.permutation(len(images))
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            # Shifts by at most a pixel improve the validation accuracy by 0.2 %.
            down, right = (random.uniform((2,)) * 3).astype(int) - 1
            pixels = np.roll(images.images[index], (down, right), (1, 2))
            pixels[::2] = random.binarise(pixels[::2]) * np.uint8(255)
            x = torch.from_numpy(pixels).flatten(1).float() / 255
            optimiser.zero_grad()
            F.cross_entropy(network(x), labels[index]).backward()
            optimiser.step()
            schedule.step()
            callback(len(index))
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def features(network: Network, x: Floats) -> Floats:
    """The features of images [N, 784], float32 [N, FEATURES]."""
    return torch.cat([network.features(some) for some in torch.from_numpy(x).split(BLOCK)]).numpy()


@torch.inference_mode()
def classes(network: Network, features: Floats) -> NDArray[np.uint8]:
    """The most probable class for features [N, FEATURES], uint8 [N]."""
    return np.asarray(network.output(torch.from_numpy(features)).argmax(1), np.uint8)


def accuracies(network: Network, images: ImageSet) -> dict[str, float]:
    """The share of images classified correctly, gray and binarised, with standard errors."""
    metrics: dict[str, float] = {"images": len(images)}
    for name, binarisation in (("gray", "none"), ("binary", "static")):
        found = classes(network, features(network, model_inputs(images, binarisation)))
        metrics |= mean_with_error(f"accuracy_{name}", found == images.labels)
    return metrics


def read_classifier(path: Path) -> Network:
    """The classifier that this stage wrote; InputError if the file is missing or damaged."""
    weights, _ = read_tensors(path, "classifier")
    network = Network()
    network.load_state_dict({name: torch.from_numpy(x) for name, x in weights.items()})
    return network.eval().requires_grad_(False)


class Files(Section):
    """The files of this stage."""

    train: TrainSet
    test: TestSet
    classifier: Annotated[Path, "the weights to write (.safetensors)"]
    accuracy: Annotated[Path, "accuracies on the test set to write (.json)"]


def main(files: Files, settings: Classifier) -> None:
    """Train, classify the test images, write the weights and the accuracies."""
    repeatable()
    images = read_set(files.train, "train")
    with cli.progress(None, "classify", settings.epochs * len(images), "image") as bar:
        network = train(images, settings, bar.update)
    found = accuracies(network, read_set(files.test, "test", images.metadata))
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    metadata = {"data": images.metadata, "classifier": settings.model_dump()}
    write_tensors(files.classifier, "classifier", weights, metadata)
    write_json(files.accuracy, found)
    gray, binary = (
        f"{found[name]:.2%} ± {found[f'{name}_se']:.2%} on {name.removeprefix('accuracy_')}"
        for name in ("accuracy_gray", "accuracy_binary")
    )
    cli.log.info("classify: accuracy %s, %s images, wrote %s", gray, binary, files.accuracy)
