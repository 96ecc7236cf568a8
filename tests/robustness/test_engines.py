"""The commands of a user: how they end, what a killed engine leaves behind, setting up .venv."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from graph import ROOT, run
from processes import kill_group, start, wait_for
from repository import clone, commit, copy, edit

import pytest

MAKE = "make -o .venv/.ready"  # the tests use another environment
STOPPED = "Stopped. Run the same command to continue."


@pytest.mark.slow
def test_make_is_brief_and_continues_after_an_interrupt_and_a_kill(origin, tmp_path):
    tree = clone(origin, tmp_path / "tree")
    edit(tree, "train", max_epochs=5000, patience=5000)
    output = tmp_path / "output"
    for number in (signal.SIGINT, signal.SIGKILL):
        output.write_bytes(b"")
        head = start(MAKE, tree, output)
        assert wait_for((tree / "results/models/.k2-seed0.safetensors.lock").exists, head)
        if number == signal.SIGINT:
            os.killpg(head.pid, number)
            assert head.wait(60) == -number
            assert output.read_text().splitlines()[-1] == STOPPED
            assert "Error" not in output.read_text()
        kill_group(head)
    edit(tree, "train", max_epochs=2)
    said = run(MAKE, tree).splitlines()
    assert "Snakemake was killed; taking up what it was running." in said
    assert len(said) < 50
    table = (tree / "results/comparison/table.md").read_text()
    assert table in "\n".join(said)
    assert said[-2:] == [
        "Figures: results/comparison/*.png",
        "Next: docs/answers.md discusses the results; change params.yaml and run make again",
    ]


@pytest.mark.parametrize(
    ("file", "end", "message"),
    [
        ("dvc.lock", "", "dvc.lock was damaged; restored it from git"),
        ("dvc.lock", "      ha", "dvc.lock was damaged; restored it from git"),
        (".dvc/tmp/rwlock", "", "removed .dvc/tmp/rwlock, with which DVC cannot start"),
    ],
)
def test_what_a_killed_dvc_leaves_is_repaired(file, end, message, by_dvc, tmp_path):
    tree = copy(by_dvc, tmp_path)
    commit(tree, "results")
    text = (tree / file).read_text()
    (tree / file).write_text(text[: text.index(end) + len(end)])
    run("dvc repro", tree, code=255)
    said = run(f"{MAKE} repro", tree)
    assert [line for line in said.splitlines() if "repair" in line] == [f"repair: {message}"]
    assert "Data and pipelines are up to date." in run("dvc status", tree)


def test_empty_folders_in_the_cache_of_runs_are_removed(by_dvc: Path, tmp_path: Path) -> None:
    """They are left when there is no space on the device."""
    tree = copy(by_dvc, tmp_path)
    (tree / "dvc.lock").unlink()
    for file in (tree / ".dvc/cache/runs").glob("*/*/*"):
        file.unlink()
    assert "NoneType" in run("dvc repro split", tree, code=255)
    assert "repair: removed .dvc/cache/runs/" in run("python src/repair.py", tree)
    run("dvc repro split", tree)


@pytest.mark.slow
def test_register_repairs_the_lock_and_shows_what_dvc_says(by_dvc: Path, tmp_path: Path) -> None:
    tree = copy(by_dvc, tmp_path)
    run("snakemake --touch --forceall", tree)
    run("git rm --quiet --cached dvc.lock", tree)
    (tree / "dvc.lock").write_bytes(b"")
    assert "repair: removed dvc.lock" in run("snakemake register", tree)
    (tree / "dvc.yaml").write_text("stages: 3\n")
    assert "'./dvc.yaml' validation failed" in run("snakemake register", tree, code=1)
    assert "'./dvc.yaml' validation failed" in (tree / "logs/register.log").read_text()


# Setting up .venv: a folder with the Makefile and a Python that only records its arguments.

PYTHON = """#!/bin/sh
case "$*" in
    --version) echo Python {version} ;;
    *venv*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
esac
echo "$*" >> calls
"""


@pytest.fixture
def set_up(tmp_path: Path) -> Callable[..., str]:
    """Runs `make .venv/.ready` with a Python of a version and returns what is printed."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").touch()
    (tmp_path / "bin").mkdir()

    def make(version: str, code: int = 0) -> str:
        python = tmp_path / "bin" / "python3"
        python.write_text(PYTHON.format(version=version))
        python.chmod(0o755)
        path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
        return run(f"env PATH={path} make .venv/.ready", tmp_path, code=code)

    return make


@pytest.mark.parametrize("version", ["2.7", "3.9", "3.10"])
def test_an_old_python_is_refused_first(version: str, set_up, tmp_path: Path) -> None:
    message = f"needs Python 3.11 or newer, python3 is {version}: make PYTHON=python3.12"
    assert set_up(f"{version}.18", code=2).splitlines()[0] == message
    assert (tmp_path / "calls").read_text() == "--version\n"


def test_a_broken_environment_is_made_anew(set_up, tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.ready").touch()  # and no program
    assert "3.6 GB" in set_up("3.13.0")
    _, venv, pip = (tmp_path / "calls").read_text().splitlines()
    assert venv == "-m venv --clear .venv"
    assert pip == "-m pip install --require-hashes -r requirements.lock"
    assert (tmp_path / ".venv/.ready").exists()
