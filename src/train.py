"""Train one VAE by maximising the Monte Carlo ELBO.

Kingma & Welling 2013, algorithm 1. On SIGTERM, SIGINT or SIGUSR1 the current step is finished, a
checkpoint is written and the exit code is 128 + the signal's number. The same command resumes.
"""

import sys
from pathlib import Path
from typing import Annotated

from aevb.data import read_set
from aevb.files import InputError, sha256, write_csv, write_json
from aevb.model import VAE, write_model
from aevb.plumbing import cli, machine
from aevb.plumbing.checkpoints import Checkpoint, Interrupted, exclusive
from aevb.plumbing.dependencies import SOURCE, code_of
from aevb.plumbing.params import Model, Positive, Seconds, Seed, Train, TrainSet
from aevb.training import HISTORY, Training

import torch


def main(
    train: TrainSet,
    validation: Annotated[Path, "validation images (.safetensors)"],
    model: Annotated[Path, "the trained model to write (.safetensors)"],
    history: Annotated[Path, "the learning curve to write (.csv)"],
    latent_dim: Annotated[Positive, "k, the dimensions of z"],
    architecture: Model,
    settings: Train,
    provenance: Annotated[
        Path | None, "a record of machine, versions and inputs to write (.json)"
    ] = None,
    seed: Annotated[Seed, "of initial weights, batches and noise"] = 0,
    checkpoints: Annotated[Path, "folder for the checkpoint"] = Path("checkpoints"),
    checkpoint_seconds: Annotated[Seconds, "seconds between checkpoints"] = 30.0,
) -> None:
    """Train, write the model and its history.

    While another process writes the same model, this one waits and then takes its result.
    """
    machine.repeatable(settings.threads)
    device = machine.resolve_device(settings.device, settings.precision)
    precision = machine.resolve_precision(settings.precision, device)
    images = read_set(train, "train")
    held_out = read_set(validation, "validation", images.metadata)
    if not len(images):
        raise InputError(f"{train}: has no training images; run the split stage again")

    # The number of threads does not matter in exact arithmetic.
    ignored = {"threads"} if precision == "exact" else None
    metadata = {
        **architecture.model_dump(),
        **settings.model_dump(exclude=ignored),
        "latent_dim": latent_dim,
        "seed": seed,
        "device": device,
        "precision": precision,
        "data": images.metadata,
        "train_images": len(images),
    }
    code = {"torch": torch.__version__, "content": content(train, validation)}
    checkpoint = Checkpoint(checkpoints, model.stem, metadata | code, checkpoint_seconds)
    vae = VAE(latent_dim, architecture.hidden, architecture.likelihood)
    run = Training(vae, images, held_out, settings, seed, device, precision)
    name = f"train k = {latent_dim}, seed {seed}"
    with exclusive(model, checkpoint.path, max(10.0, 10 * checkpoint_seconds)):
        if saved := checkpoint.load():
            try:
                run.load_state_dict(*saved)
                if run.is_over():
                    text = "%s: had finished; its state was kept in %s"
                    cli.log.info(text, name, checkpoint.finished)
                else:
                    position = run.state.epoch + 1, run.state.step, checkpoint.path
                    cli.log.info("%s: resumed in epoch %d, step %d, from %s", name, *position)
            except InputError as error:
                cli.log.warning("%s: %s; training restarts", checkpoint.path, error)
        bar = cli.progress(name, settings.max_epochs, "epoch", run.state.epoch)

        def report(epoch: int) -> None:
            bar.update(epoch - bar.n)
            row = dict(zip(HISTORY, run.state.history[-1], strict=True))
            text = "epoch {epoch} of {0}: ELBO {train_elbo:.2f} (train), {validation_elbo:.2f} "
            text += "(validation), learning rate {learning_rate:.2g}"
            cli.log.debug("%s: %s", name, text.format(settings.max_epochs, **row))

        with checkpoint.on_signals(), bar:
            try:
                run.run(checkpoint, report)
            except Interrupted as stop:
                cli.log.error("%s: stopped by %s, checkpoint %s", name, stop, checkpoint.path)
                sys.exit(128 + stop.number)

        checkpoint.finish(*run.state_dict())
        state = run.state
        best = state.best_epoch if len(held_out) else state.epoch
        write_csv(history, HISTORY, state.history)
        files = {"train": train, "validation": validation, "history": history}
        taken = [epoch for epoch in settings.snapshots if epoch <= state.epoch]
        metadata |= {"best_epoch": best, "snapshots": taken}
        snapshots = {name: rows[: len(taken)] for name, rows in run.snapshots.items() if taken}
        write_model(model, run.model, metadata, snapshots, **files)
        if provenance is not None:
            made = machine.record(train=train, validation=validation, model=model)
            setting = {"device": device, "precision": precision, "threads": settings.threads}
            write_json(provenance, made | setting)
    cli.log.info("%s: %d epochs, best %d, wrote %s", name, state.epoch, best, model)


def content(*images: Path) -> list[str]:
    """Hashes of the images and of the code on which the result depends."""
    code = [SOURCE.parent / path for path in code_of("src/train.py")]
    return [sha256(path) for path in (*images, *code)]


if __name__ == "__main__":
    cli.run(main, __doc__)
