"""Both engines declare the same graph, and each parameter re-runs what it should, no more.

No job is run here: the engines are only asked which jobs they see, in a copy of the tree.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from dvc.repo import Repo
from snakemake.exceptions import WorkflowError

import graph
from aevb.plumbing.params import Params
from graph import Graph, Values, changed, run, stage

DEFAULTS: Values = Params().model_dump()
SHIPPED: Values = graph.read_values(graph.ROOT)
KEYS = [f"{section}.{key}" for section, entries in DEFAULTS.items() for key in entries]

PER_RUN = ["train", "evaluate", "sample", "reconstruct"]
STAGES = ["download", "split", *PER_RUN, "compare"]

# What runs again when a value of a section changes, of the stages that run only when they are asked
# for, by Snakemake alone.
OPTIONAL = {
    "iwae": {"ladder", "summarise"},
    "ais": {"ais", "summarise"},
    "gradient_variance": {"estimators", "summarise"},
    "latents": {"latents", "summarise"},
    "traverse": {"traverse"},
    "classifier": {"classify", "fidelity", "summarise"},
    "sample_quality": {"fidelity", "summarise"},
}

# The same for the stages that run by default. A value added to a list of `runs` runs the stages of
# the new runs and compare.
RERUN = {
    "data": STAGES,
    "split": ["split", *PER_RUN, "compare"],
    "model": [*PER_RUN, "compare"],
    "train": [*PER_RUN, "compare"],
    "evaluate": ["evaluate", "compare"],
    "sample": ["sample", "compare"],
    "reconstruct": ["reconstruct", "compare"],
    "runs": ["compare"],
    **{section: [] for section in OPTIONAL},
}


def another(key: str, value: Any) -> Any:
    """Another valid value of a parameter."""
    section, name = key.split(".")
    annotation = type(getattr(Params(), section)).model_fields[name].annotation
    if choices := get_args(annotation) if get_origin(annotation) is not list else ():
        return next(choice for choice in choices if choice != value)
    if name == "sha256":
        return [digit * 64 for digit in "0123"] if value != ["0" * 64] * 4 else []
    if isinstance(value, list):
        return [*value, max(value) + 1]
    if isinstance(value, str):
        return f"/mirror/{value}"
    return value + 1 if isinstance(value, int) else value / 2 or 0.5


def with_another(key: str) -> Values:
    """The shipped parameters with another value of one of them."""
    section, name = key.split(".")
    return changed(SHIPPED, section, **{name: another(key, SHIPPED[section][name])})


def runs(latent_dims: list[int], seeds: list[int]) -> Values:
    """The shipped parameters with other runs."""
    return changed(SHIPPED, "runs", latent_dims=latent_dims, seeds=seeds)


VARIANTS = {
    "as shipped": SHIPPED,
    "one run": runs([1], [7]),
    "three by two": runs([2, 16, 5], [0, 4294967295]),
    "descending": runs([20, 3], [2, 1]),
    **{key: with_another(key) for key in KEYS},
}

Engine = Callable[[Values], Graph]


def engine(read: Callable[[Path], Graph], tree: Path) -> Engine:
    """An engine as a function of the parameters that asks no question twice."""
    answers: dict[str, Graph] = {}

    def ask(values: Values) -> Graph:
        key = json.dumps(values)
        if key not in answers:
            graph.write_values(tree, values)
            answers[key] = read(tree)
        return answers[key]

    return ask


@pytest.fixture(scope="module")
def snakemake(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Snakemake on the workflow as it stands."""
    return engine(graph.snakemake_graph, graph.copy_tree(tmp_path_factory.mktemp("a") / "tree"))


@pytest.fixture(scope="module")
def dvc(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """DVC on the workflow as it stands."""
    return engine(graph.dvc_graph, graph.copy_tree(tmp_path_factory.mktemp("b") / "tree"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the workflow to alter."""
    return graph.copy_tree(tmp_path / "tree")


def wrong_reruns(key: str, engine: Engine) -> list[str]:
    """Jobs that another value of a parameter runs, or fails to run, against the table."""
    before, after = engine(SHIPPED), engine(with_another(key))
    section = key.split(".")[0]
    expected = {job for job in before.jobs if stage(job) in RERUN[section]}
    if section == "runs":
        new = after.jobs.keys() - before.jobs.keys()
        assert {stage(job) for job in new} == set(PER_RUN)
        expected |= new
    found = graph.rerun(before, after)
    lines = [f"{key} does not run {job} again" for job in sorted(expected - found)]
    return lines + [f"{key} runs {job} again" for job in sorted(found - expected)]


def unnoticed_swaps(section: str, engine: Engine) -> list[str]:
    """Neighbouring parameters of a section that may swap their values without running its stage."""
    lines = []
    keys = [key for key, value in DEFAULTS[section].items() if type(value) is int]
    for one, other in pairwise(keys):
        before = engine(changed(SHIPPED, section, **{one: 7, other: 8}))
        after = engine(changed(SHIPPED, section, **{one: 8, other: 7}))
        if section not in {stage(job) for job in graph.rerun(before, after)}:
            lines.append(f"{section}: nobody notices that {one} and {other} swap their values")
    return lines


def faults(snakemake: Engine, dvc: Engine) -> Iterator[str]:
    """All that the tests of a single property below would find."""
    for engine in (snakemake, dvc):
        yield from graph.wrong_code(engine(SHIPPED))
        yield from graph.unwatched(engine(SHIPPED))
    # One parameter of each section first: a fault mostly shows in all of them.
    first = {key.split(".")[0]: key for key in reversed(KEYS)}
    for variant in dict.fromkeys(["as shipped", "three by two", *first.values(), *VARIANTS]):
        values = VARIANTS[variant]
        yield from graph.differences(snakemake(values), dvc(values))
        if variant in KEYS:
            yield from graph.undeclared(variant.split(".")[0], dvc(SHIPPED), dvc(values))
            yield from wrong_reruns(variant, snakemake)
            yield from wrong_reruns(variant, dvc)
    for section in filter(RERUN.get, DEFAULTS):
        yield from unnoticed_swaps(section, snakemake)


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_engines_declare_the_same_jobs(variant: str, snakemake: Engine, dvc: Engine) -> None:
    values = VARIANTS[variant]
    assert graph.differences(snakemake(values), dvc(values)) == []


def test_all_stages_run_once_for_each_of_their_runs(dvc: Engine) -> None:
    jobs = dvc(runs([2, 16, 5], [0, 1])).jobs
    pairs = {f"{k}-{seed}" for k in (2, 16, 5) for seed in (0, 1)}
    assert set(jobs) == {"download", "split", "compare"} | {
        f"{name}@{pair}" for name in PER_RUN for pair in pairs
    }


@pytest.mark.parametrize("key", KEYS)
def test_stages_declare_the_sections_whose_flags_they_have(key: str, dvc: Engine) -> None:
    assert graph.undeclared(key.split(".")[0], dvc(SHIPPED), dvc(with_another(key))) == []


def test_imports_are_followed_wherever_they_stand(tmp_path: Path) -> None:
    files = {
        "sample.py": "from aevb import cli, one as two",
        "aevb/__init__.py": "",
        "aevb/cli.py": "import aevb.three.four",
        "aevb/one.py": "def later():\n    import aevb.five as six",
        "aevb/three/four.py": "from aevb.one import aevb",
        "aevb/five.py": "import json",
        "aevb/model.py": "",
    }
    for name, code in files.items():
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_text(code)
    needed = {"sample.py", "aevb/one.py", "aevb/three/four.py", "aevb/five.py"}
    assert graph.code_of("sample", tmp_path) == {f"src/{name}" for name in needed}


@pytest.mark.parametrize("name", ["snakemake", "dvc"])
def test_stages_depend_on_the_code_they_import(name: str, request: Any) -> None:
    assert graph.wrong_code(request.getfixturevalue(name)(SHIPPED)) == []


@pytest.mark.parametrize("name", ["snakemake", "dvc"])
@pytest.mark.parametrize("variant", ["as shipped", "three by two"])
def test_every_output_is_missed_when_it_is_deleted(variant: str, name: str, request: Any) -> None:
    assert graph.unwatched(request.getfixturevalue(name)(VARIANTS[variant])) == []


def test_the_table_of_reruns_names_every_section() -> None:
    assert RERUN.keys() == DEFAULTS.keys() == SHIPPED.keys()
    documented = {name: {*section.reruns} for name, section in Params()}
    assert documented == {name: {*stages} or OPTIONAL[name] for name, stages in RERUN.items()}


@pytest.mark.parametrize("name", ["snakemake", "dvc"])
@pytest.mark.parametrize("key", KEYS)
def test_a_parameter_reruns_what_depends_on_it(key: str, name: str, request: Any) -> None:
    assert wrong_reruns(key, request.getfixturevalue(name)) == []


@pytest.fixture(scope="module")
def research(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Snakemake asked for everything that is not made by default."""
    tree = graph.copy_tree(tmp_path_factory.mktemp("c") / "tree")
    targets = ["research", "handin", *(path.stem for path in (tree / "studies").glob("*.yaml"))]
    return engine(lambda tree: graph.snakemake_graph(tree, *targets), tree)


@pytest.mark.parametrize("section", OPTIONAL)
def test_a_parameter_of_an_optional_stage_reruns_what_depends_on_it(section, research) -> None:
    for key in DEFAULTS[section]:
        again = graph.rerun(research(SHIPPED), research(with_another(f"{section}.{key}")))
        # `document` shows what several of them found.
        assert {stage(job) for job in again} - {"document"} == OPTIONAL[section]


def test_optional_stages_depend_on_the_code_they_import(research) -> None:
    declared = research(SHIPPED)
    assert {"survey", "summarise", "fidelity"} <= {stage(job) for job in declared.jobs}
    assert graph.wrong_code(declared) == []


@pytest.mark.parametrize("name", ["snakemake", "dvc"])
@pytest.mark.parametrize("other", [runs([3], [0]), runs([20, 3], [0])], ids=["fewer", "order"])
def test_fewer_runs_or_another_order_only_compare_anew(
    other: Values, name: str, request: Any
) -> None:
    engine: Engine = request.getfixturevalue(name)
    assert graph.rerun(engine(runs([3, 20], [0])), engine(other)) == {"compare"}


@pytest.mark.parametrize("name", ["snakemake", "dvc"])
@pytest.mark.parametrize("section", ["split", "train", "evaluate", "sample", "reconstruct"])
def test_two_swapped_values_are_noticed(section: str, name: str, request: Any) -> None:
    assert unnoticed_swaps(section, request.getfixturevalue(name)) == []


# Faults that the comparison has to find, as a text of the workflow and what stands in its place.
DVC_FAULTS = {
    "no data dependency": ("      - data/split/validation.safetensors\n      - src/train.py\n",
                           "      - src/train.py\n"),
    "no folder dependency": ("      - results/history\n", ""),
    "no bundled data": ("      - data/mnist\n", ""),
    "no script": ("      - src/split.py\n", ""),
    "no library file": ("      - src/aevb/evaluation.py\n", ""),
    "too many library files": ("      - src/aevb/tables.py\n",
                               "      - src/aevb/tables.py\n      - src/aevb/model.py\n"),
    "another folder": ("      - results/metrics\n", "      - results/models\n"),
    "no section declared": ("      - model\n", ""),
    "another section declared": ("    params:\n      - sample\n", "    params:\n      - split\n"),
    "one section too many": ("      - split\n", "      - split\n      - evaluate\n"),
    "a key for a section": ("      - runs\n", "      - runs.latent_dims\n"),
    "no flags": ("${model} ${train}", "${train}"),
    "other flags": ("${sample} --log", "${reconstruct} --log"),
    "order of flags": ("${model} ${train}", "${train} ${model}"),
    "flags written out": ("${evaluate}", "--iwae_k 50 --seed ${evaluate.seed}"),
    "values swapped": ("--latent_dim ${item.k} --seed ${item.seed}",
                       "--latent_dim ${item.seed} --seed ${item.k}"),
    "a fixed seed": ("--seed ${item.seed} ${model}", "--seed 0 ${model}"),
    "no log": ("${runs} --log logs/compare.log", "${runs}"),
    "another log": ("logs/sample/", "logs/samples/"),
    "no output": ("      - data/raw/dataset.json\n", ""),
    "no metrics": ("    metrics:\n      - results/metrics/k${item.k}-seed${item.seed}.json:\n"
                   "          cache: false\n", ""),
    "no plot": ("      - results/comparison/terms.png:\n          cache: false\n", ""),
    "another output": ("seed${item.seed}-draws.png\n      - ",
                       "seed${item.seed}-images.png\n      - "),
    "runs written out": ("${runs.latent_dims}", "[3, 20]"),
    "seeds written out": ("${runs.seeds}", "[0]"),
}  # fmt: skip
SNAKEMAKE_FAULTS = {
    "no data dependency": ("data.smk", "        raw=rules.download.output,\n", ""),
    "no library file": ("data.smk", '"files", "noise", "sources"', '"files", "noise"'),
    "no output": ("analysis.smk", 'kind=["md", "tex"]', 'kind=["md"]'),
    "no target": ("../../Snakefile", "            *rules.sample.output,\n", ""),
    "another flag": ("model.smk", "--metrics {output.metrics}", "--metric {output.metrics}"),
    "other flags": ("data.smk", 'flags("split")', 'flags("data")'),
    "a parameter a flag": ("data.smk", 'flags=flags("split")', '*flags("split")(None).split()',
                           "{output.test} {params.flags}", "{output.test} {params}"),
}  # fmt: skip


def alter(file: Path, old: str, new: str) -> None:
    """Replace one place of a text; it must be there."""
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{file.name} no longer holds {old!r}: choose another fault"
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_workflow_as_it_stands_has_no_fault(snakemake: Engine, dvc: Engine) -> None:
    assert list(faults(snakemake, dvc)) == []


@pytest.mark.parametrize("fault", DVC_FAULTS)
def test_a_fault_in_dvc_yaml_is_found(fault: str, tree: Path, snakemake: Engine) -> None:
    alter(tree / "dvc.yaml", *DVC_FAULTS[fault])
    assert next(faults(snakemake, engine(graph.dvc_graph, tree)), None) is not None


@pytest.mark.parametrize("fault", SNAKEMAKE_FAULTS)
def test_a_fault_in_the_rules_is_found(fault: str, tree: Path, dvc: Engine) -> None:
    name, *texts = SNAKEMAKE_FAULTS[fault]
    for old, new in zip(texts[::2], texts[1::2], strict=True):
        alter(tree / "workflow" / "rules" / name, old, new)
    assert next(faults(engine(graph.snakemake_graph, tree), dvc), None) is not None


def test_outputs_in_git_are_those_outside_the_cache_of_dvc() -> None:
    """DVC would write .gitignore files of its own for outputs that are cached and not ignored."""
    with Repo(str(graph.ROOT), uninitialized=True) as repo:
        cached = {out.def_path: out.use_cache for stage in repo.index.stages for out in stage.outs}
    ignored = run(shlex.join(["git", "check-ignore", "--no-index", *cached]), graph.ROOT).split()
    assert set(ignored) == {path for path, is_cached in cached.items() if is_cached}


# What stands in params.yaml, and what the one line about it has to name.
INVALID = {
    "unknown key": ("model", "hiden", "500", "model.hiden"),
    "number as text": ("train", "learning_rate", "1e-3", "train.learning_rate"),
    "misspelt choice": ("model", "likelihood", "bernouli", "model.likelihood"),
    "shell code": ("runs", "latent_dims", "[3, '3; touch x']", "runs.latent_dims"),
    "twice the same": ("runs", "seeds", "[0, 1, 0]", "runs.seeds"),
    "out of range": ("train", "decay", "1.5", "train.decay"),
    "no runs": ("runs", "seeds", "[]", "runs.seeds"),
    "no value": ("data", "mirror", "null", "data.mirror"),
    "two checksums": ("data", "sha256", f"[{'a' * 64}, {'b' * 64}]", "data.sha256"),
    "octal to Snakemake, decimal to DVC": ("train", "batch_size", "0100", "train.batch_size"),
    "key left out": ("train", "threads", None, "train.threads"),
    "section left out": ("sample", None, None, "sample"),
}


def write_invalid(tree: Path, section: str, key: str | None, text: str | None) -> None:
    """Write params.yaml with one entry as the given text, or without the entry or the section."""
    entries = {name: {k: json.dumps(v) for k, v in SHIPPED[name].items()} for name in SHIPPED}
    if key is None:
        del entries[section]
    elif text is None:
        del entries[section][key]
    else:
        entries[section][key] = text
    lines = []
    for name, texts in entries.items():
        lines += [f"{name}:", *(f"  {key}: {text}" for key, text in texts.items())]
    (tree / "params.yaml").write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize("case", INVALID)
def test_invalid_parameters_are_no_graph(case: str, tree: Path) -> None:
    *entry, name = INVALID[case]
    write_invalid(tree, *entry)
    with pytest.raises(WorkflowError, match=rf"^params.yaml: {name}\b[^\n]*$"):
        graph.snakemake_graph(tree)


@pytest.mark.parametrize("case", list(INVALID)[:5])
def test_invalid_parameters_stop_snakemake_before_any_job(case: str, tree: Path) -> None:
    *entry, name = INVALID[case]
    write_invalid(tree, *entry)
    # One quick job is asked for in earnest, so that a check that fails to stop it shows.
    output = run("snakemake --cores 1 download", tree, code=1)
    assert len(re.findall(rf"^params.yaml: {name}\b.*$", output, re.MULTILINE)) == 1, output
    assert "Traceback" not in output
    assert [path.name for path in (tree / "data").iterdir()] == ["mnist"]
    assert not (tree / "x").exists()
