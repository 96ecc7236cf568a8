"""Are the results here the published ones? Says so file by file and metric by metric.

The published ones are read from git, without checking anything out, or from a folder. What the
verdicts mean and where the tolerances come from: docs/guarantees.md.
"""

import os
import re
import subprocess
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from aevb.files import InputError, read_bytes
from aevb.plumbing import cli
from aevb.plumbing.verification import (
    LEAST_SEEDS,
    Finding,
    Results,
    Verdict,
    comparable_seeds,
    is_metrics,
    parsed,
    verify,
)

PRODUCTS = ("metrics", "history", "comparison")
"""The folders of results/ that are published, in git."""

SPREAD = Path("results/studies/seeds/default/metrics")
"""Of the study of five seeds at the default parameters, in git."""

EXIT_CODES = {
    Verdict.SAME_BYTES: 0,
    Verdict.WITHIN_NUMERICS: 0,
    Verdict.WITHIN_SPREAD: 3,
    Verdict.DIFFERENT: 4,
}


def arguments() -> cli.Parser:
    """The command line."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--results", type=Path, default=Path("results"), help="folder with the results here")
    add("--against", default="HEAD", help="git revision, whose results/ is read, or a folder")
    add("--spread", type=Path, default=SPREAD, help="folder of several seeds' metrics")
    parser.epilog = (
        "Exit code: 0 when all are the same bytes or within numerics, 3 when the worst is within "
        "the spread of seeds, 4 when something is different, missing or not published; 1 on an "
        "error, 2 on wrong usage."
    )
    return parser


def main(args: Namespace) -> None:
    """Read both sides, print a line for each finding and one for the whole, exit with its code."""
    fresh = read_folder(args.results)
    published, name = read_published(args.against)
    spread = read_spread(args.spread)
    findings = list(verify(published, fresh, spread))
    for line in [*report(findings), *unknown_spread(findings, published, spread, args.spread)]:
        print(line)
    files = Counter(finding.verdict for finding in findings if not finding.metric)
    worst = max(files)
    counts = ", ".join(f"{files[verdict]} {verdict}" for verdict in sorted(files))
    print(f"{worst}: of {files.total()} files, against {name}: {counts}")
    sys.exit(EXIT_CODES[worst])


def read_folder(folder: Path) -> Results:
    """The products in a folder that is laid out as results/.

    Raises:
        InputError: if there is no such folder, if it holds no metrics or a file is unreadable.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; run the pipeline or name the right one")
    paths = [path for product in PRODUCTS for path in sorted((folder / product).rglob("*"))]
    found = {
        path.relative_to(folder).as_posix(): read_bytes(path)
        for path in paths
        if path.is_file() and not path.name.startswith(".")  # half-written files are hidden
    }
    return _with_metrics(found, str(folder))


def read_published(against: str) -> tuple[Results, str]:
    """The published products and what to call them: from a folder or else a git revision.

    Raises:
        InputError: if it is neither, outside of a repository or without metrics.
    """
    if against and Path(against).is_dir():
        return read_folder(Path(against)), against
    if _git("rev-parse", "--git-dir") is None:
        raise InputError(
            f"--against {against}: no folder, and {Path.cwd()} is in no git repository"
        )
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{against}^{{commit}}")
    if commit is None:
        raise InputError(f"--against {against}: no folder and no revision of this repository")
    revision = commit.decode().strip()
    folders = [f"results/{product}" for product in PRODUCTS]
    listed = _git("ls-tree", "-r", "-z", "--name-only", revision, *folders) or b""
    found = {}
    for path in sorted(os.fsdecode(name) for name in listed.split(b"\0") if name):
        content = _git("cat-file", "blob", f"{revision}:./{path}")
        if content is None:
            raise InputError(f"--against {against}: git cannot read {path} in it; try git fsck")
        found[path.removeprefix("results/")] = content
    name = revision[:7] if revision.startswith(against) else f"{against} ({revision[:7]})"
    return _with_metrics(found, f"results of {name}"), name


def read_spread(folder: Path) -> Results:
    """The metrics of several seeds, by file name; none where the folder is missing.

    Raises:
        InputError: if a file is no JSON object.
    """
    found = {path.name: read_bytes(path) for path in sorted(folder.glob("k*-seed*.json"))}
    for name, content in found.items():
        if parsed(content) is None:
            raise InputError(f"{folder / name}: not a JSON object; restore it or use --spread")
    return found


def _with_metrics(found: Results, where: str) -> Results:
    if not any(map(is_metrics, found)):
        raise InputError(f"{where}: holds no metrics/*.json; run the pipeline or name another one")
    return found


def _git(*words: str) -> bytes | None:
    """What git prints, in the repository of the current folder; None if it refuses."""
    try:
        result = subprocess.run(["git", *words], capture_output=True, check=False)
    except FileNotFoundError:
        raise InputError("git is not installed; --against takes a folder as well") from None
    return result.stdout if result.returncode == 0 else None


def report(findings: Iterable[Finding]) -> Iterator[str]:
    """An aligned table: a row for each file, its metrics below it where they differ, and one for
    all unchanged files of a folder."""
    head: tuple[str, ...] = ("", "published", "here", "difference", "numerics", "spread", "")
    rows = [head]
    unchanged: Counter[str] = Counter()
    numbers: list[tuple[str, ...]] = []
    for item in findings:
        verdict = f"{item.verdict}{f': {item.why}' if item.why else ''}"
        if item.metric:
            change = f"{item.fresh - item.published:+.2g}" if item.numerics is not None else ""
            values = [_short(value) for value in (item.published, item.fresh)]
            limits = [_short(limit, ".2g") for limit in (item.numerics, item.spread)]
            if item.verdict is not Verdict.SAME_BYTES:
                numbers.append((f"  {item.metric}", *values, change, *limits, verdict))
        elif item.verdict is Verdict.SAME_BYTES and not is_metrics(item.file):
            unchanged[item.file.split("/")[0]] += 1
        else:
            rows += [(item.file, "", "", "", "", "", verdict), *numbers]
            numbers = []
    for folder, count in unchanged.items():
        text = f"{folder}/ ({count} file{'s' * (count > 1)})"
        rows.append((text, "", "", "", "", "", str(Verdict.SAME_BYTES)))
    if not any(row[1] or row[2] for row in rows[1:]):
        rows = [(first, last) for first, *_, last in rows[1:]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *middle, last in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(middle, widths[1:], strict=False)]
        yield "  ".join([f"{first:<{widths[0]}}", *cells, last]).rstrip()


def _short(value: object, digits: str = ".6g") -> str:
    return "" if value is None else format(value, digits) if type(value) is float else f"{value}"


def unknown_spread(
    findings: Iterable[Finding], published: Results, spread: Results, folder: Path
) -> Iterator[str]:
    """A line for each k whose spread would have mattered and is unknown."""
    different = {item.file for item in findings if item.metric and item.numerics is not None
                 and item.verdict is Verdict.DIFFERENT and item.spread is None}  # fmt: skip
    callback = set()
    for file in sorted(different):
        k = re.search(r"/k(\d+)-", file)
        name = f"k = {k[1]}" if k else file
        count = len(comparable_seeds(file, parsed(published[file]) or {}, spread))
        if name not in callback:
            yield (
                f"The spread of seeds is unknown for {name}: {folder} holds {count} comparable "
                f"ones of {LEAST_SEEDS} needed; what is not within numerics counts as different."
            )
        callback.add(name)


if __name__ == "__main__":
    cli.run(main, arguments())
