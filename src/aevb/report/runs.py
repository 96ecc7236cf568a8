"""The runs of an experiment or a study as the stages stored them, and the names for titles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from aevb.datasets import DATASETS
from aevb.files import Arrays, read_csv, read_json, read_tensors

TERMS = {
    "elbo": "ELBO",
    "log_px_given_z": "reconstruction term",
    "kl": "KL term",
    "iwae_bound": "IWAE bound",
}
MARK = "†"


@dataclass(frozen=True)
class Run:
    """The results of one training; all terms are in nats per image.

    `variant` is the variant of a study, or empty if there is only one.
    """

    latent_dim: int
    seed: int
    metrics: dict[str, float]
    history: pd.DataFrame
    evaluation: Arrays
    samples: Arrays
    reconstructions: Arrays
    metadata: dict[str, Any]
    variant: str = ""

    @property
    def scale(self) -> str:
        """What the ELBO bounds: only numbers on one scale can be compared."""
        if not self.metrics["is_log_likelihood"]:
            return f"not a log-likelihood {MARK}"
        return "log-density" if self.metadata["binarisation"] == "none" else "log-probability"


Models = Mapping[str, Sequence[Run]]
"""The runs of each variant and k, one per seed, by a name: `k = 3` or `VARIANT, k = 3`."""


def read_run(folder: Path, latent_dim: int, seed: int) -> Run:
    """Read all files of one run from the folders metrics/, history/, evaluation/ etc. in `folder`.

    Raises:
        InputError: if one is missing or invalid.
    """
    name = f"k{latent_dim}-seed{seed}"
    metrics = read_json(folder / "metrics" / f"{name}.json")
    history = pd.DataFrame(read_csv(folder / "history" / f"{name}.csv"))
    kinds = ("evaluation", "samples", "reconstructions")
    files = [read_tensors(folder / kind / f"{name}.safetensors", kind) for kind in kinds]
    evaluation, samples, reconstructions = (arrays for arrays, _ in files)
    _, metadata = files[0]
    return Run(latent_dim, seed, metrics, history, evaluation, samples, reconstructions, metadata)


def read_models(
    folder: Path, variants: Sequence[str], latent_dims: Sequence[int], seeds: Sequence[int]
) -> Models:
    """Read the runs of an experiment, in `folder`, or of a study, in `folder`/VARIANT.

    Raises:
        InputError: if a file is missing or invalid.
    """
    models = {}
    for variant, k in product(variants or [""], latent_dims):
        runs = [read_run(folder / variant, k, seed) for seed in seeds]
        label = variant if len(variants) > 1 else ""
        name = f"{label}, k = {k}" if label else f"k = {k}"
        models[name] = [replace(run, variant=label) for run in runs]
    return models


def first_runs(models: Models) -> dict[str, Run]:
    """The run of the first seed of each model: figures show the images of these runs."""
    return {name: runs[0] for name, runs in models.items()}


def seeds(models: Models) -> list[int]:
    """The seeds that every model was trained with."""
    return [run.seed for run in next(iter(models.values()))]


def setting(models: Models) -> str:
    """Data set, binarisation and likelihood, as far as all runs share them."""
    names = []
    for run in first_runs(models).values():
        dataset = DATASETS[run.metadata["data"]["name"]].title
        binarisation = run.metadata["binarisation"]
        pixels = "gray levels" if binarisation == "none" else f"{binarisation} binarisation"
        likelihood = run.metadata["likelihood"].replace("_", " ").title()
        mark = "" if run.metrics["is_log_likelihood"] else f" ({MARK} not a log-likelihood)"
        names.append((dataset, pixels, likelihood + mark))
    return ", ".join(values[0] for values in zip(*names, strict=True) if len({*values}) == 1)
