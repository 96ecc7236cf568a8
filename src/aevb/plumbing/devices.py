"""Devices: the meaning of `auto`, and settings that make results repeatable."""

import ctypes
import os
import sys

import torch

from aevb.files import InputError


def repeatable(threads: int = 1) -> None:
    """Make results repeatable: fix the order of sums and refuse operations without one.

    The order of sums depends on the number of threads, so it is set here and not left to the
    machine, the workflow engine or OMP_NUM_THREADS.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.set_num_threads(threads)
    # use_deterministic_algorithms does the same, but imports torch._inductor, which takes 2 s.
    torch.set_deterministic_debug_mode("error")
    # Filling new memory guards against reads of uninitialised values, which no operation here
    # does, and it takes a fifth of a training step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let glibc keep the memory that a training step frees for the next step.

    Otherwise it returns large blocks to the system, which clears them again each time.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_threshold = -1, -3  # see mallopt(3)
        for option in (trim_threshold, mmap_threshold):
            libc.mallopt(option, 2**25)


def resolve_device(name: str) -> str:
    """The device that `train.device` stands for.

    Raises:
        InputError: if the device is not available.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available[name]:
        raise InputError(f"--device {name}: not available here; use auto or cpu")
    return name


def resolve_precision(name: str, device: str) -> str:
    """The precision of matrix products that `train.precision` stands for.

    `auto` is bfloat16 where the device multiplies it natively; elsewhere bfloat16 is slower.
    """
    if name != "auto":
        return name
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return "bfloat16" if native else "float32"
