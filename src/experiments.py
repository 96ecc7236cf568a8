"""Run all queued DVC experiments in one graph of Snakemake, and save them as DVC does.

`dvc exp run --queue -S …` queues experiments. They run as studies in a copy of the repository,
.dvc/tmp/queue, so that the working tree can be changed meanwhile. An experiment that has been saved
leaves the queue; one that failed stays in it. After an interruption the same command continues.
"""

import fcntl
import shutil
import signal
import subprocess
from contextlib import chdir
from itertools import product
from pathlib import Path
from typing import Annotated

from aevb.files import InputError
from aevb.plumbing import checking, cli
from custody import walk
from verify import git

import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.experiments.queue.base import QueueEntry

COPY = Path(".dvc/tmp/queue")


def main(profile: Annotated[Path | None, "of Snakemake: workflow/profiles/slurm"] = None) -> None:
    """Run the experiments, at a time all that have the same code, data and split."""
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C stops Snakemake; then results are saved
    options = [] if profile is None else ["--workflow-profile", str(profile.resolve())]
    try:
        with Repo() as repo, COPY.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            queue = repo.experiments.celery_queue
            queued = list(queue.iter_queued())
            left = len(queued)
            for group in groups(queued):
                prepare(group, repo.cache.local_cache_dir)
                train_shared_models(group, options)
                snakemake([f"{results(entry)}/comparison/record.json" for entry in group], options)
                saved = [entry.stash_rev for entry in group if save(entry)]
                queue.remove(saved)
                left -= len(saved)
    except BlockingIOError:
        raise InputError("the queued experiments are running already") from None
    except DvcException as error:
        raise InputError(str(error)) from None
    if left:
        raise InputError(f"{left} of {len(queued)} are still in the queue")
    if COPY.exists():
        git("worktree", "remove", "--force", str(COPY))


def results(entry: QueueEntry) -> str:
    """The folder with the results of an experiment, which is a study with one variant."""
    return f"results/studies/queue-{entry.stash_rev}/all"


def values(entry: QueueEntry) -> checking.Values:
    """The parameters of an experiment; a ValueError if one is not allowed."""
    return checking.check(yaml.safe_load(git("show", f"{entry.stash_rev}:params.yaml")), entry.name)


def groups(entries: list[QueueEntry]) -> list[list[QueueEntry]]:
    """The experiments by code, data and split, without those whose parameters are not allowed."""
    found: dict[str, list[QueueEntry]] = {}
    for entry in entries:
        code = git("ls-tree", entry.stash_rev, "Snakefile", "data", "src", "workflow")
        try:
            own = values(entry)
        except ValueError as error:
            cli.log.error("experiments: %s", error)
        else:
            found.setdefault(repr([code, own["data"], own["split"]]), []).append(entry)
    return list(found.values())


def prepare(group: list[QueueEntry], cache: str) -> None:
    """Make the copy, which uses DVC's cache of the repository, and the studies in it."""
    config = COPY / ".dvc/config.local"
    if not config.exists():
        shutil.rmtree(COPY, ignore_errors=True)
        git("worktree", "add", "--quiet", "--force", "--detach", str(COPY))
        config.write_text(f"[cache]\ndir = {cache}\n", encoding="utf-8")
    checkout(group[0])
    for entry in group:
        text = yaml.safe_dump({"params": values(entry), "variants": {"all": {}}}, sort_keys=False)
        (COPY / f"studies/queue-{entry.stash_rev}.yaml").write_text(text, encoding="utf-8")


def snakemake(targets: list[str], options: list[str]) -> None:
    """Let Snakemake make files in the copy; those of failed jobs are missing afterwards."""
    subprocess.run(["snakemake", "--keep-going", *options, *targets], cwd=COPY, check=False)


def train_shared_models(group: list[QueueEntry], options: list[str]) -> None:
    """Train each model that several experiments have in common once."""
    first, same = dict[str, str](), dict[str, str]()
    for entry in group:
        own = values(entry)
        for k, seed in product(own["runs"]["latent_dims"], own["runs"]["seeds"]):
            for file in (f"models/k{k}-seed{seed}.safetensors", f"history/k{k}-seed{seed}.csv"):
                path = f"{results(entry)}/{file}"
                earlier = first.setdefault(repr([own["model"], own["train"], file]), path)
                if path != earlier and not (COPY / path).exists():
                    same[path] = earlier
    if same:
        snakemake(sorted({*same.values()}), options)
    for path, earlier in same.items():
        if (COPY / earlier).exists():
            (COPY / path).parent.mkdir(parents=True, exist_ok=True)
            (COPY / path).hardlink_to(COPY / earlier)


def checkout(entry: QueueEntry) -> None:
    """Turn the copy into that of an experiment, without results and studies that are not in git."""
    with chdir(COPY):
        git("checkout", "--quiet", "--force", "--detach", entry.stash_rev)
        git("rm", "--quiet", "--force", ".dvc/tmp/repro.dat")
        git("clean", "--quiet", "-fdx", "--exclude=/results/studies", "results", "studies")


def save(entry: QueueEntry) -> bool:
    """Let DVC record the results of an experiment, if they are complete; whether they are."""
    checkout(entry)
    try:
        shutil.copytree(COPY / results(entry), COPY / "results", dirs_exist_ok=True)
        walk(values(entry), COPY)
    except (InputError, OSError) as error:
        cli.log.error("experiments: %s failed: %s", entry.name, error)
        return False
    with chdir(COPY), Repo() as repo:
        repo.commit(force=True, relink=False)
        git("add", "dvc.lock", "results", ":!results/studies")
        tree = git("write-tree").decode().strip()
    base = entry.baseline_rev
    commit = git("commit-tree", "-p", base, "-m", entry.name, tree).decode().strip()
    git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{entry.name}", commit)
    cli.log.info("experiments: saved %s (%s)", entry.name, commit[:7])
    return True


if __name__ == "__main__":
    cli.run(main, __doc__)
