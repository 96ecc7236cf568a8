"""The jobs that each engine declares, in a form that can be compared, and how to run an engine."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from aevb.plumbing import checking  # also keeps Snakemake from importing it out of a temporary tree

import yaml
from dvc.repo import Repo
from snakemake.api import DAGSettings, OutputSettings, ResourceSettings, SnakemakeApi
from snakemake.settings.types import Quietness

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 600
"""Seconds for one command; the longest, a page of the docs, takes about three minutes."""

Values = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """One job of an engine.

    Attributes:
        command: the words of its command line.
        inputs, outputs: its files, relative to the repository.
    """

    command: tuple[str, ...]
    inputs: frozenset[str]
    outputs: frozenset[str]


Graph = dict[str, Job]
"""All jobs by name: `split`, `train@3-0`."""


def own_environment() -> dict[str, str]:
    """The environment with this Python first on PATH and without settings of engines and ours."""
    foreign = ("SNAKEMAKE_", "DVC_", "AEVB_", "GIT_", "OMP_", "MKL_", "PYTHONPATH")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**inherited, "PATH": path}


def run(command: str, cwd: Path, code: int = 0, **environment: str) -> str:
    """Run a command and check its exit code.

    Returns:
        Its output, stdout and stderr together.
    """
    process = subprocess.Popen(
        shlex.split(command), cwd=cwd, env=own_environment() | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    except BaseException:  # also kill the jobs of the engine
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    assert process.returncode == code, f"{command}: exit code {process.returncode}\n{output}"
    return output


def copy_tree(tree: Path) -> Path:
    """A copy of all that the engines read to declare their jobs; data, docs and src are links."""
    (tree / "data").mkdir(parents=True)
    for name in ("data/mnist", "docs", "src"):
        (tree / name).symlink_to(ROOT / name)
    for name in ("Snakefile", "dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / name, tree / name)
    for name in ("workflow", "studies"):
        shutil.copytree(ROOT / name, tree / name)
    return tree


def read_values(tree: Path) -> Values:
    """The parameters in params.yaml."""
    values: Values = yaml.safe_load((tree / "params.yaml").read_text(encoding="utf-8"))
    return values


def write_values(tree: Path, values: Values) -> None:
    """Check parameters and write them to params.yaml."""
    checking.check(values)
    text = yaml.safe_dump(values, sort_keys=False)
    (tree / "params.yaml").write_text(text, encoding="utf-8")


def changed(values: Values, section: str, **entries: Any) -> Values:
    """The parameters with other values in one section."""
    return {**values, section: {**values[section], **entries}}


@contextmanager
def snakemake_workflow(tree: Path, *targets: str) -> Iterator[Any]:
    """Snakemake's workflow in a tree without results, with the jobs for some targets."""
    quiet = OutputSettings(quiet={Quietness.ALL})
    # The workflow changes PATH and sys.path.
    with (
        patch.dict(os.environ),
        patch.object(sys, "path", list(sys.path)),
        SnakemakeApi(quiet) as api,
    ):
        workflow_api = api.workflow(ResourceSettings(cores=4), None, None, None, None, None,
                                    tree / "Snakefile", tree)  # fmt: skip
        settings = DAGSettings(targets=frozenset(targets), forceall=True)
        workflow = workflow_api.dag(settings).workflow_api._workflow
        workflow._prepare_dag(
            forceall=True, ignore_incomplete=True, lock_warn_only=True, nolock=True
        )
        workflow._build_dag()
        yield workflow


def snakemake_graph(tree: Path, *targets: str) -> Graph:
    """The jobs that `snakemake TARGETS` would run in a tree without results.

    Without targets, every output has to be one that Snakemake makes again if it is missing.
    """
    with snakemake_workflow(tree, *targets) as workflow:
        found = list(workflow.dag.jobs)
        jobs = {
            "@".join(filter(None, [job.rule.name, "-".join(filter(None, job.wildcards))])): Job(
                command=tuple(shlex.split(job.shellcmd)),
                inputs=frozenset(map(str, job.input)),
                outputs=frozenset(map(str, job.output)),
            )
            for job in found
            if job.shellcmd  # other rules have only inputs, as `all`
        }
    wanted = {str(file) for job in found if job.rule.name == "all" for file in job.input}
    missing = {file for job in jobs.values() for file in job.outputs} - wanted
    assert targets or not missing, f"the rule all lacks {sorted(missing)}"
    return jobs


def dvc_graph(tree: Path) -> Graph:
    """The jobs that `dvc repro` would run in a tree without results."""
    with Repo(str(tree), uninitialized=True) as repo:
        stages = {stage.name: stage for stage in repo.index.stages}
        made = {out.def_path for stage in stages.values() for out in stage.outs}
        jobs = {}
        for name, found in stages.items():
            files = [dep.def_path for dep in found.deps if not hasattr(dep, "params")]
            jobs[name] = Job(
                command=tuple(shlex.split(found.cmd)),
                inputs=frozenset(file for path in files for file in expand(tree, path, made)),
                outputs=frozenset(out.def_path for out in found.outs),
            )
    return jobs


def expand(tree: Path, path: str, made: set[str]) -> Iterator[str]:
    """The files that a dependency of DVC stands for: itself, or the files in a folder."""
    inside = {file for file in made if file.startswith(f"{path}/")}
    if (tree / path).is_dir():
        inside |= {f"{path}/{file.name}" for file in (tree / path).iterdir()}
    yield from inside or {path}


def differences(snakemake: Graph, dvc: Graph) -> list[str]:
    """What only one of the engines declares, one line each."""
    lines = [f"{name}: only one engine has it" for name in sorted(snakemake.keys() ^ dvc.keys())]
    for name in sorted(snakemake.keys() & dvc.keys()):
        for part in ("command", "inputs", "outputs"):
            ours, theirs = getattr(snakemake[name], part), getattr(dvc[name], part)
            if ours != theirs:
                only = sorted({*ours} ^ {*theirs}) or "the order"
                lines.append(f"{name}: {part} of Snakemake and DVC differ in {only}")
    return lines


def rerun(before: Graph, after: Graph) -> set[str]:
    """The jobs that are new or have another command, and all jobs that depend on them."""
    found = {
        name
        for name, job in after.items()
        if name not in before or job.command != before[name].command
    }
    while True:
        outputs = {file for name in found for file in after[name].outputs}
        more = {name for name, job in after.items() if job.inputs & outputs}
        if more <= found:
            return found
        found |= more
