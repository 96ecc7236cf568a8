"""How the engines cope with many runs: tiny trainings through Snakemake and into DVC, timed.

    PYTHONPATH=src:tests python benchmarks/scale.py FOLDER [--slurm] [50 100 200]

Each number of runs is a multiple of ten seeds and adds to the previous runs. A run is four stages.
The measurements are in docs/benchmarks.md. With --slurm the stages go through a cluster, with the
profile unchanged: `tests/robustness/slurm/cluster up FOLDER` starts one, which records when each
job ended.
"""

import re
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from conftest import write_mirror
from repository import edit, small_repository

SEEDS = list(range(10))
LOCAL, SLURM = "snakemake --cores 2", "snakemake --workflow-profile workflow/profiles/slurm"


def measure(command: str, tree: Path) -> float:
    """Seconds of an engine's own process, without its jobs; its peak memory is printed as well."""
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
    return seconds


def output(command: str) -> str:
    """What a command prints."""
    return subprocess.run(shlex.split(command), capture_output=True, text=True, check=True).stdout


def report_slurm(tree: Path) -> None:
    """Print the number of SLURM's jobs of a tree, with repetitions."""
    (record,) = re.findall(r"^JobCompLoc += (.*)$", output("scontrol show config"), re.M)
    lines = Path(record).read_text().splitlines()
    print(f"jobs: {sum(f'WorkDir={tree} ' in line for line in lines)}")


def main(tree: Path, counts: list[int], engine: str) -> None:
    """Create a clone and measure it with more and more runs."""
    tree = tree.resolve()
    small_repository(tree, write_mirror(tree.with_name(f"{tree.name}-mirror")))
    edit(tree, "model", hidden=4)
    edit(tree, "train", max_epochs=1)
    before = 0
    for count in counts:
        edit(tree, "runs", latent_dims=list(range(1, count // len(SEEDS) + 1)), seeds=SEEDS)
        print(f"{count} runs", flush=True)
        measure("snakemake --dry-run --quiet all", tree)
        seconds = measure(engine, tree)
        if engine == SLURM:
            report_slurm(tree)
        print(f"{'per run':<32}{seconds / (count - before):8.2f} s", flush=True)
        measure("snakemake --dry-run", tree)
        measure("snakemake --cores 1 register", tree)
        measure("dvc status", tree)
        before = count


if __name__ == "__main__":
    folder, *rest = sys.argv[1:]
    counts = [int(word) for word in rest if word != "--slurm"]
    main(Path(folder), counts or [50, 100, 200], SLURM if "--slurm" in rest else LOCAL)
