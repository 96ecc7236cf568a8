"""A training step with the gradient written out, against autograd's, and the gradient alone.

    python benchmarks/step.py data/split/validation.safetensors

Milliseconds by the clock, bfloat16, k = 20: both in turns within one process, a process for each
case, on a machine that should do nothing else. Prints the table of docs/benchmarks.md.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))
import torch  # noqa: E402

from aevb.data import read_set  # noqa: E402
from aevb.gradients import autograd, bernoulli  # noqa: E402
from aevb.model import VAE  # noqa: E402
from aevb.plumbing.devices import repeatable  # noqa: E402
from aevb.plumbing.params import Train  # noqa: E402
from aevb.training import Training  # noqa: E402

CASES = [("dynamic", 256, 1), ("gray", 128, 1), ("gray", 128, 2), ("gray", 256, 2)]
ROUNDS, STEPS = 10, 100


def milliseconds(call: Callable[[], object]) -> float:
    """What one of many calls takes."""
    begin = time.perf_counter()
    for _ in range(STEPS):
        call()
    return (time.perf_counter() - begin) / STEPS * 1e3


def row(binarisation: str, batch_size: int, threads: int) -> str:
    """A line of the table: the shortest rounds."""
    repeatable(threads)
    images = read_set(Path(sys.argv[1]))
    settings = Train(binarisation=binarisation, batch_size=batch_size, threads=threads)
    run = Training(VAE(20, 500, "bernoulli"), images, images, settings, 0, "cpu", "bfloat16")
    index = torch.arange(batch_size)
    x, eps = run.batch(index), torch.randn(1, batch_size, 20)
    steps: dict[Callable[..., object], list[float]] = {autograd: [], bernoulli: []}
    alone: dict[Callable[..., object], list[float]] = {autograd: [], bernoulli: []}
    for _ in range(ROUNDS):
        for take in (autograd, bernoulli):
            run.loss_gradient = take
            steps[take].append(milliseconds(lambda: run.step(index)))
            alone[take].append(milliseconds(lambda take=take: take(run.low, run.slopes, x, eps)))
    cells = [binarisation, str(batch_size), str(threads)]
    for times in (steps, alone):
        slow, fast = min(times[autograd]), min(times[bernoulli])
        cells += [f"{slow:.2f}", f"{fast:.2f}", f"{slow / fast:.2f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure every case in a process of its own."""
    print("| pixels | batch | threads | step, autograd | written out | ratio "
          "| gradient, autograd | written out | ratio |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for case in CASES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(pool.apply(row, case), flush=True)


if __name__ == "__main__":
    main()
