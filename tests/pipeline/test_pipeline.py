"""The pipeline in a throw-away clone with a small mirror of MNIST, run by both engines."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import graph
from graph import run
from repository import METRICS, MODEL, clone, contents, copy, edit, everything, made

import pytest


def jobs(output: str) -> list[str]:
    """The jobs that the output of an engine names: `split`, `train@2-0`."""
    names = re.findall(r"^Running stage '(.*)':$", output, re.MULTILINE)
    for block in re.split(r"\n(?=\[|\n)", output):
        if rule := re.search(r"^(?:local)?rule (\w+):$", block, re.MULTILINE):
            run = re.search(r"^ *wildcards: (?:study=, )?k=(\d+), seed=(\d+)$", block, re.MULTILINE)
            names.append("@".join([rule[1], *(["-".join(run.groups())] if run else [])]))
    return sorted(name for name in names if name != "all")


def expected(tree: Path, section: str, **entries: Any) -> list[str]:
    """Change a section of params.yaml; the jobs that DVC's declarations say are to run again."""
    before = graph.dvc_graph(tree)
    edit(tree, section, **entries)
    return sorted(graph.rerun(before, graph.dvc_graph(tree)))


def reported(tree: Path, targets: str = "") -> dict[str, dict[str, Any]]:
    """The files in Snakemake's report, which is checked to need no network."""
    run(f"snakemake {targets} --report report.html", tree)
    page = (tree / "report.html").read_text(encoding="utf-8")
    assert re.search(r"<(script|link|img)[^>]* (src|href)=.?(https?:)?//", page) is None
    assert "system-message" not in page  # an error in a caption
    found = re.findall(r"^ *var results = (\{.*);$", page, re.MULTILINE)
    shown: dict[str, dict[str, Any]] = json.loads(found[0])
    return shown


def test_both_engines_make_the_same_bytes(by_snakemake: Path, by_dvc: Path) -> None:
    ours, theirs = made(by_snakemake), made(by_dvc)
    assert [name for name in ours | theirs if ours.get(name) != theirs.get(name)] == []


@pytest.mark.parametrize("engine", ["by_snakemake", "by_dvc"])
def test_every_declared_output_is_made_and_nothing_else(
    engine: str, origin: Path, request: Any
) -> None:
    tree = request.getfixturevalue(engine)
    outputs = {path for job in graph.dvc_graph(origin).values() for path in job.outputs}
    assert made(tree).keys() == outputs | contents(origin, "results").keys()
    # Git sees no .gitignore files written by DVC.
    assert ".gitignore" not in run("git status --porcelain -uall", tree)


def test_a_second_run_has_nothing_to_do(by_snakemake: Path, by_dvc: Path) -> None:
    assert "Nothing to be done" in run("snakemake --cores 2", by_snakemake)
    assert "Data and pipelines are up to date." in run("dvc repro", by_dvc)


def test_dvc_registers_what_snakemake_made(by_snakemake: Path, tmp_path: Path) -> None:
    tree = copy(by_snakemake, tmp_path)
    # The results of the present params.yaml are registered, not those of the last run.
    again = expected(tree, "sample", rows=3)
    assert jobs(run("snakemake register --quiet progress", tree)) == sorted([*again, "register"])
    assert "up to date" in run("dvc repro", tree)


def test_results_of_other_parameters_are_not_registered(by_snakemake: Path, tmp_path: Path) -> None:
    tree = copy(by_snakemake, tmp_path)
    (tree / "over.yaml").write_text("train: {learning_rate: 0.02}\n")
    before = everything(tree)
    output = run("snakemake --cores 1 register --configfile over.yaml", tree, code=1)
    assert len(re.findall("^ *register: .*params.yaml.*$", output, re.MULTILINE)) == 1, output
    assert "Traceback (most recent call last)" not in output
    assert everything(tree) == before


def test_snakemake_adopts_what_dvc_made(by_dvc: Path, tmp_path: Path) -> None:
    tree = copy(by_dvc, tmp_path)
    run("snakemake --touch --forceall --cores 1", tree)
    again = expected(tree, "evaluate", iwae_k=4)
    assert jobs(run("snakemake --dry-run", tree)) == again


def test_a_second_configuration_file_reaches_the_stage(by_snakemake: Path, tmp_path: Path) -> None:
    tree = copy(by_snakemake, tmp_path)
    (tree / "over.yaml").write_text("train: {learning_rate: 0.02}\n")
    output = run(f"snakemake -n -p {MODEL} --configfile params.yaml over.yaml", tree)
    assert jobs(output) == ["train@2-0"]
    assert "--learning_rate 0.02 " in output
    assert "--hidden 16 " in output


def test_snakemake_names_a_failed_job_and_its_log(by_snakemake: Path, tmp_path: Path) -> None:
    """The job in full and, in the last line, only the log in which the cause is found."""
    tree = copy(by_snakemake, tmp_path)
    (tree / MODEL).write_bytes(b"torn")
    output = run(f"snakemake --cores 2 {METRICS}", tree, code=1)
    (block,) = re.findall(r"^Error in rule evaluate:\n((?: .*\n)+)", output, re.MULTILINE)
    assert " log: logs/evaluate/k2-seed0.log " in block
    assert output.splitlines()[-1] == "evaluate failed: logs/evaluate/k2-seed0.log"
    last = (tree / "logs/evaluate/k2-seed0.log").read_text().splitlines()[-1]
    assert f"evaluate: error: {MODEL}: damaged" in last


def test_the_report_shows_every_run_by_its_k_and_seed(by_snakemake: Path, tmp_path: Path) -> None:
    tree = copy(by_snakemake, tmp_path)
    shown = reported(tree)
    results = {file for job in graph.dvc_graph(tree).values() for file in job.outputs}
    figures = {path for path in results if path.endswith(".png")}
    assert figures <= shown.keys() <= made(tree).keys()
    for path, entry in shown.items():
        mark = base64.b64encode((tree / path).read_bytes()).decode()
        assert entry["data_uri"].endswith(mark), path
        assert len(entry["caption"]) > 100, path
        if run_of := re.search(r"/k(\d+)-seed(\d+)", path):
            labels = {"k": run_of[1], "seed": run_of[2]}
            assert entry["labels"].items() >= labels.items(), path
            assert f"k = {labels['k']}, seed {labels['seed']}" in entry["caption"], path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "environment"),
    [
        ("snakemake --cores 1", {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "0", "LC_ALL": "C"}),
        ("snakemake --cores 4", {"OMP_NUM_THREADS": "1", "TZ": "Asia/Kathmandu"}),
        ("dvc repro", {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "1", "TZ": "Asia/Kathmandu"}),
    ],
)
def test_cores_and_environment_leave_the_bytes_alone(
    command: str, environment: dict[str, str], origin: Path, by_snakemake: Path, tmp_path: Path
) -> None:
    tree = clone(origin, tmp_path / "tree")
    run(command, tree, **environment)
    assert made(tree) == made(by_snakemake)


@pytest.mark.slow
def test_a_study_is_the_same_workflow_in_folders_of_its_own(by_snakemake, tmp_path):
    tree = copy(by_snakemake, tmp_path)
    text = "params: {}\nvariants: {same: {}, other: {train: {optimiser: adagrad}}}\n"
    (tree / "studies" / "tiny.yaml").write_text(text, encoding="utf-8")
    before = made(tree)
    # No two share a checkpoint, so that the same training can run for both side by side.
    folders = re.findall(r"--checkpoints (\S+)", run("snakemake -np -R train -- all tiny", tree))
    assert len(set(folders)) == len(folders) == 3
    run("snakemake --cores 2 tiny", tree)
    after = made(tree)
    assert before.items() <= after.items()
    for file in (MODEL, METRICS):
        name = file.removeprefix("results/")
        assert after[f"results/studies/tiny/same/{name}"] == before[file]
        assert after[f"results/studies/tiny/other/{name}"] != before[file]
    table = after["results/studies/tiny/table.md"].decode()
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:4]] == ["same", "other"]
    shown = reported(tree, "tiny")
    labels = shown["results/studies/tiny/same/history/k2-seed0.csv"]["labels"]
    assert labels == {"k": "2", "seed": "0", "variant": "same"}
