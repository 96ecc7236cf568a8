"""Every parameter of every stage: its type, range, default and meaning, defined here once.

From this definition come the flags of each stage (`aevb.cli`), the check of params.yaml before any
work starts, and what `aevb.reference` writes: the shipped params.yaml with its comments, the JSON
schema for editors, docs/parameters.md.
"""

import difflib
import reprlib
import shlex
from collections import Counter
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aevb.datasets import DATASETS

Likelihood = Literal["bernoulli", "continuous_bernoulli", "gaussian"]
Binarisation = Literal["dynamic", "static", "none"]
Optimiser = Literal["adam", "adagrad"]
Precision = Literal["float32", "bfloat16", "auto"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Around = Literal["image", "origin"]

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[int, Field(ge=1, le=10**6)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

PER_RUN = ("train", "evaluate", "sample", "reconstruct")
"""The stages that run once for each latent dimension and seed."""


class Section(BaseModel):
    """A section of params.yaml: the parameters of one stage, which become its flags."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    reruns: ClassVar[tuple[str, ...]] = ()
    """The stages that run again when a value changes."""


class Data(Section):
    """The data set, and where to download it from."""

    reruns = ("download", "split", *PER_RUN, "compare")

    name: Literal[*DATASETS] = Field("mnist", description="the data set")  # type: ignore[valid-type]
    mirror: str = Field(
        "none",
        pattern=r"^[\w./~:@%+,=][\w./~:@%+,=-]*$",
        description="folder or URL with the .gz files, tried before the public ones",
    )
    sha256: list[Sha256] = Field(
        [],
        description="of train images and labels, test images and labels, if not official",
    )


class Split(Section):
    """Training and validation sets, cut from the 60,000 training images."""

    reruns = ("split", *PER_RUN, "compare")

    validation_size: int = Field(
        10000, ge=0, lt=60000, description="images held out for early stopping; 0: none"
    )
    seed: Seed = Field(0, description="of the permutation and of the static binarisation")


class Model(Section):
    """The model; its latent dimensions stand in `runs`."""

    reruns = (*PER_RUN, "compare")

    likelihood: Likelihood = Field(
        "bernoulli", description="p(x|z): bernoulli, continuous_bernoulli or gaussian"
    )
    hidden: Positive = Field(500, description="tanh units in the encoder and in the decoder")


class Train(Section):
    """Maximisation of the Monte Carlo ELBO by stochastic gradients."""

    reruns = (*PER_RUN, "compare")

    binarisation: Binarisation = Field(
        "dynamic",
        description="of pixels: dynamic (a new draw each epoch), static (one draw), none (gray)",
    )
    optimiser: Optimiser = Field("adam", description="adam, or adagrad as in the paper")
    learning_rate: float = Field(0.005, gt=0, le=1, description="of the optimiser, until it decays")
    decay: float = Field(
        0.6, ge=0, le=1, description="share of max_epochs, the last, in which the rate falls to 0"
    )
    batch_size: Positive = Field(256, description="images a step")
    mc_samples: Positive = Field(1, description="samples of z an image: r in the estimator")
    max_epochs: Positive = Field(40, description="passes over the training set")
    patience: Positive = Field(
        10, description="epochs without a better validation ELBO before training stops"
    )
    precision: Precision = Field(
        "auto",
        description="of matrix products: float32, bfloat16, or auto: bfloat16 where it is native",
    )
    device: Device = Field(
        "auto", description="cpu, cuda, mps, or auto: cuda where there is one, else cpu"
    )
    threads: int = Field(
        1, ge=1, le=1024, description="CPU threads; another number gives other rounding"
    )


class Evaluate(Section):
    """Bounds on the test set."""

    reruns = ("evaluate", "compare")

    iwae_k: Positive = Field(50, description="samples of z an image, for every bound")
    seed: Seed = Field(0, description="of the samples of z")


class Sample(Section):
    """Images from the prior."""

    reruns = ("sample", "compare")

    rows: int = Field(10, ge=1, le=100, description="of the grid")
    columns: int = Field(10, ge=1, le=100, description="of the grid")
    seed: Seed = Field(0, description="of z and of the drawn images")


class Reconstruct(Section):
    """Test images, encoded and decoded."""

    reruns = ("reconstruct", "compare")

    images: int = Field(20, ge=1, le=1000, description="test images, the same for every run")
    seed: Seed = Field(0, description="of the choice of images")


class Iwae(Section):
    """The bound at 1, 10, 100 … samples: how it nears log p(x)."""

    reruns = ("iwae", "summarise")

    images: int = Field(1000, ge=2, le=10**6, description="test images, the first ones")
    samples: Positive = Field(5000, description="samples of z an image: the largest K")
    seed: Seed = Field(0, description="of the samples of z")


class Ais(Section):
    """log p(x) by annealed importance sampling, which does without q(z|x)."""

    reruns = ("ais", "summarise")

    images: int = Field(100, ge=2, le=10**6, description="test images, and as many simulated ones")
    chains: Positive = Field(2, description="for each image")
    temperatures: int = Field(1500, ge=2, le=10**6, description="steps from the prior to p(z|x)")
    leapfrog: Positive = Field(2, description="steps of Hamiltonian dynamics a temperature")
    iwae_k: Positive = Field(1000, description="samples of z an image for the bound beside it")
    seed: Seed = Field(0, description="of chains and simulated images")


class GradientVariance(Section):
    """How noisy the gradient is, reparametrised and by the score function."""

    reruns = ("gradient_variance", "summarise")

    images: int = Field(100, ge=2, le=10**6, description="test images, the first ones")
    samples: int = Field(2000, ge=2, le=10**6, description="draws of z an image")
    seed: Seed = Field(0, description="of the draws of z")


class Latents(Section):
    """What the latents hold; no default stage."""

    reruns = ("latents", "summarise")

    threshold: float = Field(
        0.01, gt=0, le=1000, description="a unit is active if the variance of its mean is above it"
    )
    samples: Positive = Field(5, description="samples of z an image, for the mutual information")
    neighbours: int = Field(5, ge=1, le=1000, description="of the nearest-neighbour classifier")
    seed: Seed = Field(0, description="of the samples of z")


class Traverse(Section):
    """Pictures of the latent space; no default stage."""

    reruns = ("traverse",)

    grid: int = Field(20, ge=1, le=100, description="images on a side of the manifold")
    dimensions: int = Field(10, ge=1, le=100, description="traversed, those of the largest KL")
    steps: int = Field(13, ge=2, le=100, description="images a traversal or interpolation")
    extent: float = Field(3.0, gt=0, le=100, description="a traversal goes from minus it to it")
    around: Around = Field("image", description="the other dimensions: mu of an image, or 0")
    pairs: int = Field(8, ge=1, le=100, description="test images interpolated between, two each")
    seed: Seed = Field(0, description="of the choice of images")


class Classifier(Section):
    """Tells the classes of images apart; samples are compared in its features."""

    reruns = ("classify", "sample_quality", "summarise")

    epochs: int = Field(8, ge=1, le=1000, description="passes over the training set")
    batch_size: Positive = Field(100, description="images a step")
    learning_rate: float = Field(
        0.003, gt=0, le=1, description="of Adam at the start, falling in a line to 0"
    )
    seed: Seed = Field(0, description="of initialisation, batches and binarisation")


class SampleQuality(Section):
    """Samples beside test images: how alike they are, how much they cover."""

    reruns = ("sample_quality", "summarise")

    images: int = Field(10000, ge=20, le=10**6, description="samples, and as many test images")
    neighbours: int = Field(5, ge=1, le=1000, description="k of the k-nearest-neighbour balls")
    seed: Seed = Field(0, description="of the samples and of the choice of images")


class Runs(Section):
    """One training for each latent dimension and each seed."""

    reruns = ("compare",)

    latent_dims: list[Annotated[int, Field(ge=1, le=10000)]] = Field(
        [3, 20], min_length=1, description="k, the dimensions of z"
    )
    seeds: list[Seed] = Field([0], min_length=1, description="of initialisation, batches and noise")


class Params(Section):
    """params.yaml as a whole."""

    data: Data = Data()
    split: Split = Split()
    model: Model = Model()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    sample: Sample = Sample()
    reconstruct: Reconstruct = Reconstruct()
    iwae: Iwae = Iwae()
    ais: Ais = Ais()
    gradient_variance: GradientVariance = GradientVariance()
    latents: Latents = Latents()
    traverse: Traverse = Traverse()
    classifier: Classifier = Classifier()
    sample_quality: SampleQuality = SampleQuality()
    runs: Runs = Runs()


def one_line(text: str) -> str:
    """Text without line ends or what else would move the cursor of a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def shown(value: Any) -> str:
    """A value as Python writes it, cut where it is long or deep."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 80
    try:
        return short.repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "a very long number"


def did_you_mean(where: str) -> str:
    """A hint at a key like it in this section, or at the one section that has the key."""
    sections = {name: [key for key, _ in section] for name, section in Params()}
    section, _, key = where.rpartition(".")
    near = difflib.get_close_matches(key, sections.get(section, sections), 1)
    names = [f"{section}.{name}" if section else name for name in near]
    names = names or [f"{name}.{key}" for name, keys in sections.items() if key in keys]
    return f"; did you mean {names[0]}?" if len(names) == 1 else ""


def problems(error: ValidationError) -> str:
    """Pydantic's findings in one line: `train.learning_rate is '1e-3' (text): …`."""
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"{where} is no known parameter{did_you_mean(where)}")
        elif item["type"] == "missing":
            lines.append(f"{where} is missing")
        else:
            value = item["input"]
            text = f"{shown(value)} (text)" if isinstance(value, str) else shown(value)
            hint = ""
            if isinstance(value, str) and item["type"] in ("float_type", "int_type"):
                hint = "; write numbers plainly, as 0.001"
            message = item["msg"][max(item["msg"].find("should"), 0) :]
            lines.append(f"{where} is {text} and {message}{hint}")
    return one_line("; ".join(lines))


def duplicates(values: list[int]) -> list[int]:
    """The values that stand more than once in a list."""
    return sorted(value for value, count in Counter(values).items() if count > 1)


def check(params: Any, where: str = "params.yaml") -> Params:
    """The parameters of all stages, validated.

    Raises:
        ValueError: in one line, on an unknown key, a wrong type or a value out of range.
    """
    if not isinstance(params, dict):
        raise ValueError(f"{where} should hold sections with parameters, as data: {{name: mnist}}")
    try:
        checked = Params.model_validate(params)
    except ValidationError as error:
        raise ValueError(f"{where}: {problems(error)}") from None
    # A key left out would silently have its default; a file that says all is one to cite.
    given = {f"{name}.{key}" for name, section in params.items() for key in section}
    for name, section in checked:
        for key, _ in section:
            if f"{name}.{key}" not in given:
                raise ValueError(f"{where}: {name}.{key} is missing")
    for name, values in checked.runs:
        if repeated := duplicates(values):
            raise ValueError(f"{where}: runs.{name} holds {repeated[0]} more than once")
    if len(checked.data.sha256) not in (0, 4):
        raise ValueError(f"{where}: data.sha256 should hold four checksums or none")
    return checked


def check_text(text: str, where: str = "params.yaml") -> None:
    """See that a file is right as it stands and that Snakemake and DVC find the same values.

    Snakemake reads YAML 1.1, DVC reads 1.2.

    Raises:
        ValueError: in one line, also for 0100, which is 64 in YAML 1.1.
    """
    import yaml
    from ruamel.yaml import YAML

    try:
        ours, theirs = yaml.safe_load(text), YAML(typ="safe", pure=True).load(text)
    except Exception as error:  # KeyError for `!!bool x`, RecursionError for deep nesting …
        reason = " ".join(one_line(str(error)).split())
        raise ValueError(f"{where}: cannot be read as YAML ({reason})") from None
    check(ours, where)
    for name, section in ours.items():
        for key, value in section.items():
            try:
                other = theirs[name][key]
            except (KeyError, TypeError):
                other = None
            if (type(value), value) != (type(other), other):
                raise ValueError(
                    f"{where}: {name}.{key} is {shown(value)} to Snakemake and "
                    f"{shown(other)} to DVC; write numbers plainly, as 0.001"
                )


def flags(section: dict[str, Any]) -> str:
    """A section as flags of a stage, as DVC unpacks `${section}`: `--hidden 500 --likelihood …`."""
    words: list[str] = []
    for name, value in section.items():
        values = value if isinstance(value, list) else [value]
        if values:  # DVC leaves out empty lists
            words += [f"--{name}", *(shlex.quote(str(item)) for item in values)]
    return " ".join(words)
