"""Snapshots of trainings, scored on training and test images."""

from dataclasses import replace

from aevb.data import write_set
from aevb.files import InputError, read_json
from stages import run_or_raise

import pandas as pd
import pytest

FLAGS = "--latent_dim 2 --hidden 16 --batch_size 50 --decay 0 --binarisation none --device cpu"


@pytest.fixture(scope="module")
def trained(set_files, tmp_path_factory):
    """Trains one model with more flags in a new folder and returns the folder."""

    def train(*more):
        folder = tmp_path_factory.mktemp("trained")
        words = [*FLAGS.split(), "--checkpoints", folder / "checkpoints", *more]
        words += ["--model", folder / "models/k2-seed0.safetensors"]
        for name in ("train", "validation"):
            words += [f"--{name}", set_files / name]
        run_or_raise("train", *words, "--history", folder / "history")
        return folder

    return train


def curves(run_research, sets, folder):
    words = ["--train", sets / "train", "--test", sets / "test", "--results", folder]
    words += ["--output", folder / "curves", "--threshold", 0.01, "--latent_dims", 2]
    run_research("curves", *words, "--seeds", 0)
    return pd.read_csv(folder / "curves/table.csv")


def test_a_point_is_the_evaluation_of_a_training_that_ends_there(trained, set_files, run_research):
    long = trained("--max_epochs", 4, "--snapshots", 2, 3)
    table = curves(run_research, set_files, long)
    assert table["images_seen"].tolist() == [600, 900]
    last = "{test:.2f} ± {test_se:.2f}".format(**table.iloc[-1])
    assert f"| {last} " in (long / "curves/table.md").read_text()
    short = trained("--max_epochs", 2)
    outputs = [f"--{name}={short / name}" for name in ("metrics", "evaluation", "terms")]
    words = ["--test", set_files / "test", "--model", short / "models/k2-seed0.safetensors"]
    run_or_raise("evaluate", *words, *outputs, "--iwae_k", 1, "--seed", 0)
    metrics = read_json(short / "metrics")
    assert table[["test", "test_se"]].iloc[0].tolist() == [metrics["elbo"], metrics["elbo_se"]]


def test_training_and_test_images_are_scored_alike(trained, small_sets, tmp_path, run_research):
    first, _, test = small_sets
    write_set(tmp_path / "test", replace(test, images=first.images[:100]))
    write_set(tmp_path / "train", first)
    table = curves(run_research, tmp_path, trained("--max_epochs", 1, "--snapshots", 1))
    assert table["training"].tolist() == table["test"].tolist()


def test_a_model_without_snapshots_is_refused(trained, set_files, run_research):
    folder = trained("--max_epochs", 1)
    with pytest.raises(InputError, match=r"k2-seed0.safetensors: has no snapshots"):
        curves(run_research, set_files, folder)
