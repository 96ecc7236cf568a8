"""The runs of an experiment or a study as the stages stored them, and the names for titles.

An experiment is a study with one variant: `Variants` maps each variant to its runs, which have the
same latent dimensions and seeds in every variant.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.decomposition import PCA

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
from aevb.intervals import Estimate, estimate, mean
from aevb.likelihoods import LIKELIHOODS, is_likelihood

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
KINDS = ("evaluation", "samples", "reconstructions")
"""The files of tensors of a run."""
RECORD = "record.json"
"""The file of a comparison with the SHA-256 of all files that it was made from, and of its own."""
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

    @property
    def scale(self) -> str:
        """What the ELBO bounds: only numbers on one scale can be compared."""
        if not self.metrics["is_log_likelihood"]:
            return f"not a log-likelihood {MARK}"
        return "log-density" if self.metadata["binarisation"] == "none" else "log-probability"


Variants = Mapping[str, Sequence[Run]]


def files_of(folder: Path, latent_dim: int, seed: int) -> dict[str, Path]:
    """The files of one run in the folders metrics/, history/, evaluation/ etc. in `folder`."""
    name = f"k{latent_dim}-seed{seed}"
    tensors = {kind: folder / kind / f"{name}.safetensors" for kind in KINDS}
    return {
        "metrics": folder / "metrics" / f"{name}.json",
        "history": folder / "history" / f"{name}.csv",
        **tensors,
    }


def record(paths: Iterable[Path]) -> dict[str, str]:
    """The SHA-256 of files, by the name of each with its folder."""
    return {f"{path.parent.name}/{path.name}": sha256(path) for path in paths}


def read_run(folder: Path, latent_dim: int, seed: int) -> Run:
    """Read all files of one run.

    Raises:
        InputError: if one is missing or invalid, or if they do not come from one model.
    """
    paths = files_of(folder, latent_dim, seed)
    tensors = [read_tensors(paths[kind], kind) for kind in KINDS]
    (evaluation, metadata), (samples, _), (reconstructions, _) = tensors
    for kind, (_, other) in zip(KINDS, tensors, strict=True):
        if other["files"]["model"] != metadata["files"]["model"]:
            both = f"{paths[kind]} and {paths['evaluation']}"
            raise InputError(f"{both}: made from different models; {REPAIR}")
    if sha256(paths["history"]) != metadata["files"]["history"]:
        raise InputError(f"{paths['history']}: not of the model that was evaluated; {REPAIR}")
    means: dict[str, Any] = bound_metrics(evaluation, metadata["evaluate"]["iwae_k"])
    suits = is_likelihood(metadata["likelihood"], metadata["binarisation"])
    means["is_log_likelihood"] = int(suits)
    if read_bytes(paths["metrics"]) != as_json(means).encode():
        raise InputError(f"{paths['metrics']}: not the means of {paths['evaluation']}; {REPAIR}")
    metrics = read_json(paths["metrics"])
    history = pd.DataFrame(read_csv(paths["history"]))
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


def overall(values: Sequence[NDArray[Any]]) -> Estimate:
    """The mean of values [N] of each seed: over seeds if there are several, else over images."""
    if len(values) == 1:
        return estimate(values[0])
    return estimate([mean(image_values) for image_values in values])


def difference(term: str, runs: Sequence[Run], reference: Sequence[Run]) -> Estimate:
    """The mean of a term minus that of the reference runs, for the same images and seeds."""
    pairs = zip(runs, reference, strict=True)
    return overall([a.evaluation[term].astype(float) - b.evaluation[term] for a, b in pairs])


def principal_axes(mu: NDArray[np.float32]) -> tuple[NDArray[np.float64], list[float]]:
    """Points [N, k] on their first two principal axes, [N, 2], and the axes' shares of variance.

    If k = 1, there is one axis and one share, and the second coordinate is 0.
    """
    pca = PCA(min(2, mu.shape[1]))
    points = np.zeros((len(mu), 2))
    points[:, : mu.shape[1]] = pca.fit_transform(mu.astype(np.float64))
    return points, pca.explained_variance_ratio_.tolist()


def setting(variants: Variants) -> str:
    """Data set, binarisation and likelihood, as far as all runs share them."""
    names = []
    for run in (run for runs in variants.values() for run in runs):
        dataset = DATASETS[run.metadata["data"]["name"]].title
        likelihood = LIKELIHOODS[run.metadata["likelihood"]].title
        mark = "" if run.metrics["is_log_likelihood"] else f" ({MARK} not a log-likelihood)"
        names.append((dataset, BINARISATIONS[run.metadata["binarisation"]], likelihood + mark))
    return ", ".join(values[0] for values in zip(*names, strict=True) if len({*values}) == 1)
