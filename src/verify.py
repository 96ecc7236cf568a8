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
from pathlib import Path, PurePath
from typing import Annotated, Any

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

LINE = "{:<10}  {:<23}  {:>9}  {:>9}  {:>10}  {}"
Results = dict[tuple[str, str], Any]
"""The values of metrics, by run and metric; the contents of other files, by name and ""."""


def main(against: Annotated[str, "git revision with published results"] = "HEAD") -> None:
    """Print a sentence and a table of all metrics and files."""
    commit = git("rev-parse", "--verify", "--end-of-options", f"{against}^{{commit}}")
    revision = commit.decode().strip()
    paths = (path for folder in FOLDERS for path in Path(folder).glob("[!.]*"))
    here = results({path.as_posix(): read_bytes(path) for path in paths})
    published = results(committed(revision, *FOLDERS))
    for where, found in (("this folder", here), (against, published)):
        if not any(metric for _, metric in found):
            raise InputError(f"{where} holds no {FOLDERS[0]}/*.json")
    verdicts = compare(published, here, results(committed(revision, SEEDS)))
    worst = max(verdicts.values(), key=VERDICTS.index)
    print(SENTENCES[worst].format(f"{against} ({revision[:7]})"))
    print(LINE.format("run", "metric", "published", "here", "difference", "verdict"))
    for (name, metric), verdict in verdicts.items():
        before, after = published.get((name, metric)), here.get((name, metric))
        if metric:
            both = isinstance(before, float) and isinstance(after, float)
            values = before, after, after - before if both else None  # type: ignore[operator]
            texts = (f"{n:.6g}" if isinstance(n, float) else str(n or "") for n in values)
            print(LINE.format(name, metric, *texts, verdict))
        else:
            absent = " (not in the revision)" if before is None else ""
            absent = " (missing here)" if after is None else absent
            print(f"{name}{absent}: {verdict}")
    sys.exit(4 if worst == DIFFERENT else 0)


def git(*words: str) -> bytes:
    """The output of git, whose errors are raised as InputError."""
    result = subprocess.run(["git", *words], capture_output=True, check=False)
    if result.returncode:
        raise InputError(f"git {' '.join(words)}: {result.stderr.decode(errors='replace')}")
    return result.stdout


def committed(revision: str, *folders: str) -> dict[str, bytes]:
    """The files that a revision holds in some folders, by their paths."""
    listed = git("ls-tree", "-r", "-z", "--name-only", revision, *folders).decode()
    return {
        path: git("cat-file", "blob", f"{revision}:./{path}") for path in listed.split("\0")[:-1]
    }


def results(files: dict[str, bytes]) -> Results:
    """The metrics in JSON files, and other files as they are; InputError if one is damaged."""
    found: Results = {}
    for path, content in files.items():
        if path.endswith(".json"):
            try:
                metrics = dict(json.loads(content)).items()
            except (TypeError, ValueError):
                raise InputError(f"{path}: damaged; make it again") from None
            found |= {(PurePath(path).stem, metric): value for metric, value in metrics}
        else:
            found[path.removeprefix("results/"), ""] = content
    return found


def compare(published: Results, here: Results, seeds: Results) -> dict[tuple[str, str], str]:
    """The verdicts on all metrics, then on all other files."""
    verdicts: dict[tuple[str, str], str] = {}
    for name, metric in sorted({*published, *here}, key=lambda key: (not key[1], key)):
        before, after = published.get((name, metric)), here.get((name, metric))
        verdict = SAME if before == after else DIFFERENT
        if verdict == DIFFERENT and isinstance(before, float) and isinstance(after, float):
            limit = spread(alike(name, metric, published, seeds))
            verdict = WITHIN if abs(after - before) <= limit else DIFFERENT
        elif verdict == DIFFERENT and isinstance(before, bytes) and isinstance(after, bytes):
            # A figure or table has no tolerance of its own and follows its metrics.
            own = [found for (run, _), found in verdicts.items() if run == PurePath(name).stem]
            if max(own or verdicts.values(), key=VERDICTS.index) == WITHIN:
                verdict = WITHIN
        verdicts[name, metric] = verdict
    return verdicts


def alike(run: str, metric: str, published: Results, seeds: Results) -> list[Any]:
    """A metric of other seeds that have the same k and the same settings as a run."""
    exact = {
        key: value
        for (name, key), value in published.items()
        if name == run and not isinstance(value, float)
    }
    return [
        value
        for (name, key), value in seeds.items()
        if key == metric
        and name.split("-")[0] == run.split("-")[0]
        and all(seeds.get((name, setting)) == exact[setting] for setting in exact)
    ]


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
