"""The runs of an experiment or a study as the stages stored them, and the names for titles."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from aevb.datasets import DATASETS
from aevb.evaluation import bound_metrics
from aevb.files import (
    REPAIR,
    Arrays,
    InputError,
    as_json,
    read_bytes,
    read_csv,
    read_json,
    read_tensors,
    sha256,
)

import pandas as pd

TERMS = {
    "elbo": "ELBO",
    "log_px_given_z": "reconstruction term",
    "kl": "KL term",
    "iwae_bound": "IWAE bound",
}
KINDS = ("evaluation", "samples", "reconstructions")
"""The files of tensors of a run."""
RECORD = "record.json"
"""The file of a comparison with the SHA-256 of all files that it was made from, and of its own."""
NAMES_THE_RECORD = "contains the SHA-256 of this file"
"""Stands in it for the figures."""
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
    def dataset(self) -> str:
        """The title of the data set."""
        return DATASETS[self.metadata["data"]["name"]].title

    @property
    def scale(self) -> str:
        """What the ELBO bounds: only numbers on one scale can be compared.

        Each density has its own: for pixels that are exactly 0 densities are unbounded, and how far
        they rise depends on the length of training and on the smallest scale of the Gaussian.
        """
        if not self.metrics["is_log_likelihood"]:
            return f"not a log-likelihood {MARK}"
        density = f"log-density, {self.metadata['likelihood'].replace('_', ' ')}"
        return density if self.metadata["binarisation"] == "none" else "log-probability"


Models = Mapping[str, Sequence[Run]]
"""The runs of each variant and k, one per seed, by a name: `k = 3` or `VARIANT, k = 3`."""


def files_of(folder: Path, latent_dim: int, seed: int) -> dict[str, Path]:
    """The files of one run in the folders metrics/, history/, evaluation/ etc. in `folder`."""
    name = f"k{latent_dim}-seed{seed}"
    suffixes = {"metrics": "json", "history": "csv", **dict.fromkeys(KINDS, "safetensors")}
    return {kind: folder / kind / f"{name}.{suffix}" for kind, suffix in suffixes.items()}


def record(paths: Iterable[Path]) -> dict[str, str]:
    """The SHA-256 of files, by the name of each with its folder."""
    return {f"{path.parent.name}/{path.name}": sha256(path) for path in paths}


def read_run(folder: Path, latent_dim: int, seed: int, variant: str = "") -> Run:
    """Read all files of one run.

    Raises:
        InputError: if one is missing or invalid, or if they do not come from one model.
    """
    paths = files_of(folder, latent_dim, seed)
    tensors = {kind: read_tensors(paths[kind], kind) for kind in KINDS}
    evaluation, metadata = tensors["evaluation"]
    for kind, (_, other) in tensors.items():
        if other["files"]["model"] != metadata["files"]["model"]:
            both = f"{paths[kind]} and {paths['evaluation']}"
            raise InputError(f"{both}: made from different models; {REPAIR}")
    if sha256(paths["history"]) != metadata["files"]["history"]:
        raise InputError(f"{paths['history']}: not of the model that was evaluated; {REPAIR}")
    if read_bytes(paths["metrics"]) != as_json(bound_metrics(evaluation, metadata)).encode():
        raise InputError(f"{paths['metrics']}: not the means of {paths['evaluation']}; {REPAIR}")
    metrics, history = read_json(paths["metrics"]), pd.DataFrame(read_csv(paths["history"]))
    arrays = {kind: found for kind, (found, _) in tensors.items()}
    return Run(latent_dim, seed, metrics, history, metadata=metadata, variant=variant, **arrays)


def read_models(
    folder: Path, variants: Sequence[str], latent_dims: Sequence[int], seeds: Sequence[int]
) -> Models:
    """Read the runs of an experiment, in `folder`, or of a study, in `folder`/VARIANT."""
    models = {}
    for variant, k in product(variants or [""], latent_dims):
        label = variant if len(variants) > 1 else ""
        name = f"{label}, k = {k}" if label else f"k = {k}"
        models[name] = [read_run(folder / variant, k, seed, label) for seed in seeds]
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
        binarisation = run.metadata["binarisation"]
        pixels = "gray levels" if binarisation == "none" else f"{binarisation} binarisation"
        likelihood = run.metadata["likelihood"].replace("_", " ").title()
        mark = "" if run.metrics["is_log_likelihood"] else f" ({MARK} not a log-likelihood)"
        names.append((run.dataset, pixels, likelihood + mark))
    return ", ".join(values[0] for values in zip(*names, strict=True) if len({*values}) == 1)
