"""A model whose log p(x), ELBO and posterior are known in closed form: probabilistic PCA."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

D, K = 12, 3
S = 0.7


@dataclass
class LinearGaussian:
    """p(x|z) = N(W z + b, s² I) and q(z|x) = N(A (x − b), diag v), all in float64.

    The columns of W are orthogonal, so that the exact posterior has a diagonal covariance.
    """

    w: Tensor
    b: Tensor
    a: Tensor
    v: Tensor
    latent_dim: int = K

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu = (x.double() - self.b) @ self.a.T
        return mu, self.v.log().expand_as(mu)

    def log_px_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        distance = (x.double() - self.b - z.double() @ self.w.T).square().sum(-1)
        return -distance / (2 * S**2) - D / 2 * math.log(2 * math.pi * S**2)

    def posterior(self, x: Tensor, beta: float = 1) -> tuple[Tensor, Tensor]:
        """Mean [B, k] and variances [k] of the Gaussian p(z) p(x|z)^beta."""
        precision = 1 + beta * self.w.square().sum(0) / S**2
        return beta * (x.double() - self.b) @ self.w / S**2 / precision, 1 / precision

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Of x."""
        return (self.w @ self.w.T + S**2 * torch.eye(D)).numpy()

    def draw(self, count: int, seed: int = 0) -> NDArray[np.float32]:
        random = np.random.default_rng(seed)
        x = random.multivariate_normal(self.b.numpy(), self.covariance, count)
        return x.astype(np.float32)

    def draw_both(self, count: int, seed: int = 0) -> tuple[NDArray[np.float32], ...]:
        """x, and the z of each, which is a draw of its posterior."""
        random = np.random.default_rng(seed)
        z = random.standard_normal((count, K))
        x = z @ self.w.numpy().T + self.b.numpy() + S * random.standard_normal((count, D))
        return x.astype(np.float32), z.astype(np.float32)

    def log_px(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        return stats.multivariate_normal(self.b.numpy(), self.covariance).logpdf(x)

    def residual(self, x: Tensor) -> Tensor:
        """x less its reconstruction from the mean of q(z|x)."""
        return x - self.b - self.encode(x)[0] @ self.w.T

    def elbo_terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of log p(x|z) over q(z|x) and the KL term, [B] each, differentiable."""
        mu, log_var = self.encode(x)
        spread = (self.v * self.w.square().sum(0)).sum()
        distance = self.residual(x).square().sum(-1) + spread
        mean = -distance / (2 * S**2) - D / 2 * math.log(2 * math.pi * S**2)
        return mean, (mu.square() + self.v - 1 - log_var).sum(-1) / 2

    def mean_log_px_given_z(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        return self.elbo_terms(torch.from_numpy(x))[0].numpy()

    def kl(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        return self.elbo_terms(torch.from_numpy(x))[1].numpy()

    def noise(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Standard deviation over q(z|x) of log p(x|z), which is quadratic in the noise."""
        u = self.w * self.v.sqrt()
        linear = 4 * (self.residual(torch.from_numpy(x)) @ u).square().sum(-1)
        return ((linear + 2 * (u.T @ u).square().sum()) / (4 * S**4)).sqrt().numpy()


def model(wrong: float = 0) -> LinearGaussian:
    """The model with its exact posterior as encoder, or with one that is wrong by so much."""
    random = np.random.default_rng(7)
    directions = np.linalg.qr(random.standard_normal((D, K)))[0]
    w = torch.from_numpy(directions * [2.0, 1.0, 0.5])
    b = torch.from_numpy(random.standard_normal(D))
    precision = 1 + w.square().sum(0) / S**2
    a = w.T / S**2 / precision[:, None]
    error = torch.from_numpy(random.standard_normal((K, D)))
    return LinearGaussian(
        w, b, a + wrong * 0.1 * error, torch.exp(0.8 * torch.tensor(wrong)) / precision
    )


def z_score(values: NDArray[np.floating]) -> float:
    """The mean in standard errors."""
    values = np.asarray(values, float)
    return float(values.mean() / stats.sem(values))
