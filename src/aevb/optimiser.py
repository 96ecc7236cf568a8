"""Adam and Adagrad without the time that torch.optim takes to import."""

import torch
from torch import Tensor
from torch.optim.adagrad import adagrad
from torch.optim.adam import adam


class Optimiser:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980) or Adagrad, by PyTorch's own fused functions.

    They are called without the classes of torch.optim: creating one of those imports PyTorch's
    compiler, which takes longer than a third of a short training.
    """

    def __init__(self, name: str, parameters: list[torch.nn.Parameter]) -> None:
        self.name = name
        self.parameters: list[Tensor] = [*parameters]
        self.rate = torch.zeros((), device=parameters[0].device)
        self.steps = [torch.zeros_like(self.rate) for _ in parameters]
        self.mean = [torch.zeros_like(weight) for weight in parameters]
        self.mean_square = [torch.zeros_like(weight) for weight in parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move the parameters against their gradients, then clear these."""
        self.rate.fill_(rate)
        gradients = [weight.grad for weight in self.parameters if weight.grad is not None]
        if self.name == "adam":
            adam(
                *(self.parameters, gradients, self.mean, self.mean_square, [], self.steps),
                beta1=0.9,
                beta2=0.999,
                eps=1e-8,
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
                eps=1e-10,
                maximize=False,
            )
        for weight in self.parameters:
            weight.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors on which the next steps depend, by name."""
        lists = {"steps": self.steps, "mean": self.mean, "mean_square": self.mean_square}
        return {f"{key}.{i}": tensor for key in lists for i, tensor in enumerate(lists[key])}
