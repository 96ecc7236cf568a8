"""Every parameter of every stage: its type, range, default and meaning, defined here once.

The flags of each stage, the check of params.yaml before any work starts, the comments of
params.yaml and its JSON schema all come from this definition.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from aevb.datasets import DATASETS

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

if TYPE_CHECKING:
    DatasetName = str
    Likelihood = str
else:
    # The text of the module is searched, because it imports torch: that takes over a second, in
    # each process that Snakemake starts.
    text = (Path(__file__).parents[1] / "likelihoods.py").read_text(encoding="utf-8")
    DatasetName = Literal[tuple(DATASETS)]
    Likelihood = Literal[tuple(re.findall(r'^    "(\w+)": Likelihood\(', text, re.M))]

PLACE, SHA256 = r"^[\w./~:@%+,=][\w./~:@%+,=-]*$", "^[0-9a-f]{64}$"
IN_WORDS = {
    PLACE: "path or URL without spaces and quotes",
    SHA256: "SHA-256 checksum of 64 hexadecimal digits",
}
"""The meaning of these regular expressions, for messages."""


def _four_or_none(values: list[str]) -> list[str]:
    if len(values) not in (0, 4):
        raise ValueError("should hold four checksums or none")
    return values


def _each_once(values: list[int]) -> list[int]:
    if len({*values}) < len(values):
        raise ValueError("should hold each number once")
    return values


def _ascending_epochs(values: list[int], others: ValidationInfo) -> list[int]:
    last = others.data.get("max_epochs", 0)  # missing if it is itself wrong
    if values != sorted({*values}) or (last and values and values[-1] > last):
        raise ValueError("should ascend up to at most max_epochs")
    return values


Place = Annotated[str, Field(pattern=PLACE)]
Sha256 = Annotated[str, Field(pattern=SHA256)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[int, Field(ge=1, le=10**6)]
Several = Annotated[int, Field(ge=2, le=10**6)]
Few = Annotated[int, Field(ge=1, le=100)]
Seconds = Annotated[float, Field(ge=0)]

TrainSet = Annotated[Path, "training images (.safetensors)"]
TestSet = Annotated[Path, "test images (.safetensors)"]
TrainedModel = Annotated[Path, "the trained model (.safetensors)"]


def param(default: Any, meaning: str, **limits: Any) -> Any:
    """A parameter with its default, its meaning and the limits of its value."""
    return Field(default, description=meaning, **limits)


class Section(BaseModel):
    """A section of params.yaml: the parameters of one stage, which become its flags."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Data(Section):
    """The data set, and where to download it from."""

    name: DatasetName = param("mnist", "the data set")
    mirror: Place = param("none", "folder or URL with the .gz files, tried before the public ones")
    sha256: Annotated[list[Sha256], AfterValidator(_four_or_none)] = param(
        [], "of train images, train labels, test images, test labels, if unofficial"
    )


class Split(Section):
    """Training, validation and test sets."""

    validation_size: int = param(
        10000, "training images held out for validation; 0: no early stopping", ge=0, lt=60000
    )
    seed: Seed = param(0, "seed of the permutation and of the static binarisation")


class Model(Section):
    """The model; the number of its latent dimensions is in `runs`."""

    likelihood: Likelihood = param("bernoulli", "distribution p(x|z)")
    hidden: Positive = param(500, "tanh units in the encoder and in the decoder")


class Train(Section):
    """Maximisation of the ELBO by stochastic gradient ascent."""

    binarisation: Literal["dynamic", "static", "none"] = param(
        "dynamic", "pixels drawn in each epoch, drawn once, or gray"
    )
    optimiser: Literal["adam", "adagrad"] = param("adam", "the paper uses Adagrad")
    learning_rate: float = param(0.005, "initial learning rate", gt=0, le=1)
    decay: float = param(
        0.6, "fraction of training, at its end, in which the rate falls linearly to 0", ge=0, le=1
    )
    batch_size: Positive = param(256, "images per minibatch")
    mc_samples: Positive = param(1, "samples of z per image (r in the estimator)")
    initialisation: Literal["default", "paper"] = param(
        "default", "initial weights; paper: N(0, 0.01)"
    )
    weight_decay: float = param(
        0.0, "precision of a Gaussian prior on the decoder's weights", ge=0, le=1e6
    )
    max_epochs: Positive = param(40, "largest number of passes over the training set")
    patience: Positive = param(10, "epochs without a better validation ELBO before training stops")
    snapshots: Annotated[list[Positive], AfterValidator(_ascending_epochs)] = param(
        [], "epochs after which the weights are also kept, to score them later"
    )
    precision: Literal["exact", "float32", "bfloat16", "auto"] = param(
        "exact", "exact: same bytes on any machine"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = param(
        "auto", "auto: cuda if available, unless exact"
    )
    threads: int = param(
        1, "CPU threads; results depend on them unless precision is exact", ge=1, le=1024
    )


class Evaluate(Section):
    """Bounds on log p(x) on the test set."""

    iwae_k: Positive = param(50, "samples of z per image (K of the IWAE bound)")
    seed: Seed = param(0, "seed of the samples of z")


class Sample(Section):
    """Images drawn from the model with z from the prior."""

    rows: Few = param(10, "rows of the grid of images")
    columns: Few = param(10, "columns of the grid of images")
    seed: Seed = param(0, "seed of the samples of z and of the images")


class Reconstruct(Section):
    """Test images, encoded and decoded."""

    images: int = param(20, "number of test images", ge=1, le=1000)
    seed: Seed = param(0, "seed of the choice of images, the same for all runs")


class InferenceGap(Section):
    """On request: log p(x), and the parts of the gap between it and the ELBO."""

    images: Several = param(1000, "number of test images and of training images")
    samples: Positive = param(1000, "samples of z per image, the largest K of the IWAE bound")
    steps: Positive = param(200, "steps of Adam that optimise q(z|x) for each image")
    points: int = param(262144, "points of each lattice, best a power of two", ge=2, le=2**20)
    temperatures: Several = param(1500, "intermediate distributions of AIS, from p(z) to p(z|x)")
    leapfrog: Positive = param(2, "leapfrog steps of HMC per temperature")
    seed: Seed = param(0, "seed of the choice of images and of all random numbers")


class GradientVariance(Section):
    """On request: variance of the reparametrised and of the score-function gradient."""

    images: Several = param(100, "number of test images, the first ones")
    samples: Several = param(2000, "samples of z per image")
    seed: Seed = param(0, "seed of the samples of z")


class Latents(Section):
    """On request: active units, mutual information, and a mixture fitted to the codes."""

    threshold: float = param(0.01, "least variance of the mean of an active unit", gt=0, le=1000)
    samples: Positive = param(5, "samples of z per image for the mutual information")
    components: Positive = param(100, "components of the Gaussian mixture")
    seed: Seed = param(0, "seed of the samples of z")


class Traverse(Section):
    """On request: images of the latent space."""

    grid: Few = param(20, "images per side of the manifold")
    dimensions: Few = param(10, "number of dimensions, those with the largest KL")
    steps: int = param(13, "images per traversal or interpolation", ge=2, le=100)
    extent: float = param(3.0, "traversals cover [-extent, extent]", gt=0, le=100)
    pairs: Few = param(8, "pairs of test images to interpolate between")
    seed: Seed = param(0, "seed of the choice of images")


class Classifier(Section):
    """On request: a classifier; samples and test images are compared in its features."""

    epochs: int = param(8, "passes over the training set", ge=1, le=1000)
    batch_size: Positive = param(100, "images per minibatch")
    learning_rate: float = param(
        0.003, "initial learning rate of Adam, decays linearly to 0", gt=0, le=1
    )
    seed: Seed = param(0, "seed of initial weights, minibatches and binarisation")


class SampleQuality(Section):
    """On request: precision, recall and Fréchet distance of samples."""

    images: int = param(10000, "number of samples and of test images", ge=20, le=10**6)
    neighbours: int = param(5, "k of the k-nearest-neighbour balls", ge=1, le=1000)
    seed: Seed = param(0, "seed of the samples and of the choice of images")


class Runs(Section):
    """One training for each combination of latent dimensions and seed."""

    latent_dims: Annotated[
        list[Annotated[int, Field(ge=1, le=10000)]], AfterValidator(_each_once)
    ] = param([3, 20], "k, numbers of latent dimensions", min_length=1)
    seeds: Annotated[list[Seed], AfterValidator(_each_once)] = param(
        [0], "seeds of initial weights, minibatches and samples", min_length=1
    )


class Params(Section):
    """params.yaml as a whole."""

    data: Data = Data()
    split: Split = Split()
    model: Model = Model()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    sample: Sample = Sample()
    reconstruct: Reconstruct = Reconstruct()
    inference_gap: InferenceGap = InferenceGap()
    gradient_variance: GradientVariance = GradientVariance()
    latents: Latents = Latents()
    traverse: Traverse = Traverse()
    classifier: Classifier = Classifier()
    sample_quality: SampleQuality = SampleQuality()
    runs: Runs = Runs()
