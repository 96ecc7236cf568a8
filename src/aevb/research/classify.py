"""Train the classifier that provides the features for comparing samples.

Samples are gray levels or zeros and ones, depending on what their model was trained on; so half of
the images of each batch are gray and the other half are binarised again.
"""

import math
from pathlib import Path
from typing import Annotated

from aevb.data import CLASSES, ImageSet, model_inputs, read_set
from aevb.files import read_tensors, write_json, write_tensors
from aevb.intervals import means_with_errors
from aevb.plumbing import cli
from aevb.plumbing.params import Classifier, TestSet, TrainSet
from aevb.rng import Floats, Random

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

FEATURES = 64
BLOCK = 500
"""Images that are classified at once."""


def new_network(random: Random) -> nn.Sequential:
    """Two convolutions with stride 2, a hidden layer of 64 units (the features), a linear layer.

    It maps images [B, 1, 28, 28] to the logits of the classes, [B, 10]. Initial weights and biases
    are uniform in ±1/√inputs, PyTorch's own choice.
    """
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU()),
        *(nn.Conv2d(16, 32, 5, stride=2, padding=2), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(32 * 7 * 7, FEATURES), nn.ReLU(), nn.Linear(FEATURES, CLASSES)),
    )
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:  # weights; the biases follow
                bound = 1 / math.sqrt(parameter[0].numel())
            values = (random.uniform(parameter.shape) * 2 - 1) * bound
            parameter.copy_(torch.from_numpy(values))
    return network


def trained(images: ImageSet, settings: Classifier) -> nn.Sequential:
    """A network trained by Adam on the cross entropy, with a rate that falls linearly to 0."""
    seed, batch_size = settings.seed, settings.batch_size
    network = new_network(Random("initialise classifier", seed))
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
            x = torch.from_numpy(pixels).unsqueeze(1).float() / 255
            optimiser.zero_grad()
            F.cross_entropy(network(x), labels[index]).backward()
            optimiser.step()
            schedule.step()
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def features(network: nn.Sequential, x: Floats) -> Floats:
    """The features of images [N, 784], float32 [N, FEATURES], all ≥ 0."""
    blocks = torch.from_numpy(x).view(-1, 1, 28, 28).split(BLOCK)
    return torch.cat([network[:-1](images) for images in blocks]).numpy()


@torch.inference_mode()
def classes(network: nn.Sequential, features: Floats) -> NDArray[np.uint8]:
    """The most probable class for features [N, FEATURES], uint8 [N]."""
    return np.asarray(network[-1](torch.from_numpy(features)).argmax(1), np.uint8)


def accuracies(network: nn.Sequential, images: ImageSet) -> dict[str, float]:
    """The share of images classified correctly, gray and binarised, with standard errors."""
    right = {
        f"accuracy_{name}": classes(network, features(network, model_inputs(images, binarisation)))
        == images.labels
        for name, binarisation in (("gray", "none"), ("binary", "static"))
    }
    return {"images": len(images), **means_with_errors(right)}


def read_classifier(path: Path) -> nn.Sequential:
    """The classifier that this stage wrote; InputError if the file is missing or damaged."""
    weights, _ = read_tensors(path, "classifier")
    network = new_network(Random("any"))
    network.load_state_dict({name: torch.from_numpy(x) for name, x in weights.items()})
    return network.eval().requires_grad_(False)


def main(
    train: TrainSet,
    test: TestSet,
    classifier: Annotated[Path, "the weights to write (.safetensors)"],
    accuracy: Annotated[Path, "accuracies on the test set to write (.json)"],
    settings: Classifier,
) -> None:
    """Train, classify the test images, write the weights and the accuracies."""
    images = read_set(train, "train")
    network = trained(images, settings)
    found = accuracies(network, read_set(test, "test", images.metadata))
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    metadata = {"data": images.metadata, "classifier": settings.model_dump()}
    write_tensors(classifier, "classifier", weights, metadata)
    write_json(accuracy, found)
    summary = "accuracy {accuracy_gray:.2%} on gray, {accuracy_binary:.2%} on binary images"
    cli.log.info("classify: %s, wrote %s", summary.format(**found), accuracy)
