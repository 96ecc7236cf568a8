"""Studies replace values of params.yaml, variant by variant, and mistakes in them are reported."""

from aevb.plumbing.checking import read_studies, read_study
from aevb.plumbing.params import Params
from graph import ROOT, copy_tree, read_values, run, snakemake_graph

import pytest
from snakemake.exceptions import WorkflowError

BASE = Params().model_dump()


def test_values_are_replaced_in_the_order_of_the_file(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("""
    params: {runs: {latent_dims: [2]}, train: {decay: 0, max_epochs: 7}}
    variants: {b: {train: {max_epochs: 9}}, a-1: {}}
    """)
    study = read_study(path, BASE)
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
        ("params: {}\nvariants: {../a: {}}", "the name '../a' should be"),
        ("params: {}\nvariants: {1: {}}", "the name 1 should be"),
        ("params: {}\nvariants: {a: 1}", "variants.a should hold sections"),
        ("params: {}\nvariants: {a: {trian: {}}}", "trian is not a parameter; did you mean train?"),
        ("params: {}\nvariants: {a: {train: {decay: 2}}}", "variants.a: train.decay is 2"),
        ("params: {}\nvariants: {a: {runs: {seeds: [1]}}}", "runs are the same"),
        ("params: {split: {seed: 1}}\nvariants: {a: {}}", "split are the same for all studies"),
        ("params: {split: {seed: 010}}\nvariants: {a: {}}", "Snakemake reads `seed: 8`"),
    ],
)
def test_mistakes_are_reported_in_one_line(tmp_path, text, message):
    path = tmp_path / "some.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
        read_study(path, BASE)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_the_studies_of_the_project_are_valid():
    assert read_studies(ROOT / "studies", read_values(ROOT))


def test_snakemake_names_the_file_with_the_mistake(tmp_path):
    tree = copy_tree(tmp_path / "tree")
    path = (tree / "studies/best.yaml").rename(tree / "studies/all.yaml")
    with pytest.raises(WorkflowError, match=r"^studies/all\.yaml: all is a rule"):
        snakemake_graph(tree)
    path.unlink()
    (tree / "small.yaml").write_text('train: {max_epochs: "4"}')
    output = run("snakemake -n --cores 1 --configfile params.yaml small.yaml", tree, code=1)
    assert "\n--configfile small.yaml: train.max_epochs is '4'" in output
    output = run("snakemake -n --cores 1 --config 'ais={images: 3}'", tree, code=1)
    assert "\n--config (for numbers, use --configfile): ais is now called inference_gap" in output
    assert "Traceback (most recent call last)" not in output
