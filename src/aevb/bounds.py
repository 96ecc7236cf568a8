"""The closed-form KL term, the Monte Carlo ELBO and the importance-weighted bound.

All values are in nats per image, with shapes [R, B] and [B] for R samples and B images; the caller
averages over images. Signs: kl ≥ 0, and elbo = log_px_given_z − kl is a lower bound of log p(x).
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class LatentVariableModel(Protocol):
    """What the bounds use of a model with prior N(0, I)."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """mu and log sigma² of q(z|x), each [B, k]."""

    def log_px_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z), [R, B], for latents [R, B, k]."""


class Terms(NamedTuple):
    """The terms of the bounds for B images with R samples of z each."""

    log_px_given_z: Tensor
    """log p(x|z), [R, B]."""
    kl: Tensor
    """KL(q(z|x) ‖ p(z)) in closed form, [B]."""
    mu: Tensor
    """Mean of q(z|x), [B, k]."""
    log_var: Tensor
    """log sigma² of q(z|x), [B, k]."""


def kl_per_dimension(mu: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mu, sigma²) ‖ N(0, 1)) = (mu² + sigma² − 1 − log sigma²) / 2, elementwise.

    Kingma & Welling, appendix B. expm1 is accurate where sigma² is close to 1.
    """
    return (mu.square() + torch.expm1(log_var) - log_var) / 2


def reparameterise(mu: Tensor, log_var: Tensor, eps: Tensor) -> Tensor:
    """z = mu + sigma ⊙ eps, [R, B, k], for eps ~ N(0, I) of that shape: section 2.4."""
    return mu + torch.exp(log_var / 2) * eps


def bound_terms(model: LatentVariableModel, x: Tensor, eps: Tensor) -> Terms:
    """The terms for images [B, D] and noise [R, B, k], differentiable in the model's weights."""
    return encoded_terms(model, x, *model.encode(x), eps)


def encoded_terms(
    model: LatentVariableModel, x: Tensor, mu: Tensor, log_var: Tensor, eps: Tensor
) -> Terms:
    """The same for images that are already encoded as mu and log sigma², each [B, k]."""
    log_px_given_z = model.log_px_given_z(x, reparameterise(mu, log_var, eps))
    return Terms(log_px_given_z, kl_per_dimension(mu, log_var).sum(-1), mu, log_var)


def elbo(terms: Terms) -> Tensor:
    """The estimator −KL + 1/R Σ log p(x|z), [B]: Kingma & Welling, equation 10."""
    return terms.log_px_given_z.mean(0) - terms.kl


def log_importance_weights(terms: Terms, eps: Tensor) -> Tensor:
    """log w = log p(x|z) + log p(z) − log q(z|x), [R, B], for the noise of the terms."""
    z = reparameterise(terms.mu, terms.log_var, eps)
    return terms.log_px_given_z + (terms.log_var + eps.square() - z.square()).sum(-1) / 2


def iwae_bound(log_weights: Tensor) -> Tensor:
    """log 1/K Σ w, [B], for log weights [K, B]: Burda et al. 2015 (arXiv:1509.00519), equation 8.

    Its expectation is at least the ELBO and increases with K towards log p(x).
    """
    return torch.logsumexp(log_weights, 0) - log_weights.new_tensor(len(log_weights)).log()
