"""Maximising the Monte Carlo ELBO: one loop, which reads from top to bottom.

The images lie on the device as bytes, a permutation picks each batch, and every random number
comes from one generator whose state is part of the checkpoint. So a run that is stopped anywhere
and taken up again ends with the same bytes as one that was left alone.
"""

import logging
import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector
from torch.optim.adagrad import adagrad
from torch.optim.adam import adam

from aevb.bounds import bound_terms
from aevb.data import PIXELS, ImageSet, fixed_draw, model_inputs
from aevb.files import Arrays, InputError
from aevb.gradients import loss_gradient
from aevb.model import VAE
from aevb.plumbing.checkpoints import Checkpoint
from aevb.plumbing.devices import CudaGraph
from aevb.plumbing.params import Train
from aevb.rng import generator, torch_generator

log = logging.getLogger("aevb")

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


def learning_rate(progress: float, settings: Train) -> float:
    """The rate at a share of the whole training, in [0, 1): a plateau, then a line down to 0."""
    left = 1 - progress
    return settings.learning_rate * (left / settings.decay if left < settings.decay else 1)


@dataclass
class State:
    """Where a training stands, beside its weights, its optimiser and its generator."""

    epoch: int = 0
    step: int = 0
    best_elbo: float = -math.inf
    best_epoch: int = 0
    history: list[list[float]] = field(default_factory=list)

    def patience_is_over(self, patience: int) -> bool:
        """Whether the validation ELBO has not risen for so many epochs."""
        return self.best_epoch > 0 and self.epoch - self.best_epoch >= patience


class Training:
    """A training that can be stopped after any step: its parts, its state and their transport."""

    def __init__(
        self,
        model: VAE,
        train: ImageSet,
        validation: ImageSet,
        settings: Train,
        seed: int,
        device: str,
        precision: str,
    ) -> None:
        self.settings, self.device = settings, device
        mean_image = torch.from_numpy(train.images.mean(0).flatten() / 255).float()
        # One stream for the initial weights, made on the CPU so that all devices start alike.
        model.initialise(torch_generator("cpu", "initialise", seed), mean_image)
        self.model = model.to(device)
        self.weights = one_vector(self.model)
        # The model in the precision of the products: a copy that follows the weights, or itself.
        self.low, self.low_weights = self.model, self.weights
        if precision == "bfloat16":
            self.low = deepcopy(self.model).bfloat16()
            self.low_weights = one_vector(self.low)
        self.gradient = torch.zeros_like(self.weights)
        self.low_gradient = self.gradient
        if precision == "bfloat16":
            self.low_gradient = torch.zeros_like(self.low_weights)
        self.slopes = views(self.low_gradient, self.low)
        self.optimiser = Optimiser(settings.optimiser, self.weights)
        self.generator = torch_generator(device, "train", seed)
        pixels = train.images
        if settings.binarisation == "static":
            pixels = fixed_draw(train.images, "train", train.metadata["seed"]) * np.uint8(255)
        self.pixels = torch.from_numpy(pixels).flatten(1).to(device)
        self.loss_gradient = loss_gradient(self.low, self.pixels[:8] / 255, settings.mc_samples)
        self.validation: tuple[Tensor, Tensor] | None = None
        if len(validation):
            # The same noise in every epoch, so that epochs differ by their weights alone.
            shape = (1, len(validation), model.latent_dim)
            eps = generator("validate", seed).standard_normal(shape, np.float32)
            x = model_inputs(validation, settings.binarisation)
            self.validation = torch.from_numpy(x).to(device), torch.from_numpy(eps).to(device)
        self.steps = math.ceil(len(train) / settings.batch_size)
        self.sums = torch.zeros(self.steps, 2, device=device)
        self.order = torch.arange(len(train), device=device)
        self.best = self.weights.clone()
        self.state = State()
        self.graph: CudaGraph | None = None
        # A smaller last batch is not worth a graph of its own.
        if device == "cuda" and len(train) >= settings.batch_size:
            start, _ = self.pack()
            index = self.order[: settings.batch_size]
            self.graph = CudaGraph(self.step, index, self.generator)
            self.unpack(start, vars(State()))

    def run(
        self, checkpoint: Checkpoint | None = None, callback: Callable[[int], Any] = lambda _: None
    ) -> None:
        """Train to the last epoch or until patience is over, then hold the best weights.

        `told` hears each epoch's number. With a validation set the best weights are those of the
        epoch with the highest validation ELBO, without one the last.

        Raises:
            Interrupted: if a signal asked to stop; the checkpoint is written then.
            InputError: if the training diverges.
        """
        state, settings = self.state, self.settings
        while state.epoch < settings.max_epochs and not state.patience_is_over(settings.patience):
            if state.step == 0:
                self.order = torch.randperm(
                    len(self.pixels), generator=self.generator, device=self.device
                )
            for index in self.order.split(settings.batch_size)[state.step :]:
                self.optimiser.rate.fill_(self.learning_rate(state.step))
                whole = len(index) == settings.batch_size
                step = self.graph if self.graph is not None and whole else self.step
                self.sums[state.step] = step(index)
                state.step += 1
                if checkpoint is not None and checkpoint.due():
                    self.check_finite()
                    checkpoint.save(*self.pack())
            self.end_epoch()
            callback(state.epoch)
        if self.validation is not None:
            self.weights.copy_(self.best)

    def learning_rate(self, step: int) -> float:
        """The rate of a step in the present epoch."""
        total = self.settings.max_epochs * self.steps
        return learning_rate((self.state.epoch * self.steps + step) / total, self.settings)

    def batch(self, index: Tensor) -> Tensor:
        """The images of one step, float32 [B, D]: gray levels, or zeros and ones.

        Dynamic binarisation compares 257 × pixel with integers of 16 bits, whose largest counts as
        the last but one: white stays white, and otherwise P(1) is pixel / 255 less 0.0015 % of it.
        Four such integers are drawn as one, in a quarter of the time.
        """
        pixels = self.pixels.index_select(0, index)
        if self.settings.binarisation == "dynamic":
            words = torch.empty(len(index), PIXELS // 4, dtype=torch.int64, device=self.device)
            words.random_(-(2**63), None, generator=self.generator)
            level = pixels.short().mul_(257).sub_(2**15)
            return words.view(torch.int16).clamp_(max=2**15 - 2).lt_(level).float()
        return pixels.float() / 255

    def step(self, index: Tensor) -> Tensor:
        """One step on the images of an index; returns the sums of log p(x|z) and of the KL."""
        return self.update(self.batch(index))

    def update(self, x: Tensor) -> Tensor:
        """One step on a batch; returns the sums of log p(x|z) and of the KL over it."""
        shape = (self.settings.mc_samples, len(x), self.model.latent_dim)
        eps = torch.randn(shape, generator=self.generator, device=self.device)
        self.low_weights.copy_(self.weights)
        log_px_given_z, kl = self.loss_gradient(self.low, self.slopes, x, eps)
        self.gradient.copy_(self.low_gradient)
        self.optimiser.step(self.weights, self.gradient)
        return torch.stack((log_px_given_z.sum(), kl.sum()))

    @torch.inference_mode()
    def validate(self) -> tuple[float, float]:
        """Means of log p(x|z) and of the KL over the validation images; nan without any."""
        if self.validation is None:
            return math.nan, math.nan
        sums = torch.zeros(2, dtype=torch.float64)
        self.low_weights.copy_(self.weights)
        x, eps = self.validation
        for images, noise in zip(x.split(200), eps.split(200, dim=1), strict=True):
            terms = bound_terms(self.low, images, noise)
            sums[0] += terms.log_px_given_z.double().sum().cpu()
            sums[1] += terms.kl.double().sum().cpu()
        return sums[0].item() / len(x), sums[1].item() / len(x)

    def check_finite(self, validation_elbo: float = 0.0) -> None:
        """See that terms and weights are numbers: no checkpoint holds a diverged training.

        Raises:
            InputError: naming epoch, step and learning rate.
        """
        steps = self.sums[: self.state.step].isfinite().all(1).tolist()
        whole = math.isfinite(validation_elbo) and bool(self.weights.isfinite().all())
        if not all(steps) or not whole:
            step = steps.index(False) if False in steps else len(steps) - 1
            raise InputError(
                f"training diverged in epoch {self.state.epoch + 1}, step {step + 1}, at learning "
                f"rate {self.learning_rate(step):.3g}: the ELBO or a weight is not finite; "
                "lower train.learning_rate"
            )

    def end_epoch(self) -> None:
        """Validate, keep the best weights, write a line of history.

        Raises:
            InputError: if the training diverged.
        """
        state = self.state
        rate = self.learning_rate(self.steps - 1)
        log_px_given_z, kl = (self.sums.cpu().double().sum(0) / len(self.pixels)).tolist()
        train = [log_px_given_z - kl, log_px_given_z, kl]
        log_px_given_z, kl = self.validate()
        validation = [log_px_given_z - kl, log_px_given_z, kl]
        self.check_finite(0.0 if self.validation is None else validation[0])
        state.epoch += 1
        state.step = 0
        state.history.append([state.epoch, rate, *train, *validation])
        if validation[0] > state.best_elbo:
            state.best_elbo, state.best_epoch = validation[0], state.epoch
            self.best.copy_(self.weights)
        log.debug(
            "epoch %d of %d: ELBO %.2f (train), %.2f (validation), learning rate %.2g",
            *(state.epoch, self.settings.max_epochs, train[0], validation[0], rate),
        )

    def tensors(self) -> dict[str, Tensor]:
        """All that the rest of the training depends on, beside `state`."""
        return {
            "weights": self.weights,
            "best": self.best,
            "generator": self.generator.get_state(),
            "order": self.order,
            "sums": self.sums,
            **self.optimiser.state,
        }

    def pack(self) -> tuple[Arrays, dict[str, Any]]:
        """Everything that the rest of the training depends on."""
        return {key: value.cpu().numpy() for key, value in self.tensors().items()}, vars(self.state)

    def unpack(self, arrays: Arrays, state: dict[str, Any]) -> None:
        """Take up a training from what `pack` gave.

        Raises:
            InputError: if it came from another training; this one is then as it was.
        """
        own, _ = self.pack()
        forms = [{key: (x.shape, x.dtype) for key, x in some.items()} for some in (own, arrays)]
        try:
            taken = State(**state)
            whole = state.keys() == vars(self.state).keys() and forms[0] == forms[1]
            fits = len(taken.history) == taken.epoch and 0 <= taken.step <= self.steps
        except TypeError:
            whole = fits = False
        if not (whole and fits):
            raise InputError("holds the state of another training")
        for key, tensor in self.tensors().items():
            tensor.copy_(torch.from_numpy(arrays[key].copy()))
        self.generator.set_state(torch.from_numpy(arrays["generator"].copy()))
        self.state = taken


class Optimiser:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980) or Adagrad on one vector, in one fused pass over it.

    The functions behind torch.optim, whose classes import the compiler first, in 2 s.
    """

    def __init__(self, name: str, weights: Tensor) -> None:
        self.rate = torch.zeros((), device=weights.device)
        sums = {"adam": ("exp_avg", "exp_avg_sq"), "adagrad": ("sum",)}[name]
        self.state = {
            "step": torch.zeros((), device=weights.device),
            **{key: torch.zeros_like(weights) for key in sums},
        }
        self.rule: Callable[..., None] = (
            partial(adam, max_exp_avg_sqs=[], beta1=0.9, beta2=0.999, eps=1e-8, amsgrad=False)
            if name == "adam"
            else partial(adagrad, lr_decay=0, eps=1e-10)
        )

    def step(self, weights: Tensor, gradient: Tensor) -> None:
        """Move the weights against the gradient, at `rate`."""
        step, *sums = self.state.values()
        self.rule(
            *([weights], [gradient], *([some] for some in sums)),
            state_steps=[step],
            lr=self.rate,
            weight_decay=0,
            maximize=False,
            fused=True,
        )


def one_vector(model: VAE) -> Tensor:
    """A model's weights in one vector, whose views the model's then are.

    A step is then one pass over the vector instead of a call for each matrix.
    """
    weights = parameters_to_vector(model.parameters()).detach()
    for parameter, part in zip(model.parameters(), views(weights, model), strict=True):
        parameter.data = part
    return weights


def views(vector: Tensor, model: VAE) -> list[Tensor]:
    """A vector of all weights as one tensor for each of the model's."""
    parameters = list(model.parameters())
    parts = vector.split([parameter.numel() for parameter in parameters])
    return [part.view_as(parameter) for part, parameter in zip(parts, parameters, strict=True)]
