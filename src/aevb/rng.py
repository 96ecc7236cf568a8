"""Random numbers that depend on what they are for, and on nothing else.

Philox is a counter-based generator: the same key gives the same numbers on every machine, in any
order of use, whatever was drawn before. The key is a purpose with the numbers that belong to it.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def generator(purpose: str, *numbers: int) -> np.random.Generator:
    """The generator of one purpose, as `generator("evaluate", seed, block)`."""
    words = [int.from_bytes(purpose.encode(), "big"), *numbers]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def torch_generator(device: str, purpose: str, *numbers: int) -> "torch.Generator":
    """PyTorch's generator of one purpose; its numbers depend on the kind of device."""
    import torch  # here, since the split stage does without it

    seed = int(generator(purpose, *numbers).integers(2**63))
    return torch.Generator(device).manual_seed(seed)
