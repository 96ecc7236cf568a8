"""A small convolutional network that tells the classes apart, and the features it does so by.

It judges samples, which are gray levels or zeros and ones as their model's training images were:
so half of the images of each batch are gray, the other half are drawn anew as zeros and ones.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from aevb.data import CLASSES, ImageSet, model_inputs
from aevb.files import InputError, read_tensors, write_tensors
from aevb.intervals import mean_with_error
from aevb.plumbing.params import Classifier
from aevb.rng import torch_generator

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

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the initial weights and biases: uniform in ±1/√inputs, PyTorch's own choice."""
        for layer in (self.first, self.second, self.hidden, self.output):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def features(self, x: Tensor) -> Tensor:
        """Images [B, 784] to the units before the last layer, [B, FEATURES], all ≥ 0."""
        maps = F.relu(self.second(F.relu(self.first(x.view(-1, 1, 28, 28)))))
        return F.relu(self.hidden(maps.flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 784] to the logits of the classes, [B, 10]."""
        logits: Tensor = self.output(self.features(x))
        return logits


def train(
    images: ImageSet, settings: Classifier, callback: Callable[[int], Any] = lambda _: None
) -> Network:
    """A network trained by Adam on the cross entropy, the rate falling in a line to 0.

    `told` hears the number of images of each step.
    """
    network = Network()
    network.initialise(torch_generator("cpu", "initialise classifier", settings.seed))
    random = torch_generator("cpu", "train classifier", settings.seed)
    pixels = torch.from_numpy(images.images)
    labels = torch.from_numpy(images.labels).long()
    optimiser = torch.optim.Adam(network.parameters(), settings.learning_rate, fused=True)
    steps = settings.epochs * math.ceil(len(images) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    for _ in range(settings.epochs):
        for index in torch.randperm(len(images), generator=random).split(settings.batch_size):
            # Moved by a pixel at most: 0.2 % more of the validation images are told right.
            move = torch.randint(-1, 2, (2,), generator=random).tolist()
            x = (pixels[index].float() / 255).roll(move, (1, 2)).flatten(1)
            x[::2] = torch.bernoulli(x[::2], generator=random)
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
    logits: Tensor = network.output(torch.from_numpy(features))
    return logits.argmax(1).numpy().astype(np.uint8)


def accuracy(network: Network, images: ImageSet) -> dict[str, float]:
    """The share of images whose class is found, gray and by their fixed draw, with its error."""
    result: dict[str, float] = {"images": len(images)}
    for name, binarisation in (("gray", "none"), ("binary", "static")):
        found = classes(network, features(network, model_inputs(images, binarisation)))
        result |= mean_with_error(f"accuracy_{name}", found == images.labels)
    return result


def write_classifier(path: Path, network: Network, metadata: Mapping[str, Any]) -> None:
    """Write the weights in float32."""
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    write_tensors(path, "classifier", weights, metadata)


def read_classifier(path: Path) -> Network:
    """Read what `write_classifier` wrote.

    Raises:
        InputError: if the file is missing, torn, foreign or holds weights that do not fit.
    """
    weights, _ = read_tensors(path, "classifier")
    network = Network()
    try:
        network.load_state_dict({name: torch.from_numpy(x) for name, x in weights.items()})
    except (TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: its weights do not fit ({reason}); make it again") from None
    return network.eval().requires_grad_(False)
