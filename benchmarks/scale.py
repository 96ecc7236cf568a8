"""How the graph grows: so many tiny trainings through Snakemake and into DVC, timed.

    PYTHONPATH=src:tests python benchmarks/scale.py FOLDER [--slurm] [50 100 200]

Each number of runs is a multiple of ten seeds and adds to what the one before has made. A run is
four jobs of a few seconds each, nearly all of it imports, so 200 runs take about half an hour. What
was measured stands in docs/benchmarks.md. With --slurm the jobs go through a cluster, by the
profile as it stands: `tests/slurm/cluster up FOLDER` gives one, whose own notes say then when each
job ended; how late Snakemake noticed stands in docs/cluster.md.
"""

import gzip
import re
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from statistics import median

from aevb.data import RAW_FILES
from conftest import as_idx, first_images
from graph import read_values, write_values
from test_pipeline import edit, small

ROOT = Path(__file__).resolve().parent.parent
SEEDS = list(range(10))
HERE, SLURM = "snakemake --cores 2", "snakemake --workflow-profile workflow/profiles/slurm"


def measured(command: str, tree: Path) -> tuple[float, int]:
    """Seconds and peak memory in MiB of an engine's own process, without its jobs."""
    begin, peak = time.monotonic(), 0
    with (tree / "said").open("ab") as said:
        process = subprocess.Popen(shlex.split(command), cwd=tree, stdout=said, stderr=said)
        while process.poll() is None:
            with suppress(OSError, IndexError):  # it has just ended
                status = Path(f"/proc/{process.pid}/status").read_text()
                peak = max(peak, int(status.split("VmHWM:")[1].split()[0]) // 1024)
            time.sleep(0.1)
    seconds = time.monotonic() - begin
    assert process.returncode == 0, f"{command}: see {tree / 'said'}"
    print(f"{command:<32}{seconds:8.1f} s{peak:7} MiB", flush=True)
    return seconds, peak


def output(command: str) -> str:
    """What a command says."""
    return subprocess.run(shlex.split(command), capture_output=True, text=True, check=True).stdout


def on_slurm(tree: Path) -> None:
    """How late ends were noticed, and what SLURM's controller was asked since it came up."""
    said = (tree / "said").read_text()
    numbers = dict(re.findall(r"^Job (\d+) has been submitted with SLURM jobid (\d+) ", said, re.M))
    noticed = {
        numbers[job]: datetime.strptime(stamp, "%c")
        for stamp, job in re.findall(r"^\[(.*)\]\nFinished jobid: (\d+) ", said, re.M)
        if job in numbers
    }
    (notes,) = re.findall(r"^JobCompLoc += (.*)$", output("scontrol show config"), re.M)
    lines = Path(notes).read_text().splitlines()
    all_jobs = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines]
    jobs = [job for job in all_jobs if job["WorkDir"] == str(tree)]
    print(f"{len({job['JobId'] for job in jobs})} jobs, started {len(jobs)} times")
    ends = {job["JobId"]: datetime.fromisoformat(job["EndTime"]) for job in jobs}
    seconds = [(noticed[job] - ends[job]).total_seconds() for job in noticed]
    noticed_after = f"median {median(seconds):.0f} s, at most {max(seconds):.0f} s"
    print(f"from a training's end to its notice: {noticed_after}")
    print(*re.findall(r"REQUEST_\w+ .*count:\d+", output("sdiag")), sep="\n")


def main(tree: Path, counts: list[int], engine: str) -> None:
    """Make the tree, grow it."""
    tree = tree.resolve()
    mirror = tree.with_name(f"{tree.name}-mirror")
    mirror.mkdir(parents=True)
    for name in RAW_FILES:
        (mirror / f"{name}.gz").write_bytes(gzip.compress(as_idx(first_images(name)), 1))
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tree)], check=True)
    write_values(tree, small(read_values(tree), mirror))
    edit(tree, "model", hidden=4)
    edit(tree, "train", max_epochs=1)
    before = 0
    for count in counts:
        edit(tree, "runs", latent_dims=list(range(1, count // len(SEEDS) + 1)), seeds=SEEDS)
        print(f"{count} runs", flush=True)
        measured("snakemake --dry-run --quiet all", tree)
        seconds, _ = measured(engine, tree)
        if engine == SLURM:
            on_slurm(tree)
        print(f"{'a job':<32}{seconds / (4 * (count - before)):8.2f} s", flush=True)
        measured("snakemake --dry-run", tree)
        measured("snakemake --cores 1 register", tree)
        measured("dvc status", tree)
        before = count


if __name__ == "__main__":
    folder, *rest = sys.argv[1:]
    counts = [int(word) for word in rest if word != "--slurm"]
    main(Path(folder), counts or [50, 100, 200], SLURM if "--slurm" in rest else HERE)
