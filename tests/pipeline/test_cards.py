"""A model card agrees with the model's file and metrics; a provenance record with the training."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import card
from aevb.plumbing import provenance
from conftest import ROOT

NAMED = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
METRICS = {
    "images": 10000,
    "is_log_likelihood": 1,
    "elbo": -96.5,
    "log_px_given_z": -70.0,
    "kl": 26.5,
    "iwae_bound": -93.0,
    "iwae_k": 50,
    **dict.fromkeys(("log_px_given_z_se", "kl_se", "iwae_bound_se"), 0.24),
    "elbo_se": 0.25,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, set_files) -> Path:
    """A folder with a trained model and its provenance."""
    folder = tmp_path_factory.mktemp("card")
    words = f"--train {set_files}/train --validation {set_files}/validation "
    words += "--model model --history history --provenance record/of.json "
    words += "--checkpoints checkpoints --latent_dim 2 --seed 7 --hidden 4 --max_epochs 1"
    command = [sys.executable, ROOT / "src/train.py", *words.split(), "--device", "cpu"]
    subprocess.run(command, cwd=folder, check=True)
    return folder


def written(folder: Path, **changes: object) -> str:
    """The card of the model."""
    text = json.dumps({**METRICS, **changes})
    (folder / "metrics.json").write_text(text, encoding="utf-8")
    words = f"--model {folder}/model --metrics {folder}/metrics.json --card {folder}/card.md"
    card.main(card.arguments().parse_args(words.split()))
    return (folder / "card.md").read_text(encoding="utf-8")


def test_the_card_describes_the_model(folder):
    text = written(folder)
    for words in (
        *("k = 2, seed 7", "4 units", "dynamic binarisation", "Bernoulli", "10,000 images"),
        "| ELBO | -96.50 ± 0.25 |",
        "| IWAE bound (K = 50) | -93.00 ± 0.24 |",
        "epoch 1 of at most 1",
    ):
        assert words in text
    assert "†" not in text


def test_the_card_marks_what_is_not_a_log_likelihood(folder):
    text = written(folder, is_log_likelihood=0)
    assert "| ELBO | -96.50 ± 0.25 † |" in text
    assert "† Not a log-likelihood" in text


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
    assert provenance.commit(tmp_path) == "unknown"
    code = tmp_path / "src/aevb"
    code.mkdir(parents=True)
    (code / "a.py").write_text("1\n")
    for words in (["init", "-q"], ["add", "."], [*NAMED, "commit", "-qm", "One"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.strip()
    (tmp_path / "results.json").write_text("{}\n")
    assert provenance.commit(code) == head
    (code / "a.py").write_text("2\n")
    assert provenance.commit(code) == f"{head}+"
