"""Train one VAE by maximising the Monte Carlo ELBO.

Kingma & Welling 2013, algorithm 1. On SIGTERM, SIGINT or SIGUSR1 the current step is finished, a
checkpoint is written and the exit code is 128 + the signal's number. The same command resumes.
"""

import hashlib
import sys
from argparse import SUPPRESS, Namespace
from pathlib import Path

import torch

from aevb import data, model, training
from aevb.files import InputError, write_csv, write_json
from aevb.plumbing import cli, devices, provenance
from aevb.plumbing.checkpoints import Checkpoint, Interrupted, exclusive, run_key
from aevb.plumbing.dependencies import SOURCE, code_of
from aevb.plumbing.params import Model, Train


def arguments() -> cli.Parser:
    """The command line of this stage."""
    parser = cli.parser(__doc__, Model, Train)
    add = parser.add_argument
    add("--train", type=Path, required=True, help="training images (.safetensors)")
    add("--validation", type=Path, required=True, help="validation images (.safetensors)")
    add("--model", type=Path, required=True, help="the trained model to write (.safetensors)")
    add("--history", type=Path, required=True, help="the learning curve to write (.csv)")
    record = "a record of machine, versions and inputs to write (.json)"
    add("--provenance", type=Path, default=SUPPRESS, help=record)
    add("--latent_dim", type=cli.positive, required=True, help="k, the dimensions of z")
    add("--seed", type=cli.natural, default=0, help="of initial weights, batches and noise")
    add("--checkpoints", type=Path, default=Path("checkpoints"), help="folder for the checkpoint")
    add("--checkpoint_seconds", type=cli.seconds, default=30.0, help="time between checkpoints")
    return parser


def main(args: Namespace) -> None:
    """Train, write the model and its history, remove the checkpoint."""
    architecture, settings = cli.settings(Model, args), cli.settings(Train, args)
    devices.repeatable(settings.threads)
    device = devices.resolve_device(settings.device)
    precision = devices.resolve_precision(settings.precision, device)
    train, validation = data.read_set(args.train), data.read_set(args.validation)
    if not len(train):
        raise InputError(f"{args.train}: has no training images; run the split stage again")

    metadata = {
        **architecture.model_dump(),
        **settings.model_dump(),
        "latent_dim": args.latent_dim,
        "seed": args.seed,
        "device": device,
        "precision": precision,
        "data": train.metadata,
        "train_images": len(train),
    }
    key = run_key({**metadata, "torch": torch.__version__, "content": content(args)})
    checkpoint = Checkpoint(args.checkpoints, key, args.checkpoint_seconds)
    vae = model.VAE(args.latent_dim, architecture.hidden, architecture.likelihood)
    run = training.Training(vae, train, validation, settings, args.seed, device, precision)
    name = f"train k = {args.latent_dim}, seed {args.seed}"
    with exclusive(args.model), exclusive(checkpoint.path):
        if saved := checkpoint.load():
            try:
                run.load_state_dict(*saved)
                position = run.state.epoch + 1, run.state.step, checkpoint.path
                cli.log.info("%s: resumed in epoch %d, step %d, from %s", name, *position)
            except InputError as error:
                cli.log.warning("%s: %s; training starts anew", checkpoint.path, error)
        bar = cli.progress(None, name, settings.max_epochs, "epoch", run.state.epoch)
        with checkpoint.on_signals(), bar:
            try:
                run.run(checkpoint, lambda epoch: bar.update(epoch - bar.n))
            except Interrupted as stop:
                cli.log.error("%s: stopped by %s, checkpoint %s", name, stop, checkpoint.path)
                sys.exit(128 + stop.number)

        state = run.state
        best = state.best_epoch if len(validation) else state.epoch
        write_csv(args.history, training.HISTORY, state.history)
        model.write_model(args.model, run.model, {**metadata, "best_epoch": best})
        if "provenance" in args:
            files = {"train": args.train, "validation": args.validation, "model": args.model}
            setting = {"device": device, "precision": precision, "threads": settings.threads}
            write_json(args.provenance, provenance.record(files, **setting))
        checkpoint.remove()
    cli.log.info("%s: %d epochs, best %d, wrote %s", name, state.epoch, best, args.model)


def content(args: Namespace) -> list[str]:
    """Hashes of the images and of the code on which the result depends."""
    code = [SOURCE.parent / path for path in code_of("src/train.py")]
    paths = [args.train, args.validation, *code]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


if __name__ == "__main__":
    cli.run(main, arguments())
