"""A model card says what the model's file and its metrics say; a provenance record what is true."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from scipy import stats

import test_cli
from aevb.data import write_set
from aevb.files import read_tensors
from aevb.plumbing import provenance
from aevb.report.cards import LICENCES, card
from aevb.report.comparison import DATASETS

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
def folder(tmp_path_factory, small_sets) -> Path:
    """A folder with a model that the train stage made, its metrics and its provenance."""
    folder = tmp_path_factory.mktemp("card")
    for name, images in zip(test_cli.SETS, small_sets, strict=True):
        write_set(folder / name, images)
    sets = f"--train {folder}/train --validation {folder}/validation".split()
    made = f"--model {folder}/model --history {folder}/history".split()
    record = f"--provenance {folder}/record/of.json --checkpoints {folder}/checkpoints".split()
    settings = test_cli.SETTINGS["train"].split()
    outcome = test_cli.run("train", *sets, *made, *record, *settings, "--seed", "7")
    assert outcome.code == 0, outcome.error
    (folder / "metrics.json").write_text(json.dumps(METRICS), encoding="utf-8")
    return folder


def test_the_card_is_that_of_the_model(folder):
    words = f"--model {folder}/model --metrics {folder}/metrics.json --card {folder}/card.md"
    outcome = test_cli.run("card", *words.split())
    assert outcome.code == 0, outcome.error
    text = (folder / "card.md").read_text(encoding="utf-8")
    half = stats.norm.ppf(0.975) * 0.25
    for said in (
        *("k = 2, seed 7", "4 tanh units", "dynamic binarisation", "Bernoulli", "10,000 images"),
        f"| ELBO | -96.50 ± {half:.2f} |",
        "| IWAE bound (K = 50) | -93.00 ± 0.47 |",
        "of epoch 1 of at most 1",
    ):
        assert said in text
    assert "†" not in text


def test_the_card_says_what_is_no_log_likelihood(folder):
    _, metadata = read_tensors(folder / "model", "model")
    text = card(metadata, {**METRICS, "is_log_likelihood": 0})
    assert "| ELBO | -96.50 ± 0.49 † |" in text
    assert "† Not a log-likelihood" in text


def test_every_data_set_has_a_licence():
    assert LICENCES.keys() == DATASETS.keys()


def test_the_record_holds_what_the_training_ran_on(folder):
    record = json.loads((folder / "record/of.json").read_text(encoding="utf-8"))
    for name in ("train", "validation", "model"):
        assert record[f"{name}_sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert record["python"] == sys.version.split()[0]
    assert (record["device"], record["threads"]) == ("cpu", 1)
    assert not {"host", "user", "date", "time"} & record.keys()


def test_the_record_names_the_commit_and_whether_the_code_is_its(tmp_path):
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
