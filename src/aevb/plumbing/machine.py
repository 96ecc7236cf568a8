"""The machine: settings that make results repeatable, its devices, and a record of it."""

import ctypes
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aevb.files import InputError, sha256

import torch


def repeatable(threads: int = 1) -> None:
    """Make results repeatable: fix the order of sums and refuse operations without one.

    The order of sums depends on the number of threads, so it is set here and not left to the
    machine, the workflow engine or OMP_NUM_THREADS. (Exact arithmetic does not depend on it.)
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.set_num_threads(threads)
    # use_deterministic_algorithms does the same, but imports torch._inductor, which takes 2 s.
    torch.set_deterministic_debug_mode("error")
    # Filling new memory guards against reads of uninitialised values, which no operation here
    # does, and it takes a fifth of a training step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # glibc would return freed blocks to the system, which clears them again in each step.
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_threshold = -1, -3  # see mallopt(3)
        for option in (trim_threshold, mmap_threshold):
            libc.mallopt(option, 2**25)


def resolve_device(name: str, precision: str) -> str:
    """The device that `train.device` selects.

    Raises:
        InputError: if the device is not available, or not one for exact arithmetic.
    """
    if precision == "exact":
        if name not in ("auto", "cpu"):
            raise InputError(f"--device {name}: --precision exact needs the CPU; use auto or cpu")
        return "cpu"
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return "cuda" if available["cuda"] else "cpu"
    if not available[name]:
        raise InputError(f"--device {name}: not available here; use auto or cpu")
    return name


def resolve_precision(name: str, device: str) -> str:
    """The precision that `train.precision` selects.

    `auto` is bfloat16 where the device multiplies it natively; elsewhere bfloat16 is slower.
    """
    if name != "auto":
        return name
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return "bfloat16" if native else "float32"


def record(**files: Path) -> dict[str, Any]:
    """Versions, processor and commit, and the SHA-256 of each file, for people to read.

    It differs between machines, so it is not a result and no workflow engine tracks it.
    """
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "safetensors")},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "commit": commit(),
        **{f"{name}_sha256": sha256(path) for name, path in files.items()},
    }


def processor() -> str:
    """What the system calls the CPU."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor()


def commit() -> str:
    """The commit of the code, with `+` if src/ has changed since; `unknown` without git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    questions = ["rev-parse", "HEAD"], ["status", "--porcelain", "--", ":/src"]
    try:
        head, changes = (
            subprocess.check_output([*git, *words], stderr=subprocess.DEVNULL, text=True).strip()
            for words in questions
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}+" if changes else head
