"""What the stages on request share: their files, and how they write their results."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from aevb.data import ImageSet, fixed_draw, model_inputs, read_set
from aevb.files import InputError, write_json, write_tensors
from aevb.intervals import mean_with_error
from aevb.likelihoods import is_likelihood
from aevb.model import VAE, read_model
from aevb.plumbing import cli
from aevb.plumbing.machine import repeatable
from aevb.plumbing.params import Section, TestSet, TrainedModel, TrainSet


class ModelAndTestSet(Section):
    """The inputs of a stage that looks at a model."""

    model: TrainedModel
    test: TestSet


class Files(ModelAndTestSet):
    """The files of a stage that scores a model."""

    metrics: Annotated[Path, "means over images to write (.json)"]
    arrays: Annotated[Path, "arrays that the means are computed from, to write (.safetensors)"]


class FilesAndTrainSet(Files):
    """The files of a stage that also needs the training images."""

    train: TrainSet


def require(condition: bool, message: str) -> None:
    """Raise an InputError with this message unless the condition holds."""
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
    """

    stage: str
    run: str
    model: VAE
    metadata: dict[str, Any]
    test: ImageSet
    x: NDArray[np.float32]

    def first(self, images: int, reserved: int = 0) -> NDArray[np.float32]:
        """The first test images, [images, 784]; InputError if they include the reserved last."""
        rest = f", of which the last {reserved} are kept for tuning" if reserved else ""
        fault = f"--images {images}: the test set has {len(self.x)} images{rest}"
        require(images + reserved <= len(self.x), fault)
        return self.x[:images]

    @torch.inference_mode()
    def encode(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """mu and log sigma² of q(z|x), each [N, k]."""
        mu, log_var = self.model.encode(torch.from_numpy(x))
        return mu.numpy(), log_var.numpy()

    def progress(self, total: int, unit: str = "image") -> Any:
        """A progress bar, to be used as a context; its `update` is a callback."""
        return cli.progress(None, f"{self.stage} {self.run}", total, unit)

    def is_log_likelihood(self) -> dict[str, int]:
        """A metric: 1 if the likelihood suits the binarisation, so that bounds bound log p(x)."""
        suits = is_likelihood(self.metadata["likelihood"], self.metadata["binarisation"])
        return {"is_log_likelihood": int(suits)}

    def write(
        self,
        files: Files,
        arrays: dict[str, NDArray[Any]],
        metrics: Mapping[str, float],
        summary: str,
    ) -> None:
        """Write arrays and finite metrics (InputError), and log the metrics named in `summary`."""
        name = f"{self.stage} {self.run}"
        for metric, value in metrics.items():
            require(math.isfinite(value), f"{name}: {metric} is {value}; train the model again")
        write_tensors(files.arrays, self.stage, arrays, self.metadata, model=files.model)
        write_json(files.metrics, metrics)
        mark = "" if metrics.get("is_log_likelihood", 1) else " († not a log-likelihood)"
        cli.log.info("%s: %s%s, wrote %s", name, summary.format(**metrics), mark, files.metrics)


def read_inputs(stage: str, files: ModelAndTestSet) -> Inputs:
    """Make the computation repeatable, and read the model and the test images."""
    repeatable()
    threadpool_limits(1)
    model, metadata = read_model(files.model)
    test = read_set(files.test, "test", metadata.get("data", {}))
    run = f"k = {model.latent_dim}, seed {metadata['seed']}"
    x = model_inputs(test, metadata["binarisation"])
    return Inputs(stage, run, model, metadata, test, x)


def read_training_set(path: Path) -> ImageSet:
    """Training images with the one static draw that `train.binarisation: static` trains on.

    The file has none, since dynamic binarisation draws them anew in each epoch.
    """
    images = read_set(path, "train")
    return replace(images, binary=fixed_draw(images.images, "train", images.metadata["seed"]))


def means(values: Mapping[str, ArrayLike]) -> dict[str, float]:
    """The mean over images of each quantity and, as `…_se`, its standard error."""
    metrics: dict[str, float] = {}
    for name, per_image in values.items():
        metrics |= mean_with_error(name, per_image)
    return metrics
