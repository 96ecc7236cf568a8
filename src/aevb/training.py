"""Training: maximisation of the Monte Carlo ELBO, algorithm 1 of Kingma & Welling 2013.

`Training.run` is the method. The random numbers of a step depend only on the seed and on the
number of the step, so a training that is stopped and resumed gives the same bytes as one that is
never stopped. They are drawn on the CPU and are the same for all devices.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from aevb.bounds import bound_terms, elbo
from aevb.data import ImageSet, fixed_draw, model_inputs
from aevb.exact import exact
from aevb.files import Arrays, InputError
from aevb.intervals import mean
from aevb.model import VAE
from aevb.optimiser import Optimiser
from aevb.plumbing.checkpoints import Checkpoint
from aevb.plumbing.params import Train
from aevb.rng import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HISTORY = (
    "epoch",
    "learning_rate",
    "train_elbo",
    "train_log_px_given_z",
    "train_kl",
    "validation_elbo",
    "validation_log_px_given_z",
    "validation_kl",
)


def arithmetic(precision: str, device: str) -> AbstractContextManager[Any]:
    """The context in which PyTorch computes with a precision."""
    if precision == "exact":
        return exact(fast=True)
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")


@dataclass
class State:
    """The progress of a training, in epochs and in steps of the present epoch."""

    epoch: int = 0
    step: int = 0
    best_elbo: float = -math.inf
    best_epoch: int = 0
    history: list[list[float]] = field(default_factory=list)


class Training:
    """The training of one model, which can be stopped after any step and resumed."""

    def __init__(
        self,
        model: VAE,
        train: ImageSet,
        validation: ImageSet,
        settings: Train,
        seed: int,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        self.settings, self.seed, self.device = settings, seed, device
        random = Random("initialise", seed)
        if settings.initialisation == "paper":
            model.initialise_as_in_the_paper(random)
        else:
            model.initialise(random, train.images.mean(0).flatten() / 255)
        self.model = model.to(device)
        exact_steps = precision == "exact"
        self.optimiser = Optimiser(settings.optimiser, list(model.parameters()), exact_steps)
        self.arithmetic = arithmetic(precision, device)

        pixels = train.images
        if settings.binarisation == "static":
            pixels = fixed_draw(train.images, "train", train.metadata["seed"])
        self.pixels = pixels.reshape(len(train), -1)
        x = model_inputs(validation, settings.binarisation)
        # The noise is the same in every epoch: only the weights make a difference.
        shape = (1, len(validation), model.latent_dim)
        eps = Random("validate", seed).normal(shape)
        self.validation = torch.from_numpy(x).to(device), torch.from_numpy(eps).to(device)

        self.steps = math.ceil(len(train) / settings.batch_size)
        self.sums = torch.zeros(self.steps, 2, device=device)
        weights = self.model.state_dict()
        self.best = {name: value.clone() for name, value in weights.items()}
        kept = len(settings.snapshots)
        self.snapshots = {
            name: value.new_zeros(kept, *value.shape) for name, value in weights.items()
        }
        self.state = State()

    def run(
        self,
        checkpoint: Checkpoint | None = None,
        callback: Callable[[int], Any] = lambda _: None,
    ) -> None:
        """Train until the last epoch or until patience is over, then restore the best weights.

        The best weights are those of the epoch with the highest validation ELBO; without
        validation images they are the last ones. `callback` is called with the number of each
        finished epoch.

        Raises:
            Interrupted: if a signal asks to stop; the checkpoint has then been written.
            InputError: if the training diverges.
        """
        state, settings = self.state, self.settings
        while not self.is_over():
            order = Random("order", self.seed, state.epoch).permutation(len(self.pixels))
            for step in range(state.step, self.steps):
                x, eps = self.batch(order[step * settings.batch_size :][: settings.batch_size])
                with self.arithmetic:
                    terms = bound_terms(self.model, x, eps)
                    loss = -elbo(terms).mean()
                    loss.backward()
                    self.add_gradient_of_prior()
                    self.sums[step] = torch.stack(
                        (terms.log_px_given_z.detach().mean(0).sum(), terms.kl.detach().sum())
                    )
                self.optimiser.step(self.learning_rate(step))
                state.step = step + 1
                if checkpoint is not None and checkpoint.due():
                    self.check_finite()
                    checkpoint.save(*self.state_dict())
            self.end_epoch()
            callback(state.epoch)
        if len(self.validation[0]):
            self.model.load_state_dict(self.best)

    def is_over(self) -> bool:
        """Whether it was the last epoch, or the validation ELBO has not risen for too long."""
        state, settings = self.state, self.settings
        impatient = state.epoch - state.best_epoch >= settings.patience
        return state.epoch >= settings.max_epochs or (state.best_epoch > 0 and impatient)

    def batch(self, index: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """The images and the noise of the present step, float32 [B, D] and [R, B, k].

        Images are gray levels, or zeros and ones; with dynamic binarisation they are drawn again.
        """
        random = Random("train", self.seed, self.state.epoch, self.state.step)
        pixels = self.pixels[index]
        if self.settings.binarisation == "dynamic":
            pixels = random.binarise(pixels)
        shape = (self.settings.mc_samples, len(index), self.model.latent_dim)
        x = torch.from_numpy(pixels).to(self.device, non_blocking=True).float()
        eps = torch.from_numpy(random.normal(shape)).to(self.device, non_blocking=True)
        return (x / 255 if self.settings.binarisation == "none" else x), eps

    def learning_rate(self, step: int) -> float:
        """The rate of a step of the present epoch: constant, then linearly down to 0."""
        settings = self.settings
        left = 1 - (self.state.epoch * self.steps + step) / (settings.max_epochs * self.steps)
        return settings.learning_rate * (left / settings.decay if left < settings.decay else 1)

    @torch.no_grad()
    def add_gradient_of_prior(self) -> None:
        """Add the gradient of −log p(θ) / N, N training images, to that of −ELBO per image.

        θ are the decoder's weights and biases, and p(θ) = N(0, I / weight_decay). One
        multiplication and one addition for each of them are exact on any machine.
        """
        if self.settings.weight_decay:
            share = self.settings.weight_decay / len(self.pixels)
            for weight in self.model.decoder.parameters():
                if weight.grad is not None:
                    weight.grad += weight * share

    @torch.no_grad()
    def validate(self) -> tuple[float, float]:
        """Means of log p(x|z) and of the KL over the validation images; nan if there are none."""
        x, eps = self.validation
        if not len(x):
            return math.nan, math.nan
        log_px_given_z, kl = [], []
        for images, noise in zip(x.split(1000), eps.split(1000, dim=1), strict=True):
            with self.arithmetic:
                terms = bound_terms(self.model, images, noise)
            log_px_given_z += terms.log_px_given_z.flatten().tolist()
            kl += terms.kl.tolist()
        return mean(log_px_given_z), mean(kl)

    def end_epoch(self) -> None:
        """Validate, extend the history, and keep the weights if they are the best or asked for."""
        state = self.state
        rate = self.learning_rate(self.steps - 1)
        log_px_given_z, kl = (math.fsum(sums) / len(self.pixels) for sums in self.sums.T.tolist())
        train = [log_px_given_z - kl, log_px_given_z, kl]
        log_px_given_z, kl = self.validate()
        validation = [log_px_given_z - kl, log_px_given_z, kl]
        self.check_finite(validation[0])
        state.epoch += 1
        state.step = 0
        state.history.append([state.epoch, rate, *train, *validation])
        weights = self.model.state_dict().items()
        if validation[0] > state.best_elbo:
            state.best_elbo, state.best_epoch = validation[0], state.epoch
            for name, value in weights:
                self.best[name].copy_(value)
        if state.epoch in self.settings.snapshots:
            for name, value in weights:
                self.snapshots[name][self.settings.snapshots.index(state.epoch)] = value

    def check_finite(self, validation_elbo: float = 0.0) -> None:
        """Raise an InputError, before anything is saved, if a term or a weight is not finite."""
        steps = self.sums[: self.state.step].isfinite().all(1).tolist()
        weights = all(bool(weight.isfinite().all()) for weight in self.model.parameters())
        if not all(steps) or not weights or math.isinf(validation_elbo):
            step = steps.index(False) if False in steps else len(steps) - 1
            raise InputError(
                f"training diverged in epoch {self.state.epoch + 1}, step {step + 1}, at learning "
                f"rate {self.learning_rate(step):.3g}: the ELBO or a weight is not finite; "
                "lower train.learning_rate"
            )

    def tensors(self) -> dict[str, Tensor]:
        """The tensors on which the rest of the run depends."""
        return {
            **{f"model.{name}": value for name, value in self.model.state_dict().items()},
            **{f"best.{name}": value for name, value in self.best.items()},
            **{f"snapshots.{name}": value for name, value in self.snapshots.items()},
            **{f"optimiser.{name}": value for name, value in self.optimiser.state_dict().items()},
            "sums": self.sums,
        }

    def state_dict(self) -> tuple[Arrays, dict[str, Any]]:
        """Everything on which the rest of the run depends: arrays, and values for JSON."""
        arrays: Arrays = {name: value.cpu().numpy() for name, value in self.tensors().items()}
        return arrays, vars(self.state)

    def load_state_dict(self, arrays: Arrays, state: dict[str, Any]) -> None:
        """Resume from what `state_dict` returned.

        Raises:
            InputError: if it belongs to another training; this one is then unchanged.
        """
        own, _ = self.state_dict()
        forms = [{key: (x.shape, x.dtype) for key, x in some.items()} for some in (own, arrays)]
        try:
            loaded = State(**state)
            rows = [loaded.best_elbo, loaded.best_epoch], *loaded.history
            fits = len(loaded.history) == loaded.epoch and 0 <= loaded.step <= self.steps
            fits = fits and all(isinstance(x, int | float) for row in rows for x in row)
            fits = fits and {*map(len, loaded.history)} <= {len(HISTORY)}
        except TypeError:
            fits = False
        if not fits or state.keys() != vars(self.state).keys() or forms[0] != forms[1]:
            raise InputError("holds the state of another training")
        for name, tensor in self.tensors().items():
            tensor.copy_(torch.from_numpy(arrays[name].copy()))
        self.state = loaded
