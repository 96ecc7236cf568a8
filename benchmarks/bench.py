"""Time to a given test −ELBO: this pipeline's train stage against loops that users would write.

    python benchmarks/bench.py [--rounds 3] [--examples ../examples]

Whole processes, one after the other in turns, on a machine that should do nothing else. The target
is what the main example of pytorch/examples reports after its ten epochs, 105.56 nats per image on
gray levels at k = 20; its script takes part if a clone is given. Pyro takes part if it is
installed. The evaluate stage tests our models outside the measured time; the others' own tests, a
tenth of their time, are measured. Writes docs/benchmarks.md and docs/benchmarks.png.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))
from aevb.plumbing.machine import processor  # noqa: E402

TARGET = 105.56
# Selected on 10,000 validation images among batch sizes, rates, decays and numbers of epochs.
RECIPE = (
    "--precision auto --binarisation none --batch_size 256 --learning_rate 0.009 --decay 0.3 "
    "--patience 99"
)
EPOCHS = 4
TABLE = (
    "Whole processes to a test −ELBO of 105.56 nats per image (k = 20, gray levels, 60,000 images)"
)


@dataclass
class Contestant:
    """A command and its measurements."""

    name: str
    command: list[str]
    folder: Path
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    curve: list[tuple[float, float]] = field(default_factory=list)

    def run(self) -> None:
        """Run once; keep seconds, CPU seconds, peak MiB and each test −ELBO with its time."""
        # Our train stage would take the finished state of an earlier round from there.
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        begin = time.perf_counter()
        process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        self.curve = []
        for line in process.stdout:
            if found := re.search(r"test −ELBO ([\d.]+)|Test set loss: ([\d.]+)", line):
                self.curve.append((time.perf_counter() - begin, float(found[1] or found[2])))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, f"{self.command} failed"
        self.wall.append(time.perf_counter() - begin)
        self.cpu.append(usage.ru_utime + usage.ru_stime)
        self.memory.append(usage.ru_maxrss / 1024)


def ours(name: str, folder: Path, epochs: int, threads: int) -> Contestant:
    """The train stage; its model goes to a file of that name."""
    flags = f"{RECIPE} --max_epochs {epochs} --threads {threads} --latent_dim 20"
    paths = f"--train train --validation validation --model {name} --history {name}.csv"
    command = [sys.executable, str(ROOT / "src/train.py"), *flags.split(), *paths.split()]
    return Contestant(name, command, folder)


def score(one: Contestant) -> float:
    """The test −ELBO of our model."""
    words = (
        f"--test test --model {one.name} --metrics {one.name}.json --evaluation evaluation "
        "--terms terms --iwae_k 10"
    )
    stage(one.folder, "evaluate", words)
    return -float(json.loads((one.folder / f"{one.name}.json").read_text())["elbo"])


def stage(folder: Path, name: str, words: str) -> None:
    """Run one of the pipeline's stages."""
    command = [sys.executable, str(ROOT / f"src/{name}.py"), *words.split()]
    subprocess.run(command, cwd=folder, check=True, stderr=subprocess.DEVNULL)


def contestants(folder: Path, examples: Path | None) -> list[Contestant]:
    """All that can take part here; ours first."""
    cores = os.cpu_count() or 1
    raw = folder / "data/MNIST/raw"
    stage(folder, "download", f"--bundled {ROOT}/data/mnist --output {raw}")
    split = f"--raw {raw} --train train --validation validation --test test --validation_size 0"
    stage(folder, "split", split)
    all_ = [ours(f"train-{threads}", folder, EPOCHS, threads) for threads in sorted({cores, 1})]
    python = sys.executable
    own = ROOT / "benchmarks"
    all_.append(Contestant("textbook", [python, str(own / "textbook.py"), "data"], folder))
    if find_spec("pyro"):
        all_.append(Contestant("Pyro", [python, str(own / "pyro_vae.py"), "data"], folder))
    if examples is not None:
        vae = folder / "vae"
        (vae / "results").mkdir(parents=True)
        shutil.copy(examples / "vae/main.py", vae)
        all_.append(Contestant("pytorch/examples", [python, "main.py"], vae))
    return all_


def row(one: Contestant, reached: float, against: Contestant) -> str:
    """A line of the table; ratios are of medians."""
    wall, cpu, memory = median(one.wall), median(one.cpu), max(one.memory)
    ratios = f"{median(against.wall) / wall:.1f}× | {median(against.cpu) / cpu:.1f}×"
    return f"| {one.name} | {wall:.1f} | {cpu:.1f} | {ratios} | {memory:.0f} | {reached:.2f} |"


def main() -> None:
    """Run all in turns, write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--examples", type=Path, help="a clone of pytorch/examples")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        everyone = contestants(folder, args.examples)
        for number in range(args.rounds):
            for one in everyone:
                one.run()
                print(f"round {number + 1}: {one.name} {one.wall[-1]:.1f} s", flush=True)
        mine = [one for one in everyone if one.name.startswith("train-")]
        reached = {one.name: score(one) for one in mine}
        reached |= {one.name: one.curve[-1][1] for one in everyone if one not in mine}
        curve = [(median(mine[-1].wall), reached[mine[-1].name])]
        for epochs in (1, 2, 5, 10):
            other = ours(f"epochs-{epochs}", folder, epochs, os.cpu_count() or 1)
            other.run()
            curve.append((other.wall[0], score(other)))
        mine[-1].curve = sorted(curve)
    import torch

    lines = [
        f"{TABLE}, medians of {args.rounds} runs in turns, {processor()}, {os.cpu_count()} cores, "
        f"torch {torch.__version__.split('+')[0]}. `train-N`: our train stage on N threads, "
        f"`{RECIPE} --max_epochs {EPOCHS}`. The ratios are to {everyone[-1].name}.",
        "",
        "| | wall, s | CPU, s | wall | CPU | peak, MiB | test −ELBO † |",
        "|---|---|---|---|---|---|---|",
        *(row(one, reached[one.name], everyone[-1]) for one in everyone),
    ]
    page = ROOT / "docs/benchmarks.md"
    before, _, rest = page.read_text().partition("<!-- bench -->\n")
    _, _, after = rest.partition("<!-- end -->\n")
    table = "\n".join(lines)
    page.write_text(f"{before}<!-- bench -->\n{table}\n<!-- end -->\n{after}")
    print(table)

    plt.rcParams.update({"font.size": 11})
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for one in everyone:
        if one.curve:
            axes.plot(*zip(*one.curve, strict=True), marker="o", label=one.name)
    axes.axhline(TARGET, color="gray", linestyle="--", label=f"target {TARGET}")
    axes.set(xscale="log", xlabel="seconds, whole process", ylabel="test −ELBO †, nats per image")
    axes.set_xticks([2, 5, 10, 20, 50, 100], labels=["2", "5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.set_ylim(100, 130)
    axes.legend()
    figure.savefig(ROOT / "docs/benchmarks.png", dpi=150)


if __name__ == "__main__":
    main()
