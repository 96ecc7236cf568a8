"""The variational autoencoder of Kingma & Welling 2013 (arXiv:1312.6114), section 3 and appendix C.

Shapes: B images of D pixels, R samples each, k latent dimensions, H hidden units.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aevb.data import BINARISATIONS, PIXELS
from aevb.elementary import log
from aevb.files import InputError, read_tensors, write_tensors
from aevb.likelihoods import LIKELIHOODS
from aevb.rng import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SNAPSHOTS = "snapshots."
"""How the names of arrays with earlier weights begin in the file of a model."""


class Encoder(nn.Module):
    """q(z|x) = N(mu, diag sigma²) with h = tanh(W x + b); mu and log sigma² are linear in h."""

    def __init__(self, latent_dim: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(PIXELS, hidden)
        self.output = nn.Linear(hidden, 2 * latent_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, D] to mu and log sigma², each [B, k], in float32."""
        h = torch.tanh(self.hidden(x))
        mu, log_var = self.output(h).float().chunk(2, -1)
        return mu, log_var


class Decoder(nn.Module):
    """The parameters of p(x|z): one tanh layer, then a linear one. Its output is called raw."""

    def __init__(self, latent_dim: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(latent_dim, hidden)
        self.output = nn.Linear(hidden, outputs * PIXELS)

    def forward(self, z: Tensor) -> Tensor:
        """Latents [..., k] to raw parameters [..., outputs × D], in float32."""
        h = torch.tanh(self.hidden(z))
        raw: Tensor = self.output(h).float()
        return raw


class VAE(nn.Module):
    """Encoder, decoder and likelihood; the prior is p(z) = N(0, I)."""

    def __init__(self, latent_dim: int, hidden: int, likelihood: str) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.hidden = hidden
        self.likelihood_name = likelihood
        self.likelihood = LIKELIHOODS[likelihood]
        self.encoder = Encoder(latent_dim, hidden)
        self.decoder = Decoder(latent_dim, hidden, self.likelihood.outputs)

    @torch.no_grad()
    def initialise(self, random: Random, mean_image: NDArray[np.float64]) -> None:
        """Draw initial weights and biases, uniform in ±1/√inputs as in PyTorch's own layers.

        Two exceptions were each worth about 1 nat. The decoder's first layer is drawn from twice
        that range: its inputs z ~ N(0, I) are few and of unit variance, and its tanh units then
        start outside their linear range. The decoder's last biases start at the logits of the mean
        training image, [D] in [0, 1], as in Burda et al. 2015.
        """
        for layer in (module for module in self.modules() if isinstance(module, nn.Linear)):
            bound = (2 if layer is self.decoder.hidden else 1) / math.sqrt(layer.in_features)
            for parameter in layer.parameters():
                values = (random.uniform(parameter.shape) * 2 - 1) * bound
                parameter.copy_(torch.from_numpy(values))
        half_a_level = 0.5 / 255
        p = mean_image.clip(half_a_level, 1 - half_a_level)
        self.decoder.output.bias[:PIXELS] += torch.from_numpy(log(p / (1 - p)).astype(np.float32))

    @torch.no_grad()
    def initialise_as_in_the_paper(self, random: Random) -> None:
        """Draw all weights and biases from N(0, 0.01), which has a standard deviation of 0.1."""
        for parameter in self.parameters():
            values = random.normal(parameter.shape) * np.float32(0.1)
            parameter.copy_(torch.from_numpy(values))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """mu and log sigma² of q(z|x), each [B, k], for images [B, D]."""
        mu, log_var = self.encoder(x)
        return mu, log_var

    def log_px_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) in nats per image, [R, B], for images [B, D] and latents [R, B, k]."""
        return self.likelihood.log_prob(x, self.decoder(z))

    def mean(self, z: Tensor) -> Tensor:
        """E[x|z], [..., D], for latents [..., k]."""
        return self.likelihood.mean(self.decoder(z))


def write_model(
    path: Path,
    model: VAE,
    metadata: Mapping[str, Any],
    snapshots: Mapping[str, Tensor] | None = None,
    **files: Path,
) -> None:
    """Write the weights in float32, with all that is needed to load and use them alone.

    `snapshots` are earlier weights, one row for each epoch in `metadata["snapshots"]`. `files` are
    those that the model was made from or with, as for `write_tensors`.
    """
    earlier = {f"{SNAPSHOTS}{name}": value for name, value in (snapshots or {}).items()}
    tensors = model.state_dict() | earlier
    weights = {name: value.float().cpu().numpy() for name, value in tensors.items()}
    architecture = {
        "latent_dim": model.latent_dim,
        "hidden": model.hidden,
        "likelihood": model.likelihood_name,
    }
    write_tensors(path, "model", weights, {**metadata, **architecture}, **files)


def read_model(path: Path) -> tuple[VAE, dict[str, Any]]:
    """Read a model that the train stage wrote, and its metadata.

    Raises:
        InputError: if the file is missing or damaged, or its weights do not fit its metadata.
    """
    tensors, metadata = read_tensors(path, "model")
    weights = {name: tensors[name] for name in tensors if not name.startswith(SNAPSHOTS)}
    for name, known in (("likelihood", LIKELIHOODS), ("binarisation", BINARISATIONS)):
        if metadata.get(name) not in list(known):
            raise InputError(
                f"{path}: its {name} is {metadata.get(name)!r}, should be {' or '.join(known)}; "
                "train it again"
            )
    if not isinstance(metadata.get("seed"), int):
        raise InputError(f"{path}: its metadata has no seed; train it again")
    try:
        model = VAE(metadata["latent_dim"], metadata["hidden"], metadata["likelihood"])
        model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    except (KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: weights and metadata disagree ({reason})") from None
    if not all(np.isfinite(value).all() for value in weights.values()):
        raise InputError(f"{path}: some weights are not finite; train it again")
    return model.eval().requires_grad_(False), metadata
