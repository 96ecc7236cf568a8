# One Snakemake at a time, which takes up what an earlier one was running when it was killed.

import fcntl
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.persistence import PersistenceBase

from aevb.plumbing.checkpoints import open_lock, sign


def tidy_the_queue():
    """Cancel the jobs in SLURM's queue that this folder has submitted: they are submitted again.

    Those that run already go on, but are not requeued.
    """
    form = "--format=%A|%t|%Z|%k"
    queue = subprocess.run(["squeue", "--me", "--noheader", form], capture_output=True, text=True)
    for line in queue.stdout.splitlines():
        job, state, folder, comment = line.split("|", 3)
        if os.path.realpath(folder) == os.getcwd() and comment.startswith("rule_"):
            cancel = ["scancel", "--state=PENDING", job]
            keep = ["scontrol", "update", f"JobId={job}", "Requeue=0"]
            subprocess.run(cancel if state == "PD" else keep, capture_output=True)


def alone(lock):
    """Snakemake's lock, which also works after a Snakemake that was killed and left its own.

    Snakemake's lock does not say whether its owner lives. A lock of the operating system does,
    since it ends with the process.
    """

    @contextmanager
    def locked(self):
        left = []
        with open_lock(Path(self.path, "controller")) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left = list(Path(self.path, "locks").iterdir())
            except BlockingIOError:
                file.seek(0)
                text = f"Another Snakemake is running in this folder ({file.read().decode()})"
                raise WorkflowError(f"{text}; wait for it or stop it.") from None
            except OSError:
                logger.warning("No locks on this file system: start no second Snakemake.")
            sign(file)
            if left:
                logger.info("Snakemake was killed; taking up what it was running.")
                for path in left:
                    path.unlink()
                if shutil.which("squeue"):
                    tidy_the_queue()
            with lock(self):
                yield
            # Once everything that was started is recorded, no finished training is needed again.
            if not [path for path in Path(self.path, "incomplete").rglob("*") if path.is_file()]:
                for path in Path("checkpoints").rglob("*-finished.safetensors"):
                    path.unlink()

    return locked


PersistenceBase.lock = alone(PersistenceBase.lock)
