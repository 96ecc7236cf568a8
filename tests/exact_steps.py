"""Print digests of a few steps in exact arithmetic, for comparison between machines.

It needs PyTorch and NumPy alone, so that it runs under emulation.
"""

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[1] / "src"))

from aevb import elementary
from aevb.bounds import bound_terms, elbo, iwae_bound, log_importance_weights
from aevb.exact import exact
from aevb.likelihoods import LIKELIHOODS
from aevb.optimiser import Optimiser

STEPS, BATCH, LATENT, HIDDEN, PIXELS = 5, 50, 5, 64, 784


def uniform(raw: np.random.Philox, *shape: int) -> NDArray[np.float64]:
    """Numbers in [0, 1) from the raw bits, which NumPy promises not to change."""
    count = int(np.prod(shape))
    return ((raw.random_raw(count) >> np.uint64(11)) * 2.0**-53).reshape(shape)


def normal(raw: np.random.Philox, *shape: int) -> Tensor:
    radius = np.sqrt(-2 * elementary.log(1 - uniform(raw, *shape)))
    cos, _ = elementary.cos_sin_turns(uniform(raw, *shape))
    return torch.from_numpy((radius * cos).astype(np.float32))


class SmallVAE(nn.Module):
    """The model of `aevb.model`, without that module's other imports."""

    def __init__(self, likelihood: str, raw: np.random.Philox) -> None:
        super().__init__()
        self.likelihood = LIKELIHOODS[likelihood]
        outputs = self.likelihood.outputs * PIXELS
        self.e, self.o = nn.Linear(PIXELS, HIDDEN), nn.Linear(HIDDEN, 2 * LATENT)
        self.d, self.x = nn.Linear(LATENT, HIDDEN), nn.Linear(HIDDEN, outputs)
        with torch.no_grad():
            for weight in self.parameters():
                start = (uniform(raw, *weight.shape) - 0.5) * 0.2
                weight.copy_(torch.from_numpy(start.astype(np.float32)))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, log_var = self.o(torch.tanh(self.e(x))).chunk(2, -1)
        return mu, log_var

    def log_px_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        return self.likelihood.log_prob(x, self.x(torch.tanh(self.d(z))))

    def mean(self, z: Tensor) -> Tensor:
        return self.likelihood.mean(self.x(torch.tanh(self.d(z))))


def images(raw: np.random.Philox, binary: bool) -> Tensor:
    levels = np.maximum(uniform(raw, BATCH, PIXELS) * 400 - 145, 0).astype(np.uint8)
    x = levels > 127 if binary else np.float32(levels) / np.float32(255)
    return torch.from_numpy(np.float32(x))


def train(likelihood: str, optimiser: str = "adam", samples: int = 1) -> tuple[SmallVAE, float]:
    """A model after a few steps, and its last loss."""
    raw = np.random.Philox(7)
    model = SmallVAE(likelihood, raw)
    steps = Optimiser(optimiser, list(model.parameters()), exact=True)
    for _ in range(STEPS):
        x = images(raw, model.likelihood.binary)
        eps = normal(raw, samples, BATCH, LATENT)
        with exact(fast=True):
            loss = -elbo(bound_terms(model, x, eps)).mean()
            loss.backward()
        steps.step(0.01)
    return model, loss.item()


def evaluate(model: SmallVAE) -> Iterable[Tensor]:
    """Bounds, reconstructions and encodings, as in `aevb.evaluation`."""
    raw = np.random.Philox(8)
    x, eps = images(raw, model.likelihood.binary), normal(raw, 4, BATCH, LATENT)
    with torch.inference_mode(), exact():
        terms = bound_terms(model, x, eps)
        log_weights = log_importance_weights(terms, eps).double()
        yield from (elbo(terms).double().mean(), iwae_bound(log_weights), model.mean(terms.mu))
        yield from (terms.mu, torch.cat([terms.log_var, terms.log_var]).double().mean(0))


def digest(tensors: Iterable[Tensor]) -> str:
    data = b"".join(tensor.detach().contiguous().numpy().tobytes() for tensor in tensors)
    return hashlib.sha256(data).hexdigest()[:16]


def functions() -> Iterable[Tensor]:
    """Elementary functions at dense and at extreme arguments."""
    raw = np.random.Philox(9)
    for kind, limit in ((np.float32, 3e38), (np.float64, 1e300)):
        scale = np.ldexp(1.0, np.int32((uniform(raw, 20_000) - 0.5) * 290))
        x = np.concatenate([uniform(raw, 20_000) * 200 - 100, uniform(raw, 20_000) * scale])
        x = np.minimum(x, limit)
        for name in ("exp", "expm1", "tanh", "sigmoid"):
            yield torch.from_numpy(getattr(elementary, name)(x.astype(kind)))
        for name in ("log", "log1p"):
            yield torch.from_numpy(getattr(elementary, name)(np.abs(x).astype(kind)))
    yield from map(torch.from_numpy, elementary.cos_sin_turns(uniform(raw, 20_000)))


def products() -> Iterable[Tensor]:
    """Products of more terms than are computed at once, and sums of odd lengths."""
    raw = np.random.Philox(10)
    a, b = normal(raw, 37, 4999), normal(raw, 4999, 23)
    zeros_and_ones = (b > 0).float()
    with exact(fast=True):
        yield from (a @ b, a @ zeros_and_ones, zeros_and_ones.t() @ a.t())
    with exact():
        yield from (a @ b, a.sum(), a.sum(0), a.mean(1), torch.logsumexp(a, 1), a.double().sum())


def main() -> dict[str, str]:
    result = {"functions": digest(functions()), "products": digest(products())}
    for likelihood in LIKELIHOODS:
        model, _ = train(likelihood)
        result[likelihood] = digest(model.parameters())
        result[f"{likelihood}, evaluation"] = digest(evaluate(model))
    model, _ = train("bernoulli", "adagrad", samples=2)
    return {**result, "adagrad": digest(model.parameters())}


if __name__ == "__main__":
    print(json.dumps(main(), indent=4))
