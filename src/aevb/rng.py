"""Random numbers that depend only on a seed and on what they are used for.

Philox is a counter-based generator: the same key gives the same numbers on every machine, whatever
was drawn before. The key is made of a purpose and of the numbers that belong to it.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def generator(purpose: str, *numbers: int) -> np.random.Generator:
    """NumPy's generator for one purpose, for example `generator("evaluate", seed, block)`."""
    words = [int.from_bytes(purpose.encode(), "big"), *numbers]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def torch_generator(device: str, purpose: str, *numbers: int) -> "torch.Generator":
    """PyTorch's generator for one purpose; its numbers differ between kinds of device."""
    import torch  # imported here because the split stage does not need it

    seed = int(generator(purpose, *numbers).integers(2**63))
    return torch.Generator(device).manual_seed(seed)
