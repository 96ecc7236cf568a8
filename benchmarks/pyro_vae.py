"""The same variational autoencoder in Pyro (pip install pyro-ppl), as its tutorial writes it.

python benchmarks/pyro_vae.py FOLDER    where FOLDER/MNIST/raw contains the four files
"""

import sys

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


class VAE(nn.Module):
    """784–500 tanh–(20, 20) and 20–500 tanh–784."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 500), nn.Tanh(), nn.Linear(500, 40))
        self.decoder = nn.Sequential(nn.Linear(20, 500), nn.Tanh(), nn.Linear(500, 784))

    def model(self, x: Tensor) -> None:
        """p(z) p(x|z)."""
        pyro.module("decoder", self.decoder)
        with pyro.plate("images", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 20), 1.0).to_event(1))
            bernoulli = dist.Bernoulli(logits=self.decoder(z), validate_args=False)
            pyro.sample("x", bernoulli.to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z|x)."""
        pyro.module("encoder", self.encoder)
        with pyro.plate("images", len(x)):
            mu, log_var = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(mu, torch.exp(log_var / 2)).to_event(1))


def main(folder: str) -> None:
    """Train for ten epochs, with a test after each."""
    pyro.set_rng_seed(0)
    as_tensor = transforms.ToTensor()
    train = DataLoader(datasets.MNIST(folder, True, as_tensor), batch_size=128, shuffle=True)
    test = DataLoader(datasets.MNIST(folder, False, as_tensor), batch_size=128)
    vae = VAE()
    svi = SVI(vae.model, vae.guide, Adam({"lr": 1e-3}), loss=Trace_ELBO())
    for _ in range(10):
        for x, _ in train:
            svi.step(x.flatten(1))
        total = sum(svi.evaluate_loss(x.flatten(1)) for x, _ in test)
        print(f"test −ELBO {total / 10000:.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
