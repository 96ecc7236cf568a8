"""Compare the present results with those of a git revision.

Metrics are compared one by one, other files byte by byte. The spread of seeds comes from the study
`seeds` of the same revision. Nothing is checked out. The exit code is 4 if a result is different
or missing.
"""

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path, PurePath
from typing import Annotated, Any, NamedTuple

from aevb.files import InputError, read_bytes
from aevb.intervals import student
from aevb.plumbing import cli

FOLDERS = ("results/metrics", "results/history", "results/comparison")
"""The results that are compared; all of them are in git."""

SEEDS = "results/studies/seeds/default/metrics"
SAME, WITHIN, DIFFERENT = "the same", "within the spread of seeds", "different"
SENTENCES = {
    SAME: "The results are those of {}.",
    WITHIN: "The results agree with those of {} within the spread of seeds.",
    DIFFERENT: "The results are not those of {}.",
}
VERDICTS = [*SENTENCES]
"""From the best to the worst."""

Files = dict[str, bytes]
Metrics = dict[str, Any]


LINE = "{:<10}  {:<23}  {:>9}  {:>9}  {:>10}  {}"
HEAD = LINE.format("run", "metric", "published", "here", "difference", "verdict")


class Row(NamedTuple):
    """The verdict on a metric of a run, or on a file as a whole."""

    name: str
    verdict: str
    metric: str = ""
    published: Any = None
    here: Any = None

    def __str__(self) -> str:
        if not self.metric:
            return f"{self.name}: {self.verdict}"
        numbers = [self.published, self.here, None]
        if isinstance(self.published, float) and isinstance(self.here, float):
            numbers[2] = self.here - self.published
        texts = (f"{n:.6g}" if isinstance(n, float) else str(n or "") for n in numbers)
        return LINE.format(self.name, self.metric, *texts, self.verdict)


def main(against: Annotated[str, "git revision with published results"] = "HEAD") -> None:
    """Print a sentence and a table of all metrics and files."""
    commit = git("rev-parse", "--verify", "--end-of-options", f"{against}^{{commit}}")
    revision = commit.decode().strip()
    paths = (path for folder in FOLDERS for path in Path(folder).glob("[!.]*"))
    here = {path.as_posix(): read_bytes(path) for path in paths}
    published = committed(revision, *FOLDERS)
    for where, found in (("this folder", here), (against, published)):
        if not any(map(is_metrics, found)):
            raise InputError(f"{where} holds no {FOLDERS[0]}/*.json")
    rows = list(compare(published, here, committed(revision, SEEDS)))
    worst = max((row.verdict for row in rows), key=VERDICTS.index)
    print(SENTENCES[worst].format(f"{against} ({revision[:7]})"))
    print(HEAD, *rows, sep="\n")
    sys.exit(4 if worst == DIFFERENT else 0)


def git(*words: str) -> bytes:
    """The output of git, whose errors are raised as InputError."""
    result = subprocess.run(["git", *words], capture_output=True, check=False)
    if result.returncode:
        raise InputError(f"git {' '.join(words)}: {result.stderr.decode(errors='replace')}")
    return result.stdout


def committed(revision: str, *folders: str) -> Files:
    """The files that a revision holds in some folders, by their paths."""
    listed = git("ls-tree", "-r", "-z", "--name-only", revision, *folders).decode()
    return {
        path: git("cat-file", "blob", f"{revision}:./{path}") for path in listed.split("\0")[:-1]
    }


def is_metrics(path: str) -> bool:
    """Whether a file holds the metrics of a run."""
    return path.startswith(f"{FOLDERS[0]}/") and path.endswith(".json")


def parsed(content: bytes) -> Metrics:
    """The metrics in a JSON file; none if it cannot be read."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def compare(published: Files, here: Files, seeds: Files) -> Iterator[Row]:
    """The verdicts on all metrics of all runs, then on all other files."""
    metrics: dict[str, list[str]] = {}
    for path in sorted({*published, *here}, key=lambda path: (not is_metrics(path), path)):
        name = PurePath(path).stem if is_metrics(path) else path.removeprefix("results/")
        if path not in published or path not in here:
            missing = " (missing here)" if path in published else " (not in the revision)"
            yield Row(name + missing, DIFFERENT)
        elif is_metrics(path):
            of_k = [parsed(seeds[seed]) for seed in seeds if f"/{name.split('-')[0]}-" in seed]
            rows = list(compare_metrics(name, parsed(published[path]), parsed(here[path]), of_k))
            metrics[name] = [row.verdict for row in rows]
            yield from rows
        elif published[path] == here[path]:
            yield Row(name, SAME)
        else:  # a figure or table has no tolerance of its own and follows its metrics
            behind = metrics.get(PurePath(path).stem) or list(chain(*metrics.values()))
            worst = max(behind, key=VERDICTS.index, default=SAME)
            yield Row(name, DIFFERENT if worst == SAME else worst)


def compare_metrics(
    name: str, published: Metrics, here: Metrics, seeds: list[Metrics]
) -> Iterator[Row]:
    """The verdicts on the metrics of a run, given the metrics of other seeds with the same k."""
    if not published or not here:
        yield Row(f"{name} (not readable)", DIFFERENT)
    exact = {key: value for key, value in published.items() if not isinstance(value, float)}
    seeds = [seed for seed in seeds if exact.items() <= seed.items()]  # the same settings
    for metric in sorted({*published, *here}):
        before, after = published.get(metric), here.get(metric)
        verdict = SAME if before == after else DIFFERENT
        if verdict == DIFFERENT and isinstance(before, float) and isinstance(after, float):
            limit = spread([seed.get(metric) for seed in seeds])
            verdict = WITHIN if abs(after - before) <= limit else DIFFERENT
        yield Row(name, verdict, metric, before, after)


def spread(values: list[Any]) -> float:
    """The largest difference between two runs with different seeds, in 99 of 100 cases.

    Two runs are draws from N(m, s²), so their difference divided by √2 s has Student's t
    distribution, where s is estimated from n other seeds, with n − 1 degrees of freedom. It is 0
    for fewer than three seeds, whose standard deviation is too uncertain.
    """
    numbers = [value for value in values if isinstance(value, float)]
    if len(numbers) < 3:
        return 0.0
    return student(len(numbers) - 1, 0.995) * math.sqrt(2) * statistics.stdev(numbers)


if __name__ == "__main__":
    cli.run(main, __doc__)
