"""Both engines declare the same jobs, and a changed parameter runs exactly what depends on it.

No job is run here, except where it is said: the engines only list their jobs in a copy of the tree.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args, get_origin

import pytest
import yaml
from dvc.repo import Repo
from snakemake.exceptions import WorkflowError

import graph
from aevb.plumbing.params import Params
from graph import Graph, Values, changed, run

DEFAULTS: Values = Params().model_dump()
KEYS = [f"{section}.{key}" for section, values in DEFAULTS.items() for key in values]
SECTIONS = {*re.findall(r"\${(\w+)", (graph.ROOT / "dvc.yaml").read_text(encoding="utf-8"))}
"""The sections of the stages that always run; the others belong to stages on request."""

Engine = Callable[[Values], Graph]


def another(key: str) -> Values:
    """The default parameters with another valid value of one of them."""
    section, name = key.split(".")
    value = DEFAULTS[section][name]
    annotation = type(getattr(Params(), section)).model_fields[name].annotation
    choices = get_args(annotation) if get_origin(annotation) is not list else ()
    if choices:
        other = next(choice for choice in choices if choice != value)
    elif name == "sha256":
        other = [digit * 64 for digit in "0123"]
    elif isinstance(value, list):
        other = [*value, max(value, default=0) + 1]
    elif isinstance(value, str):
        other = f"/mirror/{value}"
    else:
        other = value / 2 if value % 1 else value + 1
    return changed(DEFAULTS, section, **{name: other})


def runs(latent_dims: list[int], seeds: list[int]) -> Values:
    """The default parameters with other runs."""
    return changed(DEFAULTS, "runs", latent_dims=latent_dims, seeds=seeds)


def engine(read: Callable[..., Graph], folder: Path, *targets: str) -> Engine:
    """An engine as a function of the parameters, which lists each graph once."""
    tree, answers = graph.copy_tree(folder / "tree"), dict[str, Graph]()

    def ask(values: Values) -> Graph:
        key = json.dumps(values)
        if key not in answers:
            graph.write_values(tree, values)
            answers[key] = read(tree, *targets)
        return answers[key]

    return ask


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Engine]:
    """Snakemake and DVC."""
    reads = graph.snakemake_graph, graph.dvc_graph
    snakemake, dvc = (engine(read, tmp_path_factory.mktemp(read.__name__)) for read in reads)
    return snakemake, dvc


def wrong_reruns(engine: Engine, key: str) -> Iterator[str]:
    """What is wrong with the jobs that an engine runs again for another value of a parameter."""
    before, after = engine(DEFAULTS), engine(another(key))
    found, expected = graph.rerun(before, after), graph.rerun(before, after, by="command")
    if not expected:
        yield f"{key}: no job depends on it"
    if found != expected:
        yield f"{key}: wrong decision about {sorted(found ^ expected)}"


def faults(engines: tuple[Engine, Engine]) -> Iterator[str]:
    """Everything that is wrong with the declarations of the engines."""
    for values in (DEFAULTS, runs([2, 16, 5], [0, 4294967295]), runs([20, 3], [1])):
        yield from graph.differences(*(ask(values) for ask in engines))
    for key in (key for key in KEYS if key.split(".")[0] in SECTIONS):
        yield from graph.differences(*(ask(another(key)) for ask in engines))
        yield from (text for ask in engines for text in wrong_reruns(ask, key))


def test_the_engines_declare_the_same_jobs_and_reruns(engines: tuple[Engine, Engine]) -> None:
    assert list(faults(engines)) == []


def test_runs_of_other_values_stay_as_they_are(engines: tuple[Engine, Engine]) -> None:
    for ask in engines:
        before = ask(DEFAULTS)
        new = graph.rerun(before, ask(runs([3, 20, 5], [0])))
        assert "train@5-0" in new
        assert {job for job in new if "@" in job} == {job for job in new if job.endswith("@5-0")}
        for other in (runs([3], [0]), runs([20, 3], [0])):
            assert not any("@" in job for job in graph.rerun(before, ask(other)))


def test_parameters_of_stages_on_request_are_noticed(tmp_path: Path) -> None:
    research = engine(graph.snakemake_graph, tmp_path, "research")
    keys = [key for key in KEYS if key.split(".")[0] not in SECTIONS]
    assert keys
    assert [text for key in keys for text in wrong_reruns(research, key)] == []


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
