"""Compare the present results, or those of a DVC experiment, with a git revision.

Differences are in nats per image, ± their standard error over the test images, which is paired
image by image unless a run is marked as unpaired. Two trainings that differ only in the seed are at
most `seeds` apart in 99 of 100 cases, as estimated from the study `seeds` of the revision. The ELBO
or IWAE bound is better or worse if its difference exceeds both the half-width of its 99 % interval
over images (2.6 standard errors) and `seeds`. Where `seeds` is not known, the interval over images
decides alone: it says only that these two models differ, not that other seeds would agree.

The exit code is 0 if no bound is worse, 3 if one is worse, and 4 if a run of the revision is
missing or has other data, binarisation, likelihood or iwae_k. The metric reconstruction_error is
not shown, since it is -log_px_given_z.
"""

import math
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import Annotated, Any, NamedTuple

from aevb.files import Arrays, InputError, read_bytes, read_json, read_tensors
from aevb.intervals import mean_and_se, student
from aevb.plumbing import checking, cli

METRICS, TERMS = "results/metrics", "results/terms"
FOLDERS = (METRICS, TERMS, "results/history", "results/comparison")
"""The results that are in git."""

SEEDS = "results/studies/seeds/default/metrics"
COUNTS = ("images", "iwae_k", "is_log_likelihood")
BOUNDS = ("elbo", "iwae_bound")
"""The metrics that have a verdict: larger is better."""

VERDICTS = {
    "the same bytes": ("are the same bytes as", 0),
    "no clear difference": ("are not clearly different from", 0),
    "better": ("are better than", 0),
    "worse": ("are worse than", 3),
    "not comparable": ("are not comparable with", 4),
}
"""Each verdict in words, and its exit code. The last one that occurs is the verdict on all runs."""

SAME, CLOSE, BETTER, WORSE, OTHER = VERDICTS
LINE = "{:<16}{:>11}{:>11}{:>21}{:>9}   {}"
Metrics = dict[str, Any]


class Run(NamedTuple):
    """The metrics of a run, the terms [N] per image if there are any, and what must agree."""

    metrics: Metrics
    terms: Arrays
    settings: dict[str, Any]


def main(
    against: Annotated[str, "git revision or DVC experiment to compare with"] = "HEAD",
    experiment: Annotated[
        str | None, "DVC experiment or git revision to compare instead of the present results"
    ] = None,
) -> None:
    """Print a sentence and a table of all runs."""
    with TemporaryDirectory() as scratch:
        before, after = Path(scratch, "before"), Path()
        reference, subject = f"{against} ({export(against, before)})", "The present results"
        if experiment is not None:
            after = Path(scratch, "after")
            subject = f"The results of {experiment} ({export(experiment, after)})"
        old, new = read_runs(before), read_runs(after)
        seeds = {path.stem: read_json(path) for path in (before / SEEDS).glob("*.json")}
        unequal = sorted({path for path, _ in read_files(before) ^ read_files(after)})
    verdicts: dict[str, str] = {}
    lines = [LINE.format("", "old", "new", "difference", "seeds", "verdict")]
    for run in sorted(old | new, key=lambda run: (len(run), run)):
        if run not in old:
            lines.append(f"{run} is not in {against}")
        elif reason := obstacle(old[run], new.get(run)):
            lines.append(f"{run} {reason}")
            verdicts[lines[-1]] = OTHER
        else:
            paired = old[run].terms and new[run].terms
            lines.append(run if paired else f"{run}, unpaired, since one side has no {TERMS}")
            same = f"{METRICS}/{run}.json" not in unequal
            alike = [seeds[name] for name in seeds if name.split("-")[0] == run.split("-")[0]]
            for metric, *numbers, verdict in compare(old[run], new[run], alike):
                verdict = SAME if same else verdict
                lines.append(LINE.format(f"  {metric}", *numbers, verdict))
                if verdict:
                    verdicts[f"{run} {metric}"] = verdict
    overall = max(verdicts.values(), default=OTHER, key=[*VERDICTS].index)
    named = ", ".join(name for name, verdict in verdicts.items() if verdict == overall)
    if overall == SAME and unequal:
        overall, named = CLOSE, f"other bytes in {', '.join(unequal)}"
    elif overall in (SAME, CLOSE):
        named = ""
    phrase, code = VERDICTS[overall]
    sentence = f"{subject} {phrase} those of {reference}{named and ': '}{named}."
    for line in (sentence, *lines, "", (__doc__ or "").split("\n\n")[1]):
        print(fill(line, 100, break_on_hyphens=False))
    sys.exit(code)


def compare(old: Run, new: Run, seeds: list[Metrics]) -> Iterator[tuple[str, ...]]:
    """Yield for each metric its name, old, new, difference, spread of seeds, verdict."""
    seeds = [seed for seed in seeds if all(seed[name] == old.metrics[name] for name in COUNTS)]
    for metric in (*BOUNDS, "log_px_given_z", "kl"):
        change, se = difference(metric, old, new)
        limit = spread([seed[metric] for seed in seeds])
        least = max(student(old.metrics["images"] - 1, 0.995) * se, limit or 0)
        verdict = CLOSE if abs(change) <= least else BETTER if change > 0 else WORSE
        means = (f"{run.metrics[metric]:.3f}" for run in (old, new))
        apart = "unknown" if limit is None else f"{limit:.3f}"
        numbers = *means, f"{change:+.3f} ± {se:.3f}", apart
        yield metric, *numbers, verdict if metric in BOUNDS else ""


def difference(metric: str, old: Run, new: Run) -> tuple[float, float]:
    """New minus old mean and its standard error, paired over images if both runs have terms."""
    if old.terms and new.terms:
        return mean_and_se(new.terms[metric] - old.terms[metric])
    change = new.metrics[metric] - old.metrics[metric]
    return change, math.hypot(new.metrics[f"{metric}_se"], old.metrics[f"{metric}_se"])


def spread(values: list[float]) -> float | None:
    """The largest difference between two runs with different seeds, in 99 of 100 cases.

    Two runs are draws from N(m, s²), so their difference divided by √2 s has Student's t
    distribution, where s is estimated from n other seeds, with n − 1 degrees of freedom. It is
    None for fewer than three seeds, because their standard deviation is too uncertain.
    """
    if len(values) < 3:
        return None
    return student(len(values) - 1, 0.995) * math.sqrt(2) * statistics.stdev(values)


def obstacle(old: Run, new: Run | None) -> str:
    """Why two runs cannot be compared, or an empty text. Settings of None are not known."""
    if new is None:
        return "is missing"
    pairs = ((name, value, old.settings[name]) for name, value in new.settings.items())
    other = [f"{name} {a} instead of {b}" for name, a, b in pairs if None not in (a, b) and a != b]
    return f"has {', '.join(other)}" if other else ""


def read_runs(folder: Path) -> dict[str, Run]:
    """The runs in a folder by name. Without terms, their settings are those of params.yaml."""
    path, runs = folder / "params.yaml", {}
    try:
        values = checking.read_yaml(path)
        for path in (folder / METRICS).glob("k*.json"):
            metrics, file = read_json(path), folder / TERMS / f"{path.stem}.safetensors"
            terms, metadata = read_tensors(file, "terms") if file.exists() else ({}, {})
            if terms:
                terms["elbo"] = terms["log_px_given_z"] - terms["kl"]
            data = metadata.get("data", {**values["data"], "seed": values["split"]["seed"]})
            settings = {name: metrics[name] for name in COUNTS} | {
                "data": data["name"],
                "split.seed": data["seed"],
                "likelihood": metadata.get("likelihood", values["model"]["likelihood"]),
                "binarisation": metadata.get("binarisation", values["train"].get("binarisation")),
            }
            runs[path.stem] = Run(metrics, terms, settings)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: damaged; make it again") from None
    return runs


def read_files(folder: Path) -> set[tuple[str, bytes]]:
    """The results that are in git: their paths in a folder and their contents."""
    paths = [path for name in FOLDERS for path in (folder / name).glob("[!.]*")]
    return {(path.relative_to(folder).as_posix(), read_bytes(path)) for path in paths}


def export(revision: str, folder: Path) -> str:
    """Write the results and params.yaml of a git revision or DVC experiment to a folder.

    Returns the first digits of the commit's hash. An experiment is refs/exps/…/…/NAME in git, where
    … are the digits of the commit that it started from.
    """
    refs = git("for-each-ref", "--format=%(refname)", "refs/exps").decode().split()
    named = [ref for ref in refs if ref.split("/")[4:] == [revision]]
    name = named[0] if len(named) == 1 else revision
    commit = git("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}").decode().strip()
    archive = f"{folder}.zip"
    git("archive", "--format=zip", f"--output={archive}", commit, "params.yaml", "results")
    shutil.unpack_archive(archive, folder)
    return commit[:7]


def git(*words: str) -> bytes:
    """The output of git; its errors are raised as InputError."""
    result = subprocess.run(["git", *words], capture_output=True, check=False)
    if result.returncode:
        raise InputError(f"git {' '.join(words)}: {result.stderr.decode(errors='replace')}")
    return result.stdout


if __name__ == "__main__":
    cli.run(main, __doc__)
