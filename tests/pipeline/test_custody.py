"""Files that do not belong together are detected by the next stage or by `register`."""

import hashlib
import json
import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

from aevb.data import RAW_FILES
from aevb.files import InputError
from custody import walk
from graph import dvc_graph, read_values, run
from repository import METRICS, MODEL, commit, copy, edit, made, run_job
from stages import edit_tensors

import numpy as np
import pytest

LOCK = "dvc.lock"
IMAGES = f"data/raw/{RAW_FILES[0]}"
WEIGHTS = "decoder.output.weight"


def register(tree: Path, *words: str) -> None:
    """Check that `register` refuses in one line with these words, and that DVC records nothing."""
    lock = (tree / LOCK).read_bytes() if (tree / LOCK).exists() else None
    output = run("snakemake --cores 2 register", tree, code=1)
    (line,) = [line for line in output.splitlines() if ": error: " in line]
    assert all(word in line for word in words), line
    assert "delete it and run `snakemake --cores all` or `dvc repro`" in line
    assert lock == ((tree / LOCK).read_bytes() if (tree / LOCK).exists() else None)


def refusal(tree: Path, *words: str) -> None:
    """Check that the files of a tree are rejected."""
    with pytest.raises(InputError) as caught:
        walk(read_values(tree), tree)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


def swap(first: Path, second: Path) -> None:
    """Exchange two files."""
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def damage(path: Path, place: int) -> None:
    """Flip a bit and keep the time stamps."""
    content, times = bytearray(path.read_bytes()), path.stat()
    content[place % len(content)] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


# As a user meets them.


@pytest.mark.slow
def test_snakemake_does_not_pass_off_the_results_of_dvc_as_those_of_another_rate(by_dvc, tmp_path):
    """Snakemake knows no parameters of what DVC made, so `register` has to refuse."""
    tree = copy(by_dvc, tmp_path)
    edit(tree, "train", learning_rate=0.02)
    assert "Nothing to be done" in run("snakemake --cores 2", tree)
    register(tree, MODEL, "made with learning_rate = 0.005, not 0.02")
    (tree / MODEL).unlink()
    run("snakemake --cores 2 register", tree)
    assert (tree / MODEL).read_bytes() != (by_dvc / MODEL).read_bytes()
    assert "up to date" in run("dvc repro", tree)


@pytest.mark.slow
def test_old_numbers_are_not_shown_beside_new_figures(by_snakemake, tmp_path):
    tree = copy(by_snakemake, tmp_path)
    commit(tree, "results")
    edit(tree, "evaluate", iwae_k=4)
    run("snakemake --cores 2", tree)
    run("git checkout --quiet -- results", tree)
    register(tree, METRICS, "not the means of results/evaluation/k2-seed0.safetensors")


@pytest.mark.slow
def test_raw_files_are_compared_with_their_checksums(by_dvc, tmp_path):
    tree = copy(by_dvc, tmp_path)
    original = (tree / IMAGES).read_bytes()
    content = original[:5000] + bytes(2000) + original[7000:]
    (tree / IMAGES).write_bytes(content)
    output = run("snakemake --cores 1 data/split/train.safetensors", tree, code=1)
    assert f"split: error: {IMAGES}: not the file in dataset.json" in output
    # DVC restores the file from its cache, but does not notice if that was damaged as well.
    md5 = hashlib.md5(original, usedforsecurity=False).hexdigest()
    cached = tree / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    cached.chmod(0o644)
    cached.write_bytes(content)
    cached.chmod(0o444)
    (tree / IMAGES).unlink()
    assert "Stage 'compare' didn't change" in run("dvc repro", tree)
    register(tree, IMAGES, "not the file in dataset.json")


def test_a_damaged_model_with_its_old_time_stamp_is_not_registered(by_snakemake, tmp_path):
    tree = copy(by_snakemake, tmp_path)
    damage(tree / MODEL, -100)
    assert "Nothing to be done" in run("snakemake --cores 1", tree)
    register(tree, MODEL, "damaged")


# With the jobs of the engines, run in this process.


def test_finished_results_are_believed(finished, by_snakemake, by_dvc):
    for tree in (finished, by_snakemake, by_dvc):
        walk(read_values(tree), tree)


@pytest.mark.parametrize(
    ("folder", "jobs", "words"),
    [
        ("models", ["evaluate@2-0", "sample@2-0", "reconstruct@3-0"], "the model file of k"),
        ("history", ["compare"], "history/k2-seed0.csv: not of the model that was evaluated"),
        ("evaluation", ["compare"], "the evaluation file of k3-seed0"),
        ("samples", ["compare"], "the samples file of k3-seed0"),
        ("reconstructions", ["compare"], "the reconstructions file of k3-seed0"),
        ("metrics", ["compare"], "metrics/k2-seed0.json: not the means of"),
    ],
)
def test_files_of_two_runs_are_not_exchanged(folder, jobs, words, finished_copy):
    for first in (finished_copy / "results" / folder).glob("k2*"):
        swap(first, first.with_name(first.name.replace("k2", "k3")))
    refusal(finished_copy)
    for job in jobs:
        with pytest.raises(InputError, match=words):
            run_job(dvc_graph(finished_copy)[job], finished_copy)


def test_sets_are_not_exchanged(finished_copy):
    sets = finished_copy / "data/split"
    swap(sets / "validation.safetensors", sets / "test.safetensors")
    refusal(finished_copy, "made with set = test, not validation")
    for job in ("train@2-0", "evaluate@2-0", "reconstruct@2-0"):
        with pytest.raises(InputError, match="set, should be"):
            run_job(dvc_graph(finished_copy)[job], finished_copy)


def another(tree: Path, job: str, section: str, folder: Path, **entries: object) -> Path:
    """Run a job with other parameters in a copy of a tree."""
    other = copy(tree, folder)
    edit(other, section, **entries)
    run_job(dvc_graph(other)[job], other)
    return other


def test_a_model_of_other_parameters_is_not_believed(finished, finished_copy, tmp_path):
    other = another(finished, "train@2-0", "train", tmp_path / "other", decay=0.5)
    shutil.copy(other / MODEL, finished_copy / MODEL)
    refusal(finished_copy, MODEL, "made with decay = 0.5, not 0.6")
    run_job(dvc_graph(finished_copy)["evaluate@2-0"], finished_copy)
    with pytest.raises(InputError, match="made from different models"):
        run_job(dvc_graph(finished_copy)["compare"], finished_copy)


def test_sets_of_other_splits_are_not_mixed(finished, finished_copy, tmp_path):
    other = another(finished, "split", "split", tmp_path / "other", seed=1)
    for name, job in (("validation", "train@2-0"), ("test", "evaluate@2-0")):
        path = f"data/split/{name}.safetensors"
        shutil.copy(other / path, finished_copy / path)
        refusal(finished_copy, path, "made with seed = 1, not 0")
        with pytest.raises(InputError, match=f"{path}: from another split"):
            run_job(dvc_graph(finished_copy)[job], finished_copy)
        shutil.copy(finished / path, finished_copy / path)


@pytest.mark.parametrize(
    "change",
    [{"elbo": -90.5}, {"elbo": "good"}, {"elbo": None}, {"images": -200}, {"kl": 1e999}, {"x": 1}],
    ids=str,
)
def test_metrics_have_to_be_the_means_of_the_terms(change, finished_copy):
    path = finished_copy / METRICS
    metrics = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps(metrics, indent=2, sort_keys=True))
    refusal(finished_copy, METRICS, "not the means of")
    before = made(finished_copy)
    with pytest.raises(InputError, match=f"{METRICS}: not the means of"):
        run_job(dvc_graph(finished_copy)["compare"], finished_copy)
    assert made(finished_copy) == before


def test_a_model_with_huge_weights_replaces_no_results(finished_copy):
    edit_tensors(finished_copy / MODEL, "model", **{WEIGHTS: np.full((784, 16), 3e38, np.float32)})
    before = made(finished_copy)
    with pytest.raises(InputError, match=f"{MODEL}: its terms are not finite"):
        run_job(dvc_graph(finished_copy)["evaluate@2-0"], finished_copy)
    assert made(finished_copy) == before


# At random.


def meaning(path: Path) -> object:
    """What is read of a file: the values of JSON, and a PNG up to its end mark."""
    content = path.read_bytes()
    if path.suffix == ".png":
        return content.partition(b"IEND")[0]
    with suppress(ValueError):
        return json.loads(content) if path.suffix == ".json" else content
    return content


def test_forty_changes_at_random(finished, finished_copy, tmp_path):
    """Files are exchanged, copied over others, or edited; files of other parameters among them."""
    chance = random.Random(19)
    other = another(finished, "train@3-0", "train", tmp_path / "other", mc_samples=2)
    for job in ("evaluate@3-0", "sample@3-0", "reconstruct@3-0", "compare"):
        run_job(dvc_graph(other)[job], other)
    names = sorted(made(finished))
    for _ in range(40):
        name = chance.choice(names)
        path = finished_copy / name
        alike = [other for other in names if Path(other).suffix == path.suffix]
        second = chance.choice(alike)
        match chance.choice(["swap", "copy", "foreign", "bit", "digit", "cut"]):
            case "swap":
                swap(path, finished_copy / second)
            case "copy":
                path.write_bytes((finished_copy / second).read_bytes())
            case "foreign":
                shutil.copy(other / name, path)
            case "bit":
                damage(path, chance.randrange(10**9))
            case "digit":
                path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
            case "cut":
                path.write_bytes(path.read_bytes()[:-1])
        if any(
            meaning(finished_copy / file) != meaning(finished / file) for file in (name, second)
        ):
            refusal(finished_copy)
        for file in (name, second):
            shutil.copy(finished / file, finished_copy / file)
