"""Throw-away clones of this repository with small parameters, and the files in them."""

import gzip
import hashlib
import re
import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any

from aevb.data import RAW_FILES
from aevb.plumbing.params import Params
from graph import ROOT, Job, Values, changed, read_values, run, write_values
from stages import SMALL, run_or_raise

MODEL = "results/models/k2-seed0.safetensors"
METRICS = "results/metrics/k2-seed0.json"


def digests(mirror: Path) -> list[str]:
    """SHA-256 of the unpacked files of a mirror."""
    files = [gzip.decompress((mirror / f"{name}.gz").read_bytes()) for name in RAW_FILES]
    return [hashlib.sha256(file).hexdigest() for file in files]


def small_values(mirror: Path, **sections: dict[str, Any]) -> Values:
    """Parameters with which the pipeline takes seconds, for the files of a mirror."""
    values = {**SMALL, "data": {"mirror": str(mirror), "sha256": digests(mirror)}, **sections}
    return {name: own | values.get(name, {}) for name, own in Params().model_dump().items()}


def small_repository(tree: Path, mirror: Path) -> Path:
    """A git repository with the files of this working tree and small parameters."""
    files = run("git ls-files --cached --others --exclude-standard -z", ROOT)
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    run("git init --quiet", tree)
    write_values(tree, small_values(mirror))
    commit(tree, "all files")
    return tree


def commit(tree: Path, message: str) -> None:
    """Commit everything that git does not ignore."""
    run("git add --all", tree)
    run(f"git -c user.name=Test -c user.email=test@localhost commit --quiet -m '{message}'", tree)


def clone(origin: Path, tree: Path) -> Path:
    """A fresh clone."""
    run(f"git clone --quiet {origin} {tree}", origin)
    run("git config user.name Test", tree)
    run("git config user.email test@localhost", tree)
    return tree


def copy(tree: Path, to: Path) -> Path:
    """A copy in the folder `to` with all time stamps, so that neither engine sees a difference."""
    return shutil.copytree(tree, to / "copy", symlinks=True)


def run_job(job: Job, tree: Path) -> None:
    """Run a job in this process; its error is raised as the InputError that it reports."""
    _, script, *words = job.command
    with chdir(tree):
        run_or_raise(Path(script).stem, *words)


def edit(tree: Path, section: str, **entries: Any) -> None:
    """Change a section of params.yaml."""
    write_values(tree, changed(read_values(tree), section, **entries))


def contents(tree: Path, *folders: str) -> dict[str, bytes]:
    """Every file in the folders, with its bytes."""
    paths = [path for folder in folders for path in (tree / folder).rglob("*") if path.is_file()]
    return {path.relative_to(tree).as_posix(): path.read_bytes() for path in sorted(paths)}


def made(tree: Path) -> dict[str, bytes]:
    """What the stages made, with its bytes."""
    return contents(tree, "data/raw", "data/split", "results")


def everything(tree: Path) -> dict[str, bytes]:
    """Every file except those that Snakemake, git and Python keep for themselves."""
    own = re.compile(r"\.snakemake/|\.git/|.*__pycache__/")
    return {path: data for path, data in contents(tree, ".").items() if not own.match(path)}
