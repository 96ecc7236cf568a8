"""What the stages on request share: their files, and how they write their results."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from aevb.data import fixed_draw, model_inputs, read_set
from aevb.exact import exact
from aevb.files import InputError, write_json, write_tensors
from aevb.likelihoods import is_likelihood
from aevb.model import VAE, read_model
from aevb.plumbing import cli
from aevb.plumbing.params import Section, TestSet, TrainedModel
from aevb.rng import Floats

import numpy as np
import torch
from numpy.typing import NDArray


class Files(Section):
    """The files of a stage that looks at a model."""

    model: TrainedModel
    test: TestSet
    arrays: Annotated[Path, "what the metrics or figures show, as arrays to write (.safetensors)"]


class Scored(Files):
    """The files of a stage that scores a model."""

    metrics: Annotated[Path, "means over images to write (.json)"]


def require(condition: bool, message: str) -> None:
    """Raise an InputError with this message unless the condition is true."""
    if not condition:
        raise InputError(message)


@dataclass(frozen=True)
class Inputs:
    """A trained model and the test images that it is scored on.

    Attributes:
        stage: the name of the stage.
        run: the run, for titles: `k = 3, seed 0`.
        metadata: that of the model.
        x: the test images, binarised as in training, float32 [N, 784].
        gray: the same images as gray levels, float32 [N, 784].
        labels: their classes, uint8 [N].
    """

    stage: str
    run: str
    model: VAE
    metadata: dict[str, Any]
    x: Floats
    gray: Floats
    labels: NDArray[np.uint8]

    def first(self, images: int) -> Floats:
        """The first test images, [images, 784]; InputError if there are fewer."""
        count = len(self.x)
        require(images <= count, f"--images {images}: the test set has {count} images")
        return self.x[:images]

    def training_images(self, path: Path, binarisation: str | None = None) -> Floats:
        """Training images, by default binarised as in training, float32 [N, 784].

        With dynamic binarisation they are those that `train.binarisation: static` trains on.
        """
        images = read_set(path, "train", self.metadata.get("data", {}))
        drawn = fixed_draw(images.images, "train", images.metadata["seed"])
        images = replace(images, binary=drawn)
        return model_inputs(images, binarisation or self.metadata["binarisation"])

    def encode(self, x: Floats) -> tuple[Floats, Floats]:
        """mu and log sigma² of q(z|x), each [N, k], in exact arithmetic."""
        with exact():
            parts = [self.model.encode(images) for images in torch.from_numpy(x).split(1000)]
        mu, log_var = (torch.cat(tensors).numpy() for tensors in zip(*parts, strict=True))
        return mu, log_var

    def decode(self, z: Floats) -> Floats:
        """E[x|z], [..., 784], for latents [..., k], in exact arithmetic."""
        with exact():
            return self.model.mean(torch.from_numpy(z)).numpy()

    def is_log_likelihood(self) -> int:
        """A metric: 1 if the likelihood suits the binarisation, so that bounds bound log p(x)."""
        return int(is_likelihood(self.metadata["likelihood"], self.metadata["binarisation"]))

    def write(
        self,
        files: Scored,
        arrays: Mapping[str, NDArray[Any]],
        metrics: Mapping[str, float],
        summary: str,
    ) -> None:
        """Write arrays and finite metrics (InputError), and log the metrics named in `summary`."""
        name = f"{self.stage} {self.run}"
        for metric, value in metrics.items():
            require(math.isfinite(value), f"{name}: {metric} is {value}; train the model again")
        self.write_arrays(files, arrays)
        write_json(files.metrics, metrics)
        cli.log.info("%s: %s, wrote %s", name, summary.format(**metrics), files.metrics)

    def write_arrays(self, files: Files, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write the arrays with the metadata of the model."""
        write_tensors(files.arrays, self.stage, dict(arrays), self.metadata, model=files.model)


def read_inputs(stage: str, model: Path, test: Path) -> Inputs:
    """Read the model and the test images."""
    vae, metadata = read_model(model)
    images = read_set(test, "test", metadata.get("data", {}))
    run = f"k = {vae.latent_dim}, seed {metadata['seed']}"
    x, gray = (model_inputs(images, pixels) for pixels in (metadata["binarisation"], "none"))
    return Inputs(stage, run, vae, metadata, x, gray, images.labels)
