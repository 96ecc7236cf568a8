"""The stages, run in this process: their inputs and outputs, small settings, what they print.

Importing torch takes seconds, so tests run a stage's script here and capture its output.
"""

import logging
import os
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from aevb.files import InputError, read_tensors, write_tensors
from aevb.plumbing import checking, params
from graph import ROOT

import torch

SETS = ("train", "validation", "test")


@dataclass(frozen=True)
class Stage:
    """A stage.

    Attributes:
        sections: its sections of params.yaml.
        inputs, outputs: its required flags and the path of each file within a workspace.
        more: flags besides those of SMALL.
    """

    sections: tuple[type[params.Section], ...]
    inputs: dict[str, str]
    outputs: dict[str, str]
    more: str = ""


SMALL: dict[str, dict[str, Any]] = {
    "split": {"validation_size": 100},
    "model": {"hidden": 16},
    "train": {"batch_size": 50, "max_epochs": 2, "device": "cpu"},
    "evaluate": {"iwae_k": 3},
    "sample": {"rows": 2, "columns": 3},
    "reconstruct": {"images": 5},
    "inference_gap": {"images": 2, "samples": 10, "steps": 2, "points": 64, "temperatures": 2},
    "gradient_variance": {"images": 2, "samples": 2},
    "latents": {"samples": 1, "components": 2},
    "traverse": {"grid": 2, "dimensions": 1, "steps": 2, "pairs": 1},
    "classifier": {"epochs": 1},
    "sample_quality": {"images": 60},
    "runs": {"latent_dims": [2], "seeds": [0]},
}
"""Values of parameters with which a stage takes no longer than its imports."""

TEST = {"test": "split/test"}
TRAIN = {"train": "split/train"}
MODEL = {"model": "model"}
BOTH = {**TEST, **MODEL}


def files(folder: str, *names: str) -> dict[str, str]:
    """Flags and the files that they name, in one folder."""
    return {name: f"{folder}/{name}" for name in names}


SCORES = ("metrics", "arrays")
PICTURES = ("manifold", "traversals", "interpolations", "arrays")
K2 = "k2-seed0"
STAGES = {
    "split": Stage((params.Split,), {"raw": "raw"}, files("split", *SETS)),
    "train": Stage(
        (params.Model, params.Train),
        {**TRAIN, "validation": "split/validation"},
        {**MODEL, "history": f"history/{K2}.csv"},
        more="--latent_dim 2",
    ),
    "evaluate": Stage(
        (params.Evaluate,),
        BOTH,
        {
            "metrics": f"metrics/{K2}.json",
            "evaluation": f"evaluation/{K2}.safetensors",
            "terms": f"terms/{K2}.safetensors",
        },
    ),
    "sample": Stage(
        (params.Sample,),
        MODEL,
        {
            **{name: f"samples/{K2}-{name}.png" for name in ("means", "draws")},
            "samples": f"samples/{K2}.safetensors",
        },
    ),
    "reconstruct": Stage(
        (params.Reconstruct,),
        BOTH,
        {
            "figure": f"reconstructions/{K2}.png",
            "reconstructions": f"reconstructions/{K2}.safetensors",
        },
    ),
    "compare": Stage((params.Runs,), {"results": ""}, {"output": "comparison"}),
    "research latents": Stage((params.Latents,), TRAIN | BOTH, files("latents", *SCORES)),
    "research traverse": Stage((params.Traverse,), BOTH, files("traverse", *PICTURES)),
    "research classify": Stage(
        (params.Classifier,), TRAIN | TEST, {name: name for name in ("classifier", "accuracy")}
    ),
    "research sample_quality": Stage(
        (params.SampleQuality,),
        {**TRAIN, **BOTH, "latents": "latents/arrays", "classifier": "classifier"},
        files("sample_quality", *SCORES, "figure"),
    ),
    "research inference_gap": Stage(
        (params.InferenceGap,), TRAIN | BOTH, files("inference_gap", *SCORES)
    ),
    "research gradient_variance": Stage(
        (params.GradientVariance,), BOTH, files("gradient_variance", *SCORES)
    ),
}
"""All stages but `download`, in an order in which each finds its inputs."""


class Outcome(NamedTuple):
    """The exit code of a stage and what it printed."""

    code: object
    out: str
    error: str


def run_script(name: str, *words: object) -> Outcome:
    """Run a script of src/ in this process; a name may have a second word, its subcommand.

    Logging, environment and threads of this process are restored afterwards.
    """
    script, *subcommand = name.split()
    path = str(ROOT / "src" / f"{script}.py")
    argv = [str(word) for word in (path, *subcommand, *words)]
    logger, environment = logging.getLogger("aevb"), dict(os.environ)
    handlers, threads = list(logger.handlers), torch.get_num_threads()
    out, error = StringIO(), StringIO()
    code: object = 0
    try:
        with (
            mock.patch.object(sys, "argv", argv),
            mock.patch.object(logger, "propagate", False),  # the outcome has its lines
            redirect_stdout(out),
            redirect_stderr(error),
        ):
            runpy.run_path(path, run_name="__main__")
    except SystemExit as stop:
        code = stop.code or 0
    except Exception as unexpected:  # Python would call the hook and exit
        with redirect_stderr(error), mock.patch.object(sys, "argv", argv):
            sys.excepthook(type(unexpected), unexpected, unexpected.__traceback__)
        code = 1
    finally:
        logger.handlers[:] = handlers
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    return Outcome(code, out.getvalue(), error.getvalue())


def run_or_raise(name: str, *words: object) -> None:
    """Run a script in this process and raise its error as the InputError that it reports."""
    outcome = run_script(name, *words)
    assert "Traceback" not in outcome.error, outcome.error
    if outcome.code:
        raise InputError(outcome.error.splitlines()[-1].partition(": error: ")[2])


def stage_words(stage: str, inputs: Path, outputs: Path) -> list[str]:
    """The command line of a stage that reads from one workspace and writes into another."""
    found, words = STAGES[stage], STAGES[stage].more.split()
    for name, section in params.Params():
        if type(section) in found.sections:
            words += checking.flags(SMALL[name]).split()
    for folder, paths in ((inputs, found.inputs), (outputs, found.outputs)):
        for flag, path in paths.items():
            words += [f"--{flag}", str(folder / path)]
    return words if stage != "train" else [*words, "--checkpoints", str(outputs / "checkpoints")]


def run_stage(stage: str, inputs: Path, outputs: Path, *more: object) -> Outcome:
    """Run a stage in this process."""
    return run_script(stage, *stage_words(stage, inputs, outputs), *more)


def error_line(outcome: Outcome, code: int = 1) -> str:
    """The one line that reports an error, which is the last line of the output."""
    lines = outcome.error.splitlines()
    assert outcome.code == code, outcome.error
    assert outcome.out == ""
    assert "Traceback" not in outcome.error
    assert [line for line in lines if "error" in line.lower()] == lines[-1:]
    return lines[-1]


def edit_tensors(path: Path, kind: str, **entries: Any) -> None:
    """Write a file of tensors again with other arrays or metadata; None leaves one out."""
    arrays, metadata = read_tensors(path, kind)
    for name, value in entries.items():
        place: dict[str, Any] = metadata if name in metadata else arrays
        place.pop(name, None)
        if value is not None:
            place[name] = value
    write_tensors(path, kind, arrays, metadata)
