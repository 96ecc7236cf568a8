"""The gradient of the ELBO for the default model, written out: a Bernoulli, one sample an image.

Autograd gives the same to rounding and serves everything else; this takes fewer passes over memory.
What that saves is measured in docs/benchmarks.md.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from aevb.bounds import kl_per_dimension
from aevb.likelihoods import log_prob_and_mean


@torch.no_grad()
def bernoulli_gradient(
    weights: Sequence[Tensor], gradients: Sequence[Tensor], x: Tensor, eps: Tensor
) -> tuple[Tensor, Tensor]:
    """Write the gradient of −mean(ELBO) over a batch; return the sums of log p(x|z) and of the KL.

    Args:
        weights: matrix [outputs, inputs] and bias of each of the four layers of a `VAE`, in their
            order and in the precision of the products.
        gradients: where their gradients go, of the same shapes, in the precision of `x`.
        x: images [B, D].
        eps: noise [B, k].

    Equation 10 and appendices B and C by the chain rule: each `d_` is the gradient by what it
    names, or by that before its tanh.
    """
    w1, b1, w2, b2, w3, b3, w4, b4 = weights
    high, low = x.dtype, w1.dtype
    inputs = x.to(low)
    h1 = torch.addmm(b1, inputs, w1.t()).tanh_()
    mu, log_var = torch.addmm(b2, h1, w2.t()).to(high).chunk(2, -1)
    noise = torch.exp(log_var / 2).mul_(eps)
    z = (mu + noise).to(low)
    h2 = torch.addmm(b3, z, w3.t()).tanh_()
    logits = torch.addmm(b4, h2, w4.t()).to(high)
    log_px_given_z, mean = log_prob_and_mean(x, logits)

    share = 1 / len(x)
    d_logits = mean.sub_(x).mul_(share).to(low)
    linear(gradients[6:], d_logits, h2)
    d_h2 = torch.ops.aten.tanh_backward(d_logits @ w4, h2)
    linear(gradients[4:6], d_h2, z)
    d_z = (d_h2 @ w3).to(high)
    d_mu = torch.add(d_z, mu, alpha=share)
    d_log_var = torch.add(noise.mul_(d_z), torch.expm1(log_var), alpha=share).mul_(0.5)
    d_output = torch.cat((d_mu, d_log_var), -1).to(low)
    linear(gradients[2:4], d_output, h1)
    d_h1 = torch.ops.aten.tanh_backward(d_output @ w2, h1)
    linear(gradients[:2], d_h1, inputs)
    return log_px_given_z.sum(), kl_per_dimension(mu, log_var).sum()


def linear(gradients: Sequence[Tensor], d_outputs: Tensor, inputs: Tensor) -> None:
    """Write the gradients of a linear layer's matrix and bias."""
    matrix, bias = gradients
    if matrix.dtype == d_outputs.dtype:
        torch.mm(d_outputs.t(), inputs, out=matrix)
    else:
        matrix.copy_(d_outputs.t() @ inputs)
    torch.sum(d_outputs, 0, dtype=bias.dtype, out=bias)
