"""Stages and engines as processes that are watched, signalled and killed."""

import json
import math
import os
import random
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from graph import TIMEOUT, own_environment

from safetensors import safe_open


def start(command: str | list[str], cwd: Path, output: Path) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own and append its output to a file."""
    words = shlex.split(command) if isinstance(command, str) else command
    with output.open("ab") as file:
        return subprocess.Popen(
            words, cwd=cwd, env=own_environment(), stdin=subprocess.DEVNULL,
            stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip


@contextmanager
def running(command: str | list[str], cwd: Path, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs during the block; its whole process group is killed afterwards."""
    process = start(command, cwd, output)
    try:
        yield process
    finally:
        kill_group(process)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill -9 a process and everything that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(TIMEOUT)


def lives(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process, or one that it started, is still running."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 0)
        return True
    return False


def wait_for(ready: Callable[[], object], *processes: subprocess.Popen[bytes]) -> bool:
    """Wait until something is true; False if one of the processes ended before that."""
    end = time.monotonic() + TIMEOUT
    while not ready():
        if any(process.poll() is not None for process in processes):
            return bool(ready())
        assert time.monotonic() < end, "timed out"
        time.sleep(0.003)
    return True


def steps_saved(checkpoints: Path, epoch: int) -> int:
    """How many steps the checkpoint in a folder holds, for epochs of `epoch` steps; 0 without."""
    for path in checkpoints.glob("[!.]*.safetensors"):
        with suppress(FileNotFoundError), safe_open(path, framework="numpy") as file:
            metadata = json.loads(file.metadata()["aevb"])
            return int(metadata["epoch"] * epoch + metadata["step"])
    return 0


def steps_resumed(log: str, epoch: int) -> list[int]:
    """The steps from which trainings say that they resume, for epochs of `epoch` steps."""
    found = re.findall(r"resumed in epoch (\d+), step (\d+), ", log)
    return [(int(number) - 1) * epoch + int(step) for number, step in found]


def kill_at_random(
    number: int,
    seed: int,
    total: int,
    begin: Callable[[random.Random], subprocess.Popen[bytes]],
    saved: Callable[[], int],
) -> list[int]:
    """Start a training and kill -9 it, again and again, at random moments.

    Most kills come after a random step and a random short time, so that they fall anywhere in a
    step or in the writing of a checkpoint. A quarter may come before, in imports and reading.

    Args:
        number: how many times.
        seed: of the moments.
        total: the number of steps of the training, of which no kill comes after 70 %.
        begin: starts it.
        saved: the number of steps that its checkpoint holds.

    Returns:
        The number of steps that the checkpoint held after each kill.
    """
    chance = random.Random(seed)
    held = []
    for aim in sorted(chance.uniform(0, 0.7 * total) for _ in range(number)):
        target = max(aim, saved())
        process = begin(chance)
        end = time.monotonic() + (chance.uniform(0, 3) if chance.random() < 0.25 else math.inf)
        wait_for(lambda target=target, end=end: saved() > target or time.monotonic() > end, process)
        time.sleep(chance.uniform(0, 0.02))
        kill_group(process)
        assert process.returncode == -signal.SIGKILL, "the training ended before the kill"
        held.append(saved())
    return held
