"""The gradient of the loss −mean(ELBO) by a model's weights.

Autograd serves every model. The default, a Bernoulli with one sample an image, is written out: the
same bytes at the default sizes on the CPUs where both were run, in fewer passes over memory and
fewer calls. What that saves is measured in docs/benchmarks.md.
"""

import copy
import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aevb.bounds import bound_terms, elbo, kl_per_dimension, reparameterise
from aevb.likelihoods import bernoulli_log_prob_and_mean
from aevb.model import VAE

log = logging.getLogger("aevb")

LossGradient = Callable[[VAE, Sequence[Tensor], Tensor, Tensor], tuple[Tensor, Tensor]]


def loss_gradient(model: VAE, x: Tensor, mc_samples: int) -> LossGradient:
    """What takes a model's gradient: the written-out code where it fits, else autograd.

    Both are tried on a few images [B, D], since a change of model or bound alone, another
    activation say, would leave the one behind and the loss quietly wrong: in float32, on weights so
    large that tanh and exp are curved and a limit of any output would be met.
    """
    if model.likelihood_name != "bernoulli" or mc_samples != 1:
        return autograd
    large = copy.deepcopy(model).float()
    with torch.no_grad():
        for weight in large.parameters():
            weight.mul_(10)
    eps = torch.linspace(-2, 2, len(x) * model.latent_dim, device=x.device).view(1, len(x), -1)
    expected = tried(autograd, large, x, eps)
    try:
        found = tried(bernoulli, large, x, eps)
    except (RuntimeError, ValueError):  # layers of other shapes, or more of them
        found = []
    if found and all(
        (one - other).norm() <= 1e-3 * other.norm()
        for one, other in zip(found, expected, strict=True)
    ):
        return bernoulli
    log.warning("the written-out gradient in gradients.py is not this model's: autograd serves")
    return autograd


def tried(take: LossGradient, model: VAE, x: Tensor, eps: Tensor) -> list[Tensor]:
    """What it returns and what it writes."""
    gradients = [torch.zeros_like(weight) for weight in model.parameters()]
    return [*take(model, gradients, x, eps), *gradients]


def autograd(
    model: VAE, gradients: Sequence[Tensor], x: Tensor, eps: Tensor
) -> tuple[Tensor, Tensor]:
    """Write the gradient over a batch; return log p(x|z), mean over samples, and the KL, each [B].

    Args:
        model: what is differentiated, its weights in the precision of the products.
        gradients: where the gradients go, one for each of its parameters, of the same shapes.
        x: images [B, D].
        eps: noise [R, B, k].
    """
    terms = bound_terms(model, x, eps)
    found = torch.autograd.grad(-elbo(terms).mean(), [*model.parameters()])
    for gradient, value in zip(gradients, found, strict=True):
        gradient.copy_(value)
    return terms.log_px_given_z.detach().mean(0), terms.kl.detach()


@torch.no_grad()
def bernoulli(
    model: VAE, gradients: Sequence[Tensor], x: Tensor, eps: Tensor
) -> tuple[Tensor, Tensor]:
    """The same for a Bernoulli and one sample an image.

    Equation 10 and appendices B and C by the chain rule. Each `d_` is the gradient by what it
    names; by a layer's outputs before their tanh, where it has one.
    """
    w1, b1, w2, b2, w3, b3, w4, b4 = model.parameters()
    high, low = x.dtype, w1.dtype
    inputs = x.to(low)
    h1 = torch.addmm(b1, inputs, w1.t()).tanh_()
    mu, log_var = torch.addmm(b2, h1, w2.t()).to(high).chunk(2, -1)
    z = reparameterise(mu, log_var, eps[0]).to(low)
    h2 = torch.addmm(b3, z, w3.t()).tanh_()
    logits = torch.addmm(b4, h2, w4.t()).to(high)
    log_px_given_z, mean = bernoulli_log_prob_and_mean(x, logits)

    share = 1 / len(x)
    d_logits = mean.sub_(x).mul_(share).to(low)
    d_h2 = tanh_backward(linear_backward(gradients[6:], d_logits, h2) @ w4, h2)
    d_z = (linear_backward(gradients[4:6], d_h2, z) @ w3).to(high)
    d_mu = mu * share + d_z
    d_sigma = d_z * eps[0]
    # (sigma² − 1) / 2 in autograd's steps, from the KL; then what comes through z.
    d_log_var = torch.expm1(log_var).add_(1).mul_(share / 2).sub_(share / 2)
    d_log_var += d_sigma.mul_(torch.exp(log_var / 2)).div_(2)
    d_output = torch.cat((d_mu, d_log_var), -1).to(low)
    d_h1 = tanh_backward(linear_backward(gradients[2:4], d_output, h1) @ w2, h1)
    linear_backward(gradients[:2], d_h1, inputs)
    return log_px_given_z, kl_per_dimension(mu, log_var).sum(-1)


def linear_backward(gradients: Sequence[Tensor], d_outputs: Tensor, inputs: Tensor) -> Tensor:
    """Write the gradients of a linear layer's matrix and bias; return that of its outputs."""
    matrix, bias = gradients[:2]
    torch.mm(d_outputs.t(), inputs, out=matrix)
    torch.sum(d_outputs, 0, out=bias)
    return d_outputs


def tanh_backward(d_h: Tensor, h: Tensor) -> Tensor:
    """The gradient by what h is the tanh of."""
    result: Tensor = torch.ops.aten.tanh_backward(d_h, h)
    return result
