"""Random numbers that depend on what they are for, and on nothing else.

Philox is a counter-based generator: the same key gives the same numbers on every machine, in any
order of use, whatever was drawn before. The key is a purpose with the numbers that belong to it.
"""

import numpy as np


def generator(purpose: str, *numbers: int) -> np.random.Generator:
    """The generator of one purpose, as `generator("evaluate", seed, block)`."""
    words = [int.from_bytes(purpose.encode(), "big"), *numbers]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
