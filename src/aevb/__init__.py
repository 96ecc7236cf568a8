"""Auto-Encoding Variational Bayes (Kingma & Welling 2013, arXiv:1312.6114).

Read in this order: `model` (encoder and decoder), `likelihoods` (log p(x|z)), `bounds` (KL, ELBO,
importance-weighted bound), `training` (the training loop), `evaluation` (numbers on the test set).
They use `data` (images and binarisation), `rng` (random numbers) and `files` (reading and writing).

`research` contains the stages on request, `report` the tables, figures and discussion. `plumbing`
has no effect on results: parameters, command line, checkpoints, machine.
"""

import sys
import traceback
from contextlib import suppress
from itertools import pairwise
from pathlib import Path


def _report(_: type[BaseException], error: BaseException, __: object) -> None:
    """Report an error that nothing handles, also in the file after `--log`."""
    text = "".join(traceback.format_exception(error))
    if isinstance(error, ModuleNotFoundError):  # Python has been started outside the environment
        text = f"error: {error}; run `source .venv/bin/activate`, or `make` first\n"
    sys.stderr.write(text)
    for flag, path in pairwise(sys.argv):
        if flag == "--log":
            with suppress(OSError):
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                with open(path, "a", encoding="utf-8") as log:
                    log.write(text)


sys.excepthook = _report
