"""Devices: what `auto` stands for, and what makes a run repeatable on them."""

import ctypes
import os
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from aevb.files import InputError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)


def repeatable(threads: int = 1) -> None:
    """Fix what would change rounding, and speed, from machine to machine or from run to run.

    The number of threads decides the order of sums, so it is set here and not left to the
    machine, the engine or OMP_NUM_THREADS.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.set_num_threads(threads)
    # Not use_deterministic_algorithms: the same, but it imports torch._inductor, which takes 2 s.
    torch.set_deterministic_debug_mode("error")
    # Filling fresh memory guards against reads of what was never written; it costs a fifth of a
    # training step, and no operation here reads such memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # What a step frees is kept for the next. In some processes glibc would give it back each time,
    # and the system clear it anew: a fifth of such a step.
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            libc.mallopt(option, 2**25)


def resolve_device(name: str) -> str:
    """The device that `train.device` stands for.

    Raises:
        InputError: if it is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there[name]:
        raise InputError(f"--device {name}: not available here; use auto or cpu")
    return name


def resolve_precision(name: str, device: str) -> str:
    """The precision of matrix products that `train.precision` stands for.

    `auto` is bfloat16 where the device multiplies it natively, since elsewhere it is only slower.
    """
    if name != "auto":
        return name
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return "bfloat16" if native else "float32"


class CudaGraph:
    """A step recorded on a GPU and replayed with one launch: launches take most of such a step.

    Runs the step a few times first, as CUDA demands, so what it changes is to be restored.
    Not measured yet: no GPU was at hand.
    """

    def __init__(
        self, step: Callable[[Tensor], Tensor], index: Tensor, generator: torch.Generator
    ) -> None:
        self.index = index.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                step(self.index)
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(generator)
        with torch.cuda.graph(self.graph):
            self.result = step(self.index)

    def __call__(self, index: Tensor) -> Tensor:
        """The step on another index of the same length; the result is overwritten by the next."""
        self.index.copy_(index)
        self.graph.replay()
        return self.result
