"""Both engines declare the same jobs, and a changed parameter runs exactly what depends on it.

No job is run here: the engines only list their jobs in a copy of the tree.
"""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import graph
from aevb.plumbing.params import Params
from graph import Graph, Values, changed, run

import pytest
import yaml
from dvc.repo import Repo
from snakemake.exceptions import WorkflowError

DEFAULTS: Values = Params().model_dump()
OTHER = {"model": {"hidden": 7}, "train": {"optimiser": "adagrad"}, "evaluate": {"iwae_k": 9}}


def runs(latent_dims: list[int], seeds: list[int]) -> Values:
    """The default parameters with other runs."""
    return changed(DEFAULTS, "runs", latent_dims=latent_dims, seeds=seeds)


@pytest.fixture
def graphs(tmp_path: Path) -> Callable[[Values], list[Graph]]:
    """The jobs that Snakemake and DVC list for some parameters."""
    tree = graph.copy_tree(tmp_path / "tree")

    def of(values: Values) -> list[Graph]:
        graph.write_values(tree, values)
        return [graph.snakemake_graph(tree), graph.dvc_graph(tree)]

    return of


@pytest.mark.parametrize(
    "values",
    [
        DEFAULTS,
        runs([2, 16, 5], [0, 4294967295]),
        runs([20, 3], [1]) | {name: DEFAULTS[name] | own for name, own in OTHER.items()},
        changed(DEFAULTS, "data", mirror="https://a.org/b", sha256=["0" * 64] * 4),
    ],
    ids=["defaults", "other runs", "other models", "other data"],
)
def test_the_engines_declare_the_same_jobs(values, graphs) -> None:
    assert graph.differences(*graphs(values)) == []


def test_runs_of_other_values_stay_as_they_are(graphs) -> None:
    more, less = graphs(runs([3, 20, 5], [0])), graphs(runs([20], [0]))
    for before, after, fewer in zip(graphs(DEFAULTS), more, less, strict=True):
        new = graph.rerun(before, after)
        assert "train@5-0" in new
        assert {job for job in new if "@" in job} == {job for job in new if job.endswith("@5-0")}
        assert not any("@" in job for job in graph.rerun(before, fewer))


def test_dvc_watches_the_sections_that_a_command_uses_and_no_others() -> None:
    """Snakemake watches the text of the command, and DVC that as well."""
    stages = yaml.safe_load((graph.ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for name, stage in stages.items():
        assert re.findall(r"\${(\w+)}", stage["cmd"]) == stage["params"], name


def test_every_parameter_reaches_a_stage(tmp_path: Path) -> None:
    jobs = graph.snakemake_graph(graph.copy_tree(tmp_path / "tree"), "all", "research")
    flags = {word for job in jobs.values() for word in job.command}
    lists = {"sha256", "snapshots"}  # empty by default
    assert {key for own in DEFAULTS.values() for key in own} - lists <= {
        word.removeprefix("--") for word in flags
    }


def test_outputs_in_git_are_those_outside_the_cache_of_dvc() -> None:
    """DVC would write .gitignore files of its own for cached outputs that are not ignored."""
    with Repo(str(graph.ROOT), uninitialized=True) as repo:
        cached = {out.def_path: out.use_cache for stage in repo.index.stages for out in stage.outs}
    ignored = run(shlex.join(["git", "check-ignore", "--no-index", *cached]), graph.ROOT).split()
    assert set(ignored) == {path for path, is_cached in cached.items() if is_cached}


def test_parameters_that_are_not_allowed_stop_snakemake(tmp_path: Path) -> None:
    tree = graph.copy_tree(tmp_path / "tree")
    text = yaml.safe_dump(changed(DEFAULTS, "train", batch_size="HERE"))
    (tree / "params.yaml").write_text(text.replace("HERE", "0100"))  # octal to Snakemake
    with pytest.raises(WorkflowError, match=r"^params.yaml: train: [^\n]*batch_size[^\n]*$"):
        graph.snakemake_graph(tree)
