"""The pipeline on a real SLURM of one node: whatever ends a job, the bytes are the same.

The script slurm/cluster starts the node. A training that is to be disturbed is stopped (SIGSTOP) as
soon as it handles signals, so that it cannot finish early; SLURM continues it (SIGCONT) when it
ends the job.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from graph import ROOT, run
from processes import running, steps_resumed, wait_for
from repository import METRICS, clone, edit, made

import pytest

pytestmark = pytest.mark.slurm

CLUSTER = ROOT / "tests" / "robustness" / "slurm" / "cluster"
STATE = Path("/dev/shm/aevb-slurm")
PROFILE = Path("workflow/profiles/slurm/config.yaml")
SNAKEMAKE = f"timeout -k 10 280 snakemake --workflow-profile {PROFILE.parent}"
SEEDS = [0, 1, 2, 3]
MODELS = [f"results/models/k2-seed{seed}.safetensors" for seed in SEEDS]
EPOCH = 10
"""Steps in an epoch, which has 500 images."""
ENDED = {
    "pre-empted": [],
    "cancelled": ["CANCELLED"],
    "requeued": [],
    "warned of its time limit": ["FAILED"],
    "ended at its time limit": ["TIMEOUT"],
}
"""Each disturbance and the state of the job that it leaves; SLURM itself requeues the others."""


def missing() -> str:
    """What this machine lacks for a SLURM of its own; empty if nothing."""
    configuration = Path("/etc/slurm/slurm.conf")
    if os.getuid() != 0:
        return "needs root"
    if not shutil.which("apt-get"):
        return "needs Debian's packages"
    if find_spec("snakemake_executor_plugin_slurm") is None:
        return "needs Snakemake's SLURM plugin: make slurm"
    if configuration.exists() and configuration.resolve() != STATE / "slurm.conf":
        return "this machine has a SLURM of its own"
    return ""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """The running cluster, which is stopped afterwards."""
    if reason := missing():
        pytest.skip(reason)
    up = subprocess.run([CLUSTER, "up", STATE], capture_output=True, text=True, timeout=600)
    if up.returncode == 77:
        pytest.skip(up.stderr)
    assert up.returncode == 0, up.stderr
    yield
    run(f"{CLUSTER} down {STATE}", ROOT)


@pytest.fixture(scope="module")
def prepared(origin, tmp_path_factory) -> Path:
    """A clone with one small run, a study of one more, and a profile that polls often."""
    tree = clone(origin, tmp_path_factory.mktemp("prepared") / "tree")
    shutil.rmtree(tree / "results")  # the published ones
    edit(tree, "train", max_epochs=200, patience=1000, device="auto")
    study = "params: {train: {max_epochs: 100}}\nvariants: {short: {}}\n"
    (tree / "studies/seeds.yaml").write_text(study)
    set_profile(tree, slurm_init_seconds_before_status_checks=3)
    return tree


@pytest.fixture
def tree(prepared, tmp_path) -> Path:
    """A copy of it."""
    return shutil.copytree(prepared, tmp_path / "tree")


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory) -> dict[str, bytes]:
    """What Snakemake makes without SLURM: everything for one seed and its study, four models."""
    tree = shutil.copytree(prepared, tmp_path_factory.mktemp("undisturbed") / "tree")
    run("snakemake --cores 1 all seeds research", tree)
    files = made(tree)
    edit(tree, "runs", seeds=SEEDS)
    run(f"snakemake --cores 2 {' '.join(MODELS)}", tree)
    return {**made(tree), **files}


def set_profile(tree: Path, **entries: int) -> None:
    """Change numbers in the profile."""
    text = (tree / PROFILE).read_text(encoding="utf-8")
    for name, value in entries.items():
        entry = re.compile(rf"^( *{name.replace('_', '[-_]')}:) \d+", re.MULTILINE)
        text, count = entry.subn(rf"\1 {value}", text)
        assert count == 1, name
    (tree / PROFILE).write_text(text, encoding="utf-8")


def queue(tree: Path, states: str = "all") -> dict[str, tuple[str, str]]:
    """Comment (rule and wildcards) and state of a tree's SLURM jobs, by their numbers."""
    lines = run(f"squeue --noheader --states={states} --format='%i|%Z|%k|%T'", tree)
    fields = [line.split("|") for line in lines.splitlines()]
    return {job: (comment, state) for job, path, comment, state in fields if path == str(tree)}


def job_of(process: int) -> str:
    """The number of the job to which a process belongs."""
    return re.search(rb"SLURM_JOB_ID=(\d+)", Path(f"/proc/{process}/environ").read_bytes())[
        1
    ].decode()


def has_sigterm(process: int, field: str) -> bool:
    """Whether SIGTERM is in a set of signals in /proc/PID/status."""
    text = Path(f"/proc/{process}/status").read_text()
    signals = int(re.search(rf"^{field}:\s*(\w+)$", text, re.MULTILINE)[1], 16)
    return bool(signals >> (signal.SIGTERM - 1) & 1)


def stopped(tree: Path, seed: int, head: subprocess.Popen[bytes]) -> int:
    """Wait until a training handles SIGTERM and stop it there; returns its process."""
    lock = tree / f"results/models/.k2-seed{seed}.safetensors.lock"
    process = 0

    def handles() -> bool:
        nonlocal process
        with suppress(OSError, IndexError):  # not started, just ended
            process = int(lock.read_text().split()[1])
            return has_sigterm(process, "SigCgt")
        return False

    assert wait_for(handles, head)
    os.kill(process, signal.SIGSTOP)
    return process


def continue_at_sigterm(asleep: set[int], head: subprocess.Popen[bytes]) -> None:
    """Continue stopped processes, each as soon as it has been sent SIGTERM or is gone."""

    def all_awake() -> bool:
        for process in list(asleep):
            with suppress(FileNotFoundError, ProcessLookupError):
                if not has_sigterm(process, "ShdPnd"):
                    continue
                os.kill(process, signal.SIGCONT)
            asleep.remove(process)
        return not asleep

    wait_for(all_awake, head)


def log_of(tree: Path, seed: int) -> str:
    """The log of the last training of a run; Snakemake removes the log before a retry."""
    path = tree / f"logs/train/k2-seed{seed}.log"
    return path.read_text() if path.exists() else ""


def check_bytes(tree: Path, reference: dict[str, bytes]) -> None:
    """Check that everything that was made has the right bytes and no checkpoint is left."""
    files = made(tree)
    assert [name for name in files if files[name] != reference.get(name)] == []
    assert not [file for file in (tree / "checkpoints").rglob("*") if file.is_file()]


def test_all_targets_make_the_same_bytes(tree, undisturbed):
    run(f"{SNAKEMAKE} all seeds research", tree)
    check_bytes(tree, undisturbed)
    histories = [name.replace("models", "history").replace("safetensors", "csv") for name in MODELS]
    assert undisturbed.keys() - made(tree).keys() == {*MODELS[1:], *histories[1:]}
    comments = [comment for comment, _ in queue(tree).values()]
    runs = [comment for comment in comments if comment.startswith("rule_run_")]
    assert len(runs) == 1  # both trainings, and what is made of each model
    assert sum("rule_inference_gap" in comment for comment in comments) == 1
    assert "Nothing to be done" in run(SNAKEMAKE, tree)
    assert not list((tree / "logs/slurm").rglob("*.log"))
    run("snakemake --cores 1 register", tree)
    assert "up to date" in run("dvc status", tree)


def test_a_job_of_several_runs_is_requeued_and_cancelled(tree, undisturbed):
    edit(tree, "runs", seeds=SEEDS[:2])
    models = MODELS[:2]
    with running(f"{SNAKEMAKE} {' '.join(models)}", tree, tree / "said") as head:
        for command in ("scontrol requeue", "scancel"):
            assert wait_for(lambda: any((tree / model).exists() for model in models), head)
            (job,) = queue(tree, "running")
            run(f"{command} {job}", tree)
            wait_for(lambda: not queue(tree, "running"), head)
            for model in models:
                (tree / model).unlink(missing_ok=True)
        assert head.wait(280) == 0, (tree / "said").read_text()
    check_bytes(tree, undisturbed)
    states = [state for _, state in queue(tree).values()]
    assert sorted(states) == ["CANCELLED", "COMPLETED"]


@pytest.fixture(scope="module")
def disturbed(prepared, tmp_path_factory) -> dict[str, tuple[Path, int]]:
    """Trainings that were disturbed, each in its own way: tree and seed."""
    folder = tmp_path_factory.mktemp("disturbed")
    tree, unwarned = (shutil.copytree(prepared, folder / name) for name in ("tree", "unwarned"))
    edit(tree, "runs", seeds=SEEDS)
    # One run in each job; a GPU for each, so that they can be pre-empted.
    set_profile(tree, run=1)
    profile = (tree / PROFILE).read_text(encoding="utf-8").replace("# gpu: 1", "gpu: 1")
    profile = profile.replace("slurm_partition: cpu", "slurm_partition: gpu")
    (tree / PROFILE).write_text(profile, encoding="utf-8")
    # No signal before the time limit.
    profile = (unwarned / PROFILE).read_text(encoding="utf-8")
    profile = re.sub(r" +slurm_extra:.*\n", "", profile)
    (unwarned / PROFILE).write_text(profile, encoding="utf-8")
    with (
        running(f"{SNAKEMAKE} {MODELS[0]}", unwarned, unwarned / "said") as other,
        running(f"{SNAKEMAKE} {' '.join(MODELS)}", tree, tree / "said") as head,
    ):
        ended = stopped(unwarned, 0, other)
        processes = [stopped(tree, seed, head) for seed in SEEDS]
        jobs = [job_of(process) for process in processes]
        # All GPUs are taken; SLURM chooses which job gives way to one of higher priority.
        run("sbatch --partition=urgent --gpus=1 --output=/dev/null --wrap='sleep 1'", tree)
        wait_for(lambda: len(queue(tree, "running")) == 3, head)
        left = [seed for seed in SEEDS if jobs[seed] in queue(tree, "running")]
        (preempted,) = {*SEEDS} - {*left}
        cancelled, requeued, warned = left
        run(f"scancel {jobs[cancelled]}", tree)
        run(f"scontrol requeue {jobs[requeued]}", tree)
        # The profile's --signal comes at least 60 s before the limit.
        for job in (jobs[warned], job_of(ended)):
            run(f"scontrol update JobId={job} TimeLimit=1", tree)
        continue_at_sigterm({processes[warned], ended}, other)
        assert head.wait(280) == 0, (tree / "said").read_text()
        assert other.wait(280) == 0, (unwarned / "said").read_text()
    trainings = [(tree, seed) for seed in (preempted, cancelled, requeued, warned)]
    return dict(zip(ENDED, [*trainings, (unwarned, 0)], strict=True))


@pytest.mark.parametrize("how", ENDED)
def test_a_disturbed_training_ends_with_the_same_bytes(how, disturbed, undisturbed):
    tree, seed = disturbed[how]
    check_bytes(tree, undisturbed)
    (step,) = steps_resumed(log_of(tree, seed), EPOCH)
    assert step > 0
    states = [state for _, state in queue(tree).values()]
    assert {*ENDED[how], "COMPLETED"} <= {*states}


def test_the_same_command_takes_up_what_a_killed_snakemake_was_running(tree, undisturbed):
    """Two trainings that run go on, two that wait in the queue are submitted again."""
    set_profile(tree, run=1)
    run("sbatch --cpus-per-task=6 --output=/dev/null --wrap='sleep 60'", ROOT)
    command = f"{SNAKEMAKE} {' '.join(MODELS)}"

    def started() -> list[int]:
        locks = (tree / "results/models").glob(".*.lock")
        return [int(re.search(r"seed(\d)", lock.name)[1]) for lock in locks]

    with running(command, tree, tree / "said") as head:
        assert wait_for(lambda: len(queue(tree)) == 4 and len(started()) == 2, head)
        left = started()
    run(command, tree)
    check_bytes(tree, undisturbed)
    states = [state for _, state in queue(tree).values()]
    assert sorted(states) == ["CANCELLED"] * 2 + ["COMPLETED"] * 6
    assert [seed for seed in SEEDS if "had finished" in log_of(tree, seed)] == sorted(left)


def test_after_too_little_memory_a_job_asks_for_more(tree, undisturbed):
    set_profile(tree, mem_mb=700)
    said = run(f"{SNAKEMAKE} {MODELS[0]}", tree)
    first, *_ = sorted((tree / "logs/slurm").rglob("*.log"))
    assert str(first.relative_to(tree)) in said
    assert "exceeded memory limit" in first.read_text()
    lines = run("squeue --noheader --states=all --format='%Z|%m'", tree).splitlines()
    limits = sorted(int(line.split("|")[1][:-1]) for line in lines if line.startswith(f"{tree}|"))
    assert len(limits) > 1
    assert limits == [700 * attempt for attempt in range(1, len(limits) + 1)]
    check_bytes(tree, undisturbed)


def test_what_sbatch_says_is_shown(tree):
    """For a job and for a group of jobs, of which Snakemake itself shows nothing."""
    run(f"snakemake {MODELS[0]}", tree)
    profile = (tree / PROFILE).read_text(encoding="utf-8")
    profile = re.sub(r"slurm_partition: \w+", "slurm_partition: nowhere", profile)
    (tree / PROFILE).write_text(profile, encoding="utf-8")
    for target in (MODELS[1], METRICS):
        said = run(f"{SNAKEMAKE} --retries 0 {target}", tree, code=1)
        assert "invalid partition specified: nowhere" in said


def test_a_training_survives_a_crash_of_its_node(tree, undisturbed):
    with running(f"{SNAKEMAKE} {MODELS[0]}", tree, tree / "said") as head:
        stopped(tree, 0, head)
        # Everything that runs on the node is killed at once, without a signal before.
        run("pkill -KILL -x slurmd|slurmstepd", tree)
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if b"SLURM_JOB_ID=" in environment.read_bytes():
                    os.kill(int(environment.parent.name), signal.SIGKILL)
        run("scontrol update NodeName=lab1 State=DOWN Reason=crashed", tree)
        run(f"{CLUSTER} up {STATE}", tree)
        assert head.wait(280) == 0, (tree / "said").read_text()
    check_bytes(tree, undisturbed)
    ((_, state),) = queue(tree).values()  # the same job, requeued
    assert state == "COMPLETED"
