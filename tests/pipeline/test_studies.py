"""A study lays its values over params.yaml, variant by variant, or says what is wrong with it."""

from pathlib import Path

import pytest
import yaml

from aevb.plumbing.params import Params
from aevb.plumbing.studies import read_studies, read_study

BASE = Params().model_dump()
ROOT = Path(__file__).resolve().parent.parent


def written(folder: Path, text: str) -> Path:
    path = folder / "some.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_values_are_laid_over_in_their_order(tmp_path):
    text = """
    params: {runs: {latent_dims: [2]}, train: {decay: 0, max_epochs: 7}}
    variants: {b: {train: {max_epochs: 9}}, a-1: {}}
    """
    study = read_study(written(tmp_path, text), BASE)
    assert [*study] == ["b", "a-1"]
    for name, epochs in (("b", 9), ("a-1", 7)):
        train = {**BASE["train"], "decay": 0, "max_epochs": epochs}
        runs = {"latent_dims": [2], "seeds": BASE["runs"]["seeds"]}
        assert study[name] == {**BASE, "train": train, "runs": runs}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("params: {", "cannot be read as YAML"),
        ("[1]", "should hold `params` and `variants`"),
        ("variants: {a: {}}", "should hold `params` and `variants`"),
        ("params: {}\nvariants: {}", "variants should hold"),
        ("params: {}\nvariants: {../a: {}}", "variant '../a' should be named"),
        ("params: {}\nvariants: {1: {}}", "variant 1 should be named"),
        ("params: {}\nvariants: {a: 1}", "variants.a should hold sections"),
        ("params: {}\nvariants: {a: {train: 1}}", "variants.a should hold sections"),
        ("params: {}\nvariants: {a: {trian: {}}}", "variants.a: 'trian' is no section"),
        ("params: {}\nvariants: {a: {train: {rate: 1}}}", "train.rate is no known parameter"),
        ("params: {}\nvariants: {a: {train: {decay: 2}}}", "variants.a: train.decay is 2"),
        ("params: {}\nvariants: {a: {runs: {seeds: [1]}}}", "variants.a: runs belong under"),
        ("params: {split: {seed: 1}}\nvariants: {a: {}}", "split is the same for all studies"),
        ("params: {}\nvariants: {a: {data: {}}}", "data is the same for all studies"),
    ],
)
def test_what_is_wrong_with_a_study_is_said_in_one_line(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
        read_study(path, BASE)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_the_studies_that_come_with_the_project_are_right():
    base = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    studies = read_studies(ROOT / "studies", base)
    assert studies
    for variants in studies.values():
        assert len({str(values["runs"]) for values in variants.values()}) == 1
