"""The graph as each engine declares it, in a form that can be compared; how to run an engine."""

import ast
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from dvc.repo import Repo
from snakemake.api import DAGSettings, OutputSettings, ResourceSettings, SnakemakeApi
from snakemake.settings.types import Quietness

from aevb.plumbing import params  # also keeps Snakemake from importing it out of a temporary tree

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 600
"""Seconds for one command; the longest, a page of the docs, takes two minutes or three."""

Values = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """One job of an engine.

    Attributes:
        command: the words of its command line.
        inputs, outputs: its files, relative to the repository.
        noticed: what the engine keeps to notice that a job has become another one.
    """

    command: tuple[str, ...]
    inputs: frozenset[str]
    outputs: frozenset[str]
    noticed: str = field(compare=False)


@dataclass(frozen=True)
class Graph:
    """All jobs by name: `split`, `train@3-0`.

    Attributes:
        targets: the files whose absence the engine notices.
        sections: the sections of params.yaml that each job declares, where the engine has that.
    """

    jobs: dict[str, Job]
    targets: frozenset[str]
    sections: dict[str, set[str]] = field(default_factory=dict)


def run(command: str, cwd: Path, code: int = 0, **environment: str) -> str:
    """Run a command with this Python's environment first on PATH, see that its exit code is right.

    Returns:
        What it says, stdout and stderr in their order.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    foreign = ("SNAKEMAKE_", "DVC_", "AEVB_", "GIT_", "OMP_", "MKL_")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    process = subprocess.Popen(
        shlex.split(command), cwd=cwd, env={**inherited, "PATH": path, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    except BaseException:  # the engines' jobs have to go too
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    assert process.returncode == code, f"{command}: exit code {process.returncode}\n{output}"
    return output


def stage(job: str) -> str:
    """The stage that a job belongs to: `train@3-0` is a job of `train`."""
    return job.partition("@")[0]


def copy_tree(tree: Path) -> Path:
    """All that the engines read when they declare their jobs, to be altered except data and src."""
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
    """Write params.yaml, with sections and keys in the given order."""
    params.check(values)
    text = yaml.safe_dump(values, sort_keys=False)
    (tree / "params.yaml").write_text(text, encoding="utf-8")


def changed(values: Values, section: str, **entries: Any) -> Values:
    """The parameters with other entries in one section."""
    return {**values, section: {**values[section], **entries}}


def snakemake_graph(tree: Path, *targets: str) -> Graph:
    """The jobs that `snakemake` would run, for these files say, in a tree without results."""
    quiet = OutputSettings(quiet={Quietness.ALL})
    # The workflow alters PATH and sys.path, the engine the working directory.
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
        found = list(workflow.dag.jobs)
        targets = {file for job in found if job.rule.name == "all" for file in job.input}
        jobs = {
            "@".join(filter(None, [job.rule.name, "-".join(filter(None, job.wildcards))])): Job(
                command=tuple(shlex.split(job.shellcmd)),
                inputs=frozenset(map(str, job.input)),
                outputs=frozenset(map(str, job.output)),
                noticed=str([workflow.persistence._params(job), job.rule.shellcmd]),
            )
            for job in found
            if job.shellcmd  # the others only name what to make
        }
    return Graph(jobs, frozenset(map(str, targets)))


def dvc_graph(tree: Path) -> Graph:
    """The jobs that `dvc repro` would run in a tree without results."""
    values = read_values(tree)
    with Repo(str(tree), uninitialized=True) as repo:
        stages = {stage.name: stage for stage in repo.index.stages}
        made = {out.def_path for stage in stages.values() for out in stage.outs}
        jobs, sections = {}, {}
        for name, found in stages.items():
            declared = {key for dep in found.deps for key in getattr(dep, "params", [])}
            files = [dep.def_path for dep in found.deps if not hasattr(dep, "params")]
            jobs[name] = Job(
                command=tuple(shlex.split(found.cmd)),
                inputs=frozenset(file for path in files for file in expand(tree, path, made)),
                outputs=frozenset(out.def_path for out in found.outs),
                noticed=str([found.cmd, [values.get(section) for section in sorted(declared)]]),
            )
            sections[name] = declared
    return Graph(jobs, frozenset(made), sections)


def expand(tree: Path, path: str, made: set[str]) -> Iterator[str]:
    """The files that a dependency of DVC stands for: itself, or what comes to lie in the folder."""
    inside = {file for file in made if file.startswith(f"{path}/")}
    if (tree / path).is_dir():
        inside |= {f"{path}/{file.name}" for file in (tree / path).iterdir()}
    yield from inside or {path}


@cache
def code_of(stage: str, tree: Path = ROOT) -> set[str]:
    """The files whose code decides a stage's bytes: the script and, transitively, its imports."""
    seen: set[str] = set()
    waiting = [f"src/{stage}.py"]
    while waiting:
        file = waiting.pop()
        seen.add(file)
        for module in imports((tree / file).read_text(encoding="utf-8")):
            found = f"src/{module.replace('.', '/')}.py"
            if (tree / found).exists() and found not in seen:
                waiting.append(found)
    return {file for file in seen if "plumbing" not in file}


def imports(code: str) -> Iterator[str]:
    """All names that code imports, wherever it does, modules and what may be modules."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def differences(snakemake: Graph, dvc: Graph) -> list[str]:
    """What one engine declares and the other does not, a line each."""
    lines = []
    for name in sorted(snakemake.jobs.keys() ^ dvc.jobs.keys()):
        lines.append(f"{name}: only {'Snakemake' if name in snakemake.jobs else 'DVC'} has it")
    for name in sorted(snakemake.jobs.keys() & dvc.jobs.keys()):
        ours, theirs = snakemake.jobs[name], dvc.jobs[name]
        if ours.command != theirs.command:
            lines.append(
                f"{name}: Snakemake runs {shlex.join(ours.command)}, "
                f"DVC runs {shlex.join(theirs.command)}"
            )
        for kind in ("inputs", "outputs"):
            mine, other = getattr(ours, kind), getattr(theirs, kind)
            for engine, files in (("Snakemake", mine - other), ("DVC", other - mine)):
                lines += [f"{name}: {kind} hold {file} only in {engine}" for file in sorted(files)]
    return lines


def undeclared(section: str, before: Graph, after: Graph) -> list[str]:
    """Jobs of DVC that declare a section without having its flags, or the other way round.

    The two graphs differ in one value of that section.
    """
    lines = []
    for name in sorted(before.jobs.keys() & after.jobs.keys()):
        has = before.jobs[name].command != after.jobs[name].command
        if has != (section in before.sections[name]):
            lines.append(
                f"{name}: {'has' if has else 'lacks'} a flag of {section} and "
                f"declares {', '.join(sorted(before.sections[name])) or 'nothing'}"
            )
    return lines


def wrong_code(graph: Graph) -> list[str]:
    """Library files that a job depends on, or should depend on, against its imports."""
    lines = []
    for name, job in sorted(graph.jobs.items()):
        declared = {file for file in job.inputs if file.startswith("src/")}
        needed = code_of(stage(name))
        lines += [f"{name}: {file} is imported, not declared" for file in sorted(needed - declared)]
        lines += [f"{name}: {file} is declared, not imported" for file in sorted(declared - needed)]
    return lines


def unwatched(graph: Graph) -> list[str]:
    """Outputs whose absence the engine would not notice."""
    outputs = {file for job in graph.jobs.values() for file in job.outputs}
    return sorted(outputs - graph.targets)


def rerun(before: Graph, after: Graph) -> set[str]:
    """The jobs that have to run when the parameters have changed: new or other ones, all below."""
    run = {
        name
        for name, job in after.jobs.items()
        if name not in before.jobs or job.noticed != before.jobs[name].noticed
    }
    while True:
        stale = {file for name in run for file in after.jobs[name].outputs}
        below = {name for name, job in after.jobs.items() if job.inputs & stale}
        if below <= run:
            return run
        run |= below
