"""The runs of an experiment or a study as the stages stored them, and the names for titles.

An experiment is a study with one variant: `Variants` maps each variant to its runs, which have the
same latent dimensions and seeds in every variant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aevb.datasets import DATASETS
from aevb.files import Arrays, read_csv, read_json, read_tensors
from aevb.intervals import Estimate, estimate, mean
from aevb.likelihoods import LIKELIHOODS

TERMS = {
    "elbo": "ELBO",
    "log_px_given_z": "reconstruction term",
    "kl": "KL term",
    "iwae_bound": "IWAE bound",
}
BINARISATIONS = {
    "dynamic": "dynamic binarisation",
    "static": "static binarisation",
    "none": "gray levels",
}
MARK = "†"
NOTE = f"{MARK} Not a log-likelihood: this likelihood does not suit this binarisation."


@dataclass(frozen=True)
class Run:
    """The results of one training; all terms are in nats per image."""

    latent_dim: int
    seed: int
    metrics: dict[str, float]
    history: pd.DataFrame
    evaluation: Arrays
    samples: Arrays
    reconstructions: Arrays
    metadata: dict[str, Any]


Variants = Mapping[str, Sequence[Run]]


def read_run(folder: Path, latent_dim: int, seed: int) -> Run:
    """Read all files of one run from the folders metrics/, history/, evaluation/ etc. in `folder`.

    Raises:
        InputError: if one is missing or invalid.
    """
    name = f"k{latent_dim}-seed{seed}"
    kinds = ("evaluation", "samples", "reconstructions")
    metrics = read_json(folder / "metrics" / f"{name}.json")
    history = pd.DataFrame(read_csv(folder / "history" / f"{name}.csv"))
    tensors = [read_tensors(folder / kind / f"{name}.safetensors", kind) for kind in kinds]
    evaluation, samples, reconstructions = (arrays for arrays, _ in tensors)
    metadata = tensors[0][1]
    return Run(latent_dim, seed, metrics, history, evaluation, samples, reconstructions, metadata)


def models(variants: Variants) -> dict[str, list[Run]]:
    """The runs of each variant and k, one per seed.

    They are named `k = 3`, or `VARIANT, k = 3` if there are several variants.
    """
    groups: dict[str, list[Run]] = {}
    for variant, runs in variants.items():
        prefix = f"{variant}, " if len(variants) > 1 else ""
        for run in runs:
            groups.setdefault(f"{prefix}k = {run.latent_dim}", []).append(run)
    return groups


def first_runs(variants: Variants) -> dict[str, Run]:
    """The run of the first seed of each of the `models`: figures show the images of these runs."""
    return {name: runs[0] for name, runs in models(variants).items()}


def seeds(variants: Variants) -> list[int]:
    """The seeds that every model was trained with."""
    return [run.seed for run in next(iter(models(variants).values()))]


def paired_differences(
    term: str, runs: Sequence[Run], reference: Sequence[Run]
) -> list[NDArray[np.float64]]:
    """For each seed, the term of a run minus that of the reference run, for each image, [N]."""
    pairs = zip(runs, reference, strict=True)
    return [run.evaluation[term].astype(float) - other.evaluation[term] for run, other in pairs]


def overall(values: Sequence[NDArray[Any]]) -> Estimate:
    """The mean of values [N] of each seed: over seeds if there are several, else over images."""
    if len(values) == 1:
        return estimate(values[0])
    return estimate([mean(image_values) for image_values in values])


def setting(variants: Variants) -> str:
    """Data set, binarisation and likelihood, as far as all runs share them."""
    names = []
    for run in (run for runs in variants.values() for run in runs):
        metadata = run.metadata
        mark = "" if run.metrics["is_log_likelihood"] else f" ({MARK} not a log-likelihood)"
        dataset, binarisation = DATASETS[metadata["data"]["name"]].title, metadata["binarisation"]
        likelihood = LIKELIHOODS[metadata["likelihood"]].title + mark
        names.append((dataset, BINARISATIONS[binarisation], likelihood))
    return ", ".join(values[0] for values in zip(*names, strict=True) if len({*values}) == 1)


def scale(run: Run) -> str:
    """What the ELBO of a run bounds: only numbers on one scale can be compared."""
    if not run.metrics["is_log_likelihood"]:
        return f"not a log-likelihood {MARK}"
    return "log-density" if run.metadata["binarisation"] == "none" else "log-probability"
