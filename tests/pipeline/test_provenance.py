"""A provenance record agrees with the training."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from aevb.plumbing import machine
from conftest import ROOT

NAMED = ["-c", "user.name=a", "-c", "user.email=a@example.org"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, set_files) -> Path:
    """A folder with a trained model and its provenance."""
    folder = tmp_path_factory.mktemp("trained")
    words = f"--train {set_files}/train --validation {set_files}/validation "
    words += "--model model --history history --provenance record/of.json "
    words += "--checkpoints checkpoints --latent_dim 2 --seed 7 --hidden 4 --max_epochs 1"
    command = [sys.executable, ROOT / "src/train.py", *words.split(), "--device", "cpu"]
    subprocess.run(command, cwd=folder, check=True)
    return folder


def test_the_record_describes_the_training(folder, set_files):
    record = json.loads((folder / "record/of.json").read_text(encoding="utf-8"))
    files = [set_files / "train", set_files / "validation", folder / "model"]
    for file in files:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert record[f"{file.name}_sha256"] == digest
    assert record["python"] == sys.version.split()[0]
    assert (record["device"], record["threads"]) == ("cpu", 1)
    assert not {"host", "user", "date", "time"} & record.keys()


def test_the_record_names_the_commit_and_marks_changed_code(tmp_path):
    assert machine.commit(tmp_path) == "unknown"
    code = tmp_path / "src/aevb"
    code.mkdir(parents=True)
    (code / "a.py").write_text("1\n")
    for words in (["init", "-q"], ["add", "."], [*NAMED, "commit", "-qm", "One"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.strip()
    (tmp_path / "results.json").write_text("{}\n")
    assert machine.commit(code) == head
    (code / "a.py").write_text("2\n")
    assert machine.commit(code) == f"{head}+"
