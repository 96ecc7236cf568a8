"""The variational autoencoder as textbooks write it, for comparison of times.

The same model, data and estimator: DataLoader, transforms, autograd, Adam at 0.001, ten epochs.
Prints the test −ELBO after each, in nats per image, on gray levels.

    python benchmarks/textbook.py FOLDER    where FOLDER/MNIST/raw contains the four files
"""

import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


class VAE(nn.Module):
    """784–500 tanh–(20, 20) and 20–500 tanh–784."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(784, 500)
        self.mu = nn.Linear(500, 20)
        self.log_var = nn.Linear(500, 20)
        self.hidden2 = nn.Linear(20, 500)
        self.output = nn.Linear(500, 784)

    def loss(self, x: Tensor) -> Tensor:
        """−ELBO, summed over a batch."""
        h = torch.tanh(self.hidden1(x))
        mu, log_var = self.mu(h), self.log_var(h)
        z = mu + torch.exp(log_var / 2) * torch.randn_like(mu)
        logits = self.output(torch.tanh(self.hidden2(z)))
        kl = -0.5 * (1 + log_var - mu**2 - log_var.exp()).sum()
        return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl


def main(folder: str) -> None:
    """Train for ten epochs, with a test after each."""
    torch.manual_seed(0)
    as_tensor = transforms.ToTensor()
    train = DataLoader(datasets.MNIST(folder, True, as_tensor), batch_size=128, shuffle=True)
    test = DataLoader(datasets.MNIST(folder, False, as_tensor), batch_size=128)
    model = VAE()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(10):
        for x, _ in train:
            optimiser.zero_grad()
            (model.loss(x.flatten(1)) / len(x)).backward()
            optimiser.step()
        with torch.no_grad():
            total = sum(model.loss(x.flatten(1)).item() for x, _ in test)
        print(f"test −ELBO {total / 10000:.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
