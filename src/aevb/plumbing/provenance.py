"""A record of the machine, versions and inputs of a training, for people to read.

It differs between machines, so it is not a result and no workflow engine tracks it.
"""

import hashlib
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "numpy", "safetensors")


def record(files: dict[str, Path], **more: Any) -> dict[str, Any]:
    """Versions, processor and commit, the SHA-256 of each of the files, and `more`."""
    hashes = {
        f"{name}_sha256": hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
    }
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "commit": commit(Path(__file__).parent),
        **hashes,
        **more,
    }


def processor() -> str:
    """What the system calls the CPU."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor()


def commit(folder: Path) -> str:
    """The commit of the code in a folder, with `+` if src/ has changed; `unknown` without git."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=folder, check=True, capture_output=True, text=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "..")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
