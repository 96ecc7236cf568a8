"""Adam and Adagrad without the time that torch.optim takes to import."""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.adagrad import adagrad
from torch.optim.adam import adam

Floats = NDArray[np.float32]

BETA_1, BETA_2 = 0.9, 0.999
EPSILON = {"adam": 1e-8, "adagrad": 1e-10}
BLOCK = 1 << 15
"""Weights that are updated at a time in exact arithmetic: few enough to be cached."""


def exact_adam(
    weight: Floats, gradient: Floats, mean: Floats, mean_square: Floats, rate: float, epsilon: float
) -> None:
    """One step, for a rate and an epsilon that contain the corrections of bias, in place."""
    mean *= BETA_1
    mean += gradient * (1 - BETA_1)
    mean_square *= BETA_2
    gradient = gradient * gradient
    gradient *= 1 - BETA_2
    mean_square += gradient
    root = np.sqrt(mean_square)
    root += epsilon
    step = mean * rate
    step /= root
    weight -= step


def exact_adagrad(
    weight: Floats, gradient: Floats, _: Floats, sum_square: Floats, rate: float, epsilon: float
) -> None:
    """One step, in place."""
    sum_square += gradient * gradient
    root = np.sqrt(sum_square)
    root += epsilon
    step = gradient * rate
    step /= root
    weight -= step


class Optimiser:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980) or Adagrad, by PyTorch's own fused functions.

    They are called without the classes of torch.optim: creating one of those imports PyTorch's
    compiler, which takes longer than a third of a short training.

    With `exact`, for weights on the CPU, the same steps are done in NumPy, as single additions,
    multiplications, divisions and square roots: IEEE 754 prescribes each bit of the weights.
    """

    def __init__(
        self, name: str, parameters: list[torch.nn.Parameter], exact: bool = False
    ) -> None:
        self.name, self.exact = name, exact
        self.parameters: list[Tensor] = [*parameters]
        self.rate = torch.zeros((), device=parameters[0].device)
        self.steps = [torch.zeros_like(self.rate) for _ in parameters]
        self.mean = [torch.zeros_like(weight) for weight in parameters]
        self.mean_square = [torch.zeros_like(weight) for weight in parameters]
        self.powers = [torch.ones(2, dtype=torch.float64)]  # of the two betas

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move the parameters against their gradients, then clear these."""
        self.rate.fill_(rate)
        gradients = [weight.grad for weight in self.parameters if weight.grad is not None]
        if self.exact:
            self.exact_step(gradients, rate)
        elif self.name == "adam":
            adam(
                *(self.parameters, gradients, self.mean, self.mean_square, [], self.steps),
                beta1=BETA_1,
                beta2=BETA_2,
                eps=EPSILON["adam"],
                amsgrad=False,
                lr=self.rate,
                weight_decay=0,
                maximize=False,
                fused=True,
            )
        else:  # Adagrad sums squares instead of averaging them
            adagrad(
                *(self.parameters, gradients, self.mean_square, self.steps),
                fused=True,
                lr=self.rate,
                weight_decay=0,
                lr_decay=0,
                eps=EPSILON["adagrad"],
                maximize=False,
            )
        for weight in self.parameters:
            weight.grad = None

    def exact_step(self, gradients: list[Tensor], rate: float) -> None:
        """The same step in exact arithmetic."""
        step: Callable[..., None] = exact_adagrad
        epsilon = EPSILON[self.name]
        if self.name == "adam":
            step = exact_adam
            powers = self.powers[0].numpy()
            powers *= (BETA_1, BETA_2)
            root = math.sqrt(1 - powers[1])
            rate, epsilon = rate * root / float(1 - powers[0]), epsilon * root
        for tensors in zip(*(self.parameters, gradients, self.mean, self.mean_square), strict=True):
            arrays = [tensor.detach().contiguous().view(-1).numpy() for tensor in tensors]
            for start in range(0, len(arrays[0]), BLOCK):
                block = (array[start : start + BLOCK] for array in arrays)
                with np.errstate(all="ignore"):  # a training that diverges is reported elsewhere
                    step(*block, rate, epsilon)

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors on which the next steps depend, by name."""
        lists = {"mean": self.mean, "mean_square": self.mean_square}
        lists |= {"powers": self.powers} if self.exact else {"steps": self.steps}
        return {f"{key}.{i}": tensor for key in lists for i, tensor in enumerate(lists[key])}
