"""Stages in forks of one process, as in Snakemake's jobs, behave like Python processes."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from graph import ROOT
from processes import wait_for

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="used on Linux only")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for Snakemake, in a folder with the stages."""
    (tmp_path / "src").symlink_to(ROOT / "src")
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def start(folder: Path, command: str, engine: int | None = None) -> subprocess.Popen[str]:
    """Start `python`, with the PATH of Snakemake's jobs if an engine is given."""
    path = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if engine is not None:
        path.insert(0, str(ROOT / "workflow" / "bin"))
        environment["AEVB_ENGINE"] = f"{engine}-test"
    return subprocess.Popen(
        ["env", *command.split()], cwd=folder, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**environment, "PATH": os.pathsep.join(path)},
    )  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        "evaluate.py --help",
        "evaluate.py --iwae_k x",
        "evaluate.py --test x --model x --metrics x --evaluation x --terms x",
    ],
)
def test_output_and_exit_code_are_those_of_python(words, engine, tmp_path):
    command = f"python src/{words}"
    plain, forked = (start(tmp_path, command, process) for process in (None, engine.pid))
    assert (forked.communicate(), forked.returncode) == (plain.communicate(), plain.returncode)
    sockets, server = Path("/proc/net/unix"), f"@aevb-{engine.pid}-test\n"
    assert server in sockets.read_text()
    engine.kill()
    engine.wait()
    assert wait_for(lambda: server not in sockets.read_text())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_to_the_client_reaches_the_stage(number, engine, tmp_path, set_files):
    client = start(
        tmp_path,
        f"python src/train.py --train {set_files}/train --validation {set_files}/validation "
        "--model model --history history --latent_dim 2 --hidden 4 --max_epochs 100000 "
        "--patience 100000",
        engine.pid,
    )
    assert client.stderr is not None
    while "epoch 1 of" not in client.stderr.readline():
        assert client.poll() is None
    stage = int(re.search(r"process (\d+)", (tmp_path / ".model.lock").read_text())[1])
    assert stage != client.pid
    client.send_signal(number)
    client.communicate()
    killed = number == signal.SIGKILL
    assert client.returncode == (-number if killed else 128 + number)
    assert wait_for(lambda: not Path(f"/proc/{stage}").exists())
    assert [*(tmp_path / "checkpoints").glob("*.safetensors")] or killed
