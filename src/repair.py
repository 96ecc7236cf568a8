"""Repair what an interrupted DVC left in this folder, and report it in one line.

Nothing is repaired while DVC is running here.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aevb  # noqa: F401  # it reports missing packages

import psutil  # installed with DVC
import yaml

LOCK, RWLOCK = Path("dvc.lock"), Path(".dvc/tmp/rwlock")


def running(file: Path) -> bool:
    """Whether the owner of a file runs DVC in this folder, or in one that is not visible."""
    for process in psutil.process_iter(["cmdline", "cwd", "uids"]):
        words = [Path(word).name for word in (process.info["cmdline"] or [])[:3]]
        here = process.info["cwd"] in (None, os.getcwd())
        if "dvc" in words and here and process.info["uids"].real == file.stat().st_uid:
            return True
    return False


def is_whole(path: Path) -> bool:
    """Whether DVC can read dvc.lock or an rwlock, which is JSON and therefore YAML."""
    text = path.read_bytes()
    if path == LOCK and not text.endswith(b"\n"):  # its last value may be half of another one
        return False
    try:
        stages = yaml.safe_load(text).get("stages", {}).values()
        files = [file for stage in stages for file in stage.get("deps", []) + stage.get("outs", [])]
        return all("path" in file for file in files) and all("cmd" in stage for stage in stages)
    except (yaml.YAMLError, AttributeError, TypeError):
        return False


def obstacles() -> Iterator[Path]:
    """Files and folders with which `dvc repro` always fails, also locks of other users."""
    yield from (path for path in (LOCK, RWLOCK) if path.exists() and not is_whole(path))
    yield from (path for path in RWLOCK.parent.glob("*lock") if not os.access(path, os.W_OK))
    yield from (path for path in Path(".dvc/cache/runs").glob("*/*/") if not any(path.iterdir()))


for path in [path for path in obstacles() if not running(path)]:
    git = ["git", "restore", "dvc.lock"]
    if path == LOCK and subprocess.run(git, capture_output=True, check=False).returncode == 0:
        print("repair: dvc.lock was damaged; restored it from git", file=sys.stderr)
        continue
    path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    print(f"repair: removed {path}, with which DVC cannot start", file=sys.stderr)
