"""Every parameter of every stage: its type, range, default and meaning, defined here once.

The flags of each stage, the check of params.yaml before any work starts, the comments of
params.yaml, its JSON schema and docs/parameters.md all come from this definition.
"""

import difflib
import re
import reprlib
import shlex
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo

from aevb.datasets import DATASETS

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
"""The meaning of these regular expressions, for messages and documents."""

Values = dict[str, dict[str, Any]]
"""Sections of parameters, as params.yaml holds them."""


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
Neighbours = Annotated[int, Field(ge=1, le=1000)]
Seconds = Annotated[float, Field(ge=0)]

TrainSet = Annotated[Path, "training images (.safetensors)"]
TestSet = Annotated[Path, "test images (.safetensors)"]
TrainedModel = Annotated[Path, "the trained model (.safetensors)"]

RENAMED = {
    "train.treatment": "train.binarisation",
    "iwae": "inference_gap",
    "ais": "inference_gap",
    "estimators": "gradient_variance",
    "fidelity": "sample_quality",
    "fixed": "static",
    "gray": "none",
}
"""Former names of parameters, sections and values of train.binarisation."""


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
    neighbours: Neighbours = param(5, "k of the k-nearest-neighbour balls")
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


def one_line(text: str) -> str:
    """Text without line ends or other characters that would move the cursor of a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))


def suggestion(where: str) -> str:
    """The present name of an unknown parameter, or the most similar name, if there is one."""
    if where in RENAMED:
        return f"{where} is now called {RENAMED[where]}"
    sections = {name: [key for key, _ in section] for name, section in Params()}
    section, _, key = where.rpartition(".")
    near = difflib.get_close_matches(key, sections.get(section, sections), 1)
    names = [f"{section}.{name}" if section else name for name in near]
    names = names or [f"{name}.{key}" for name, keys in sections.items() if key in keys]
    hint = f"; did you mean {names[0]}?" if len(names) == 1 else ""
    return f"{where} is not a parameter{hint}"


def problems(error: ValidationError) -> str:
    """Pydantic's findings in one line: `train.decay is 2 and should be less than or equal to 1`."""
    lines = []
    for item in error.errors():
        where, value = ".".join(str(part) for part in item["loc"]), item["input"]
        if item["type"] == "extra_forbidden":
            lines.append(suggestion(where))
            continue
        message = item["msg"][max(item["msg"].find("should"), 0) :]
        if item["type"] == "string_pattern_mismatch":
            message = f"should be a {IN_WORDS[item['ctx']['pattern']]}"
        elif item["type"] in ("int_type", "float_type") and re.fullmatch(r"-?[\d.]+", str(value)):
            message += "; write it without quotes"
        elif item["type"] == "literal_error" and str(value) in RENAMED:
            message += f"; {value} is now called {RENAMED[value]}"
        lines.append(f"{where} is {reprlib.repr(value)} and {message}")
    return one_line("; ".join(lines))


def check(values: Any, where: object = "params.yaml", base: Values | None = None) -> Values:
    """The parameters of all stages, validated; what is not in `values` is taken from `base`.

    Raises:
        ValueError: in one line, for an unknown or missing key or for a value that is not allowed.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where} should hold sections with parameters, as data: {{name: mnist}}")
    whole = dict(base or {})
    for name, section in values.items():
        both = isinstance(section, dict) and name in whole
        whole[name] = {**whole[name], **section} if both else section
    try:
        checked = Params.model_validate(whole)
    except ValidationError as error:
        raise ValueError(f"{where}: {problems(error)}") from None
    # A missing key would silently get its default, but params.yaml is to describe the whole run.
    for name, section in checked:
        for key, _ in section:
            if key not in section.model_fields_set:
                raise ValueError(f"{where}: {name}.{key} is missing")
    return whole


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, if Snakemake (YAML 1.1) and DVC (YAML 1.2) read the same.

    Raises:
        ValueError: in one line, if it cannot be read or if they differ: 0100 is 64 in YAML 1.1.
    """
    from ruamel.yaml import YAML

    depth = 0
    try:
        text = path.read_text(encoding="utf-8")
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > 9 or isinstance(event, yaml.AliasEvent):  # may take minutes to construct
                raise ValueError("aliases and deeply nested values are not supported")
        values = yaml.safe_load(text), YAML(typ="safe", pure=True).load(text)
        ours, theirs = (yaml.safe_dump(value, sort_keys=False).splitlines() for value in values)
    except Exception as error:  # KeyError for `!!bool x` …
        raise ValueError(f"{path}: cannot be read as YAML ({one_line(str(error))})") from None
    section = ""
    for mine, other in zip_longest(ours, theirs, fillvalue=""):
        if not mine.startswith((" ", "-")):
            section = mine.partition(":")[0]
        if mine != other:
            differ = f"{section}: Snakemake reads `{mine.strip()}` and DVC `{other.strip()}`"
            raise ValueError(f"{path}: {one_line(differ)}; write numbers plainly, as 0.001")
    return values[0]


def flags(section: dict[str, Any]) -> str:
    """A section as flags of a stage, as DVC unpacks `${section}`: `--hidden 500 --likelihood …`."""
    words: list[str] = []
    for name, value in section.items():
        values = value if isinstance(value, list) else [value]
        if values:  # DVC leaves out empty lists
            words += [f"--{name}", *(shlex.quote(str(item)) for item in values)]
    return " ".join(words)
