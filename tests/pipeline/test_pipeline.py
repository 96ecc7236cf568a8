"""The pipeline as a user runs it: a throw-away clone, a small mirror of MNIST, both engines."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

import graph
from aevb.data import RAW_FILES
from aevb.files import read_tensors
from graph import ROOT, read_values, run, write_values
from repository import (
    METRICS,
    MODEL,
    clone,
    commit,
    contents,
    copy,
    digests,
    edit,
    everything,
    made,
)

SAMPLES = "results/samples/k2-seed0.safetensors"


def jobs(output: str) -> list[str]:
    """The jobs that an engine says it runs, or would run: `split`, `train@2-0`."""
    names = re.findall(r"^Running stage '(.*)':$", output, re.MULTILINE)
    for block in re.split(r"\n(?=\[|\n)", output):
        if rule := re.search(r"^(?:local)?rule (\w+):$", block, re.MULTILINE):
            run = re.search(r"^ *wildcards: (?:study=, )?k=(\d+), seed=(\d+)$", block, re.MULTILINE)
            names.append("@".join([rule[1], *(["-".join(run.groups())] if run else [])]))
    return sorted(name for name in names if name != "all")


def planned(tree: Path) -> list[str]:
    """The jobs that Snakemake would run."""
    return jobs(run("snakemake --dry-run", tree))


def reported(tree: Path, targets: str = "") -> dict[str, dict[str, Any]]:
    """What Snakemake's report shows, by file; it is seen to need no network."""
    run(f"snakemake {targets} --report report.html", tree)
    page = (tree / "report.html").read_text(encoding="utf-8")
    assert re.search(r"<(script|link|img)[^>]* (src|href)=.?(https?:)?//", page) is None
    assert "system-message" not in page  # docutils' way to say that a caption is wrong
    description, shown = (
        json.loads(re.findall(rf"^ *var {name} = ([{{\"].*);$", page, re.MULTILINE)[0])
        for name in ("workflow_desc", "results")
    )
    for table in (tree / path for path in shown if path.endswith("/table.csv")):
        for elbo in re.findall(r"-\d+\.\d\d", table.with_suffix(".md").read_text()):
            assert elbo in description
    return dict(shown)


def test_both_engines_make_the_same_bytes(by_snakemake: Path, by_dvc: Path) -> None:
    ours, theirs = made(by_snakemake), made(by_dvc)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


@pytest.mark.parametrize("engine", ["by_snakemake", "by_dvc"])
def test_every_declared_output_is_made_and_nothing_else(
    engine: str, origin: Path, request: Any
) -> None:
    tree = request.getfixturevalue(engine)
    outputs = {path for job in graph.dvc_graph(origin).jobs.values() for path in job.outputs}
    assert made(tree).keys() == outputs | contents(origin, "results").keys()
    # What is new to git is what belongs there: tables, not tensors; no .gitignore of DVC's.
    changes = {line[3:] for line in run("git status --porcelain -uall", tree).splitlines()}
    belongs = r"dvc\.lock|results/(metrics|history|comparison)/[\w-]+\.(json|csv|md|tex|png)"
    assert [path for path in changes if not re.fullmatch(belongs, path)] == []


def test_a_second_run_has_nothing_to_do(by_snakemake: Path, by_dvc: Path) -> None:
    assert "Nothing to be done" in run("snakemake --cores 2", by_snakemake)
    assert "Data and pipelines are up to date." in run("dvc repro", by_dvc)


def test_a_value_added_to_a_list_trains_the_new_run_only(
    by_snakemake: Path, by_dvc: Path, tmp_path: Path
) -> None:
    new = ["compare", *(f"{stage}@3-0" for stage in ("evaluate", "reconstruct", "sample", "train"))]
    trees = []
    for engine, done in (("snakemake --cores 2", by_snakemake), ("dvc repro", by_dvc)):
        tree = copy(done, tmp_path / engine.split()[0])
        before, time = contents(tree, "results/models"), (tree / MODEL).stat().st_mtime_ns
        edit(tree, "runs", latent_dims=[2, 3])
        assert jobs(run(engine, tree)) == new
        assert (tree / MODEL).stat().st_mtime_ns == time
        assert contents(tree, "results/models").items() > before.items()
        trees.append(made(tree))
    assert trees[0] == trees[1]


def test_a_parameter_of_one_stage_runs_that_stage_and_what_follows(
    by_snakemake: Path, by_dvc: Path, tmp_path: Path
) -> None:
    tree = copy(by_snakemake, tmp_path / "snakemake")
    edit(tree, "sample", rows=3)
    assert planned(tree) == ["compare", "sample@2-0"]

    tree = copy(by_dvc, tmp_path / "dvc")
    edit(tree, "sample", rows=3)
    assert jobs(run("dvc repro", tree)) == ["compare", "sample@2-0"]


def test_dvc_takes_up_what_snakemake_made(by_snakemake: Path, tmp_path: Path) -> None:
    tree = copy(by_snakemake, tmp_path)
    # Registered are the results of params.yaml as it stands now, not those of the last run.
    edit(tree, "sample", rows=3)
    ran = jobs(run("snakemake --cores 2 register", tree))
    assert ran == ["compare", "register", "sample@2-0"]
    times = {path: (tree / path).stat().st_mtime_ns for path in made(tree)}
    run("snakemake --cores 1 register", tree)
    assert times == {path: (tree / path).stat().st_mtime_ns for path in made(tree)}
    assert "up to date" in run("dvc status", tree)
    assert "up to date" in run("dvc repro", tree)
    assert METRICS in run("dvc metrics show", tree)
    commit(tree, "registered")

    edit(tree, "train", learning_rate=0.02)
    assert jobs(run("dvc repro evaluate@2-0", tree)) == ["evaluate@2-0", "train@2-0"]
    elbo = json.loads(run("dvc metrics diff HEAD --json", tree))[METRICS]["elbo"]
    assert elbo["old"] == json.loads((by_snakemake / METRICS).read_text())["elbo"]
    assert elbo["new"] == json.loads((tree / METRICS).read_text())["elbo"]
    assert elbo["new"] != elbo["old"]


@pytest.mark.parametrize(
    "override",
    [
        "--configfile params.yaml over.yaml",
        "--configfile over.yaml",
        '--config \'data={"mirror": "elsewhere"}\'',
    ],
)
def test_results_of_other_parameters_are_not_registered(
    override: str, by_snakemake: Path, tmp_path: Path
) -> None:
    tree = copy(by_snakemake, tmp_path)
    (tree / "over.yaml").write_text("train: {learning_rate: 0.02}\n")
    before = everything(tree)
    output = run(f"snakemake --cores 1 register {override}", tree, code=1)
    assert len(re.findall("^ *register: .*params.yaml.*$", output, re.MULTILINE)) == 1, output
    assert "Traceback (most recent call last)" not in output
    assert everything(tree) == before


def take_up(tree: Path) -> None:
    """Let Snakemake take up what DVC has made."""
    run("dvc status --quiet", tree)
    run("snakemake --touch --forceall --cores 1", tree)


def test_snakemake_takes_up_what_dvc_made(by_dvc: Path, tmp_path: Path) -> None:
    tree = copy(by_dvc, tmp_path)
    take_up(tree)
    assert "Nothing to be done" in run("snakemake --cores 1", tree)
    edit(tree, "evaluate", iwae_k=4)
    assert planned(tree) == ["compare", "evaluate@2-0"]
    run("dvc status --quiet", tree, code=1)


def test_results_travel_by_push_and_pull(by_dvc: Path, tmp_path: Path) -> None:
    here = copy(by_dvc, tmp_path / "here")
    commit(here, "results")
    run(f"dvc remote add --local --default store {tmp_path / 'store'}", here)
    run("dvc push", here)
    there = clone(here, tmp_path / "there")
    run(f"dvc remote add --local --default store {tmp_path / 'store'}", there)
    run("dvc pull", there)
    assert made(there) == made(here)
    assert "up to date" in run("dvc repro", there)
    take_up(there)
    assert "Nothing to be done" in run("snakemake --cores 1", there)
    edit(there, "reconstruct", seed=1)
    assert planned(there) == ["compare", "reconstruct@2-0"]


def test_a_second_configuration_file_reaches_the_stage(by_snakemake: Path, tmp_path: Path) -> None:
    tree = copy(by_snakemake, tmp_path)
    (tree / "over.yaml").write_text("train: {learning_rate: 0.02}\n")
    output = run(f"snakemake -n -p {MODEL} --configfile params.yaml over.yaml", tree)
    assert jobs(output) == ["train@2-0"]
    assert "--learning_rate 0.02 " in output
    assert "--hidden 16 " in output


def test_a_failed_job_is_named_with_its_log_and_what_it_said_last(
    by_snakemake: Path, tmp_path: Path
) -> None:
    tree = copy(by_snakemake, tmp_path)
    (tree / MODEL).write_bytes(b"torn")
    output = run(f"snakemake --cores 2 --keep-going {METRICS} {SAMPLES}", tree, code=1)
    failed = re.findall(r"^(\w+ k=2 seed=0) failed, see (\S+): (.*)$", output, re.MULTILINE)
    assert [(name, log) for name, log, _ in sorted(failed)] == [
        ("evaluate k=2 seed=0", "logs/evaluate/k2-seed0.log"),
        ("sample k=2 seed=0", "logs/sample/k2-seed0.log"),
    ]
    for name, log, said in failed:
        assert f"{name.split()[0]}: error: {MODEL}: damaged" in said
        assert said == (tree / log).read_text().splitlines()[-1]


def test_a_number_from_the_command_line_is_text_and_refused(origin: Path, tmp_path: Path) -> None:
    tree = clone(origin, tmp_path / "tree")
    command = "snakemake --cores 1 download --config 'train={\"learning_rate\": 0.9}'"
    output = run(command, tree, code=1)
    assert len(re.findall(r"^params.yaml: train.learning_rate .*$", output, re.MULTILINE)) == 1
    assert not (tree / "data" / "raw").exists()


def test_every_stage_runs_by_hand_in_an_empty_folder(mirror: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    sums = " ".join(digests(mirror))
    files: set[str] = set()
    for command, outputs in (
        (
            f"download.py --bundled none --output raw --mirror {mirror} --sha256 {sums}",
            [f"raw/{name}" for name in (*RAW_FILES, "dataset.json")],
        ),
        (
            "split.py --raw raw --train a/x --validation a/y --test b/z --validation_size 100",
            ["a/x", "a/y", "b/z"],
        ),
        (
            "train.py --train a/x --validation a/y --model c/d/model --history c/e/k4-seed5.csv "
            "--latent_dim 4 --seed 5 --hidden 8 --max_epochs 1 --log logs/by-hand.log",
            ["c/d/model", "c/e/k4-seed5.csv", "logs/by-hand.log"],
        ),
        (
            "evaluate.py --test b/z --model c/d/model --metrics f/k4-seed5.json "
            "--evaluation g/k4-seed5.safetensors --iwae_k 2",
            ["f/k4-seed5.json", "g/k4-seed5.safetensors"],
        ),
        (
            "sample.py --model c/d/model --means h/1.png --draws i/2.png "
            "--samples j/k4-seed5.safetensors",
            ["h/1.png", "i/2.png", "j/k4-seed5.safetensors"],
        ),
        (
            "reconstruct.py --test b/z --model c/d/model --figure l/3.png "
            "--reconstructions m/k4-seed5.safetensors",
            ["l/3.png", "m/k4-seed5.safetensors"],
        ),
        (
            "compare.py --metrics f --history c/e --evaluation g --samples j --reconstructions m "
            "--output n/o --latent_dims 4 --seeds 5",
            [],
        ),
    ):
        run(f"python {ROOT / 'src'}/{command}", folder)
        files |= set(outputs)
        found = {path for path in contents(folder, ".") if not path.startswith("n/o/")}
        assert found == files, command
    tables = {Path(path).name for path in graph.dvc_graph(ROOT).jobs["compare"].outputs}
    assert {path.name for path in (folder / "n" / "o").iterdir()} == tables


def test_the_report_shows_every_run_by_its_k_and_seed(by_snakemake: Path, tmp_path: Path) -> None:
    tree = copy(by_snakemake, tmp_path)
    shown = reported(tree)
    results = {file for job in graph.dvc_graph(tree).jobs.values() for file in job.outputs}
    figures = {path for path in results if path.endswith(".png")}
    assert figures <= shown.keys() <= made(tree).keys()
    for path, entry in shown.items():
        mark = base64.b64encode((tree / path).read_bytes()).decode()
        assert entry["data_uri"].endswith(mark), path
        assert len(entry["caption"]) > 100, path
        if run_of := re.search(r"/k(\d+)-seed(\d+)", path):
            labels = {"k": run_of[1], "seed": run_of[2]}
            assert entry["labels"].items() >= labels.items(), path
            assert f"k = {labels['k']}, seed {labels['seed']}" in entry["caption"], path
    assert planned(tree) == []


# Settings of machine and user that must make no difference to a byte.
SETTINGS = {
    "one core": ("1", {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "LC_ALL": "C"}),
    "two cores": ("2", {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "1", "LC_ALL": "C.UTF-8"}),
    "four cores": ("4", {"MKL_NUM_THREADS": "2", "TZ": "Asia/Kathmandu", "MPLBACKEND": "pdf"}),
}


@pytest.fixture(scope="module")
def four_runs(by_snakemake: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which Snakemake has made four runs; to be cloned for its parameters."""
    tree = copy(by_snakemake, tmp_path_factory.mktemp("four"))
    edit(tree, "runs", latent_dims=[2, 3], seeds=[0, 1])
    run("snakemake --cores 2", tree)
    return tree


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("engine", ["snakemake --cores {}", "dvc repro"])
def test_cores_and_environment_leave_the_bytes_alone(
    engine: str, setting: str, origin: Path, four_runs: Path, tmp_path: Path
) -> None:
    cores, environment = SETTINGS[setting]
    tree = clone(origin, tmp_path / "tree")
    write_values(tree, read_values(four_runs))
    run(engine.format(cores), tree, **environment)
    ours, theirs = made(four_runs), made(tree)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


@pytest.mark.slow
def test_a_dvc_experiment_sets_a_parameter(by_dvc: Path, tmp_path: Path) -> None:
    tree = copy(by_dvc, tmp_path)
    commit(tree, "results")
    ran = jobs(run("dvc exp run --name quicker -S train.learning_rate=0.02", tree))
    assert ran == ["compare", *(f"{name}@2-0" for name in (
        "evaluate", "reconstruct", "sample", "train"))]  # fmt: skip
    assert read_tensors(tree / MODEL, "model")[1]["learning_rate"] == 0.02
    assert read_values(tree)["train"]["learning_rate"] == 0.02
    assert "quicker" in run("dvc exp list", tree)
    elbo = json.loads(run("dvc metrics diff HEAD --json", tree))[METRICS]["elbo"]
    assert elbo["new"] != elbo["old"]


def test_a_study_is_the_same_workflow_in_folders_of_its_own(by_snakemake, tmp_path):
    tree = copy(by_snakemake, tmp_path)
    text = "params: {}\nvariants: {same: {}, other: {train: {optimiser: adagrad}}}\n"
    (tree / "studies" / "tiny.yaml").write_text(text, encoding="utf-8")
    before = made(tree)
    # No two share a checkpoint, so that the same training can run for both side by side.
    folders = re.findall(r"--checkpoints (\S+)", run("snakemake -np -R train -- all tiny", tree))
    assert len(set(folders)) == len(folders) == 3
    run("snakemake --cores 2 tiny", tree)
    after = made(tree)
    assert before.items() <= after.items()
    for file in (MODEL, METRICS):
        name = file.removeprefix("results/")
        assert after[f"results/studies/tiny/same/{name}"] == before[file]
        assert after[f"results/studies/tiny/other/{name}"] != before[file]
    table = after["results/studies/tiny/table.md"].decode()
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:4]] == ["same", "other"]
    shown = reported(tree, "tiny")
    for name in ("same", "other"):
        labels = shown[f"results/studies/tiny/{name}/history/k2-seed0.csv"]["labels"]
        assert labels == {"k": "2", "seed": "0", "variant": name}
    curves = shown["results/studies/tiny/curves.png"]
    assert curves["labels"] == {"study": "tiny", "result": "curves"}
    for target in ("tiny", "all"):
        assert jobs(run(f"snakemake -n {target}", tree)) == []
