"""Random numbers that are the same on every machine, for every version of NumPy and PyTorch.

A stream is named by its purpose and by the numbers that belong to it, so nothing has to be stored
to draw it again: `Random("train", seed, epoch, step)` is the noise of one training step. Its raw
bits come from Philox (Salmon et al. 2011), a counter-based generator; its key is the SHA-256 of
that name. NumPy promises these raw bits for all versions, but not the numbers that it makes of
them. Therefore they are made here, from operations that IEEE 754 prescribes bit by bit.
"""

import hashlib
import math

from aevb.elementary import cos_sin_turns, log

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def box_muller(first: Doubles, second: Doubles) -> Doubles:
    """Pairs of independent values of N(0, 1), [..., 2], from uniform ones in (0, 1] and [0, 1)."""
    radius = np.sqrt(log(first) * -2.0)
    cos, sin = cos_sin_turns(second)
    return np.stack((radius * cos, radius * sin), -1)


class Random:
    """The stream of one purpose: each call returns its next numbers as a NumPy array."""

    def __init__(self, purpose: str, *numbers: int) -> None:
        name = "/".join([purpose, *(str(int(number)) for number in numbers)])
        digest = hashlib.sha256(name.encode()).digest()
        self.bits = np.random.Philox(key=int.from_bytes(digest[:16], "little"))

    def integers(self, count: int, size: int) -> NDArray[np.unsignedinteger]:
        """Unsigned integers of `size` bits (8, 16, 32 or 64), [count], all equally probable."""
        words = self.bits.random_raw(-(-count * size // 64))
        return words.astype("<u8", copy=False).view(f"<u{size // 8}")[:count]

    def uniform(self, shape: Shape) -> Floats:
        """Multiples of 2⁻²⁴ in [0, 1)."""
        integers = self.integers(math.prod(shape), 32) >> np.uint32(8)
        return (integers.astype(np.float32) * np.float32(2**-24)).reshape(shape)

    def normal(self, shape: Shape) -> Floats:
        """Values of N(0, 1), in pairs by Box & Muller 1958, rounded from float64."""
        count = math.prod(shape)
        integers = self.integers(count + count % 2, 64) >> np.uint64(11)
        first, second = integers.astype(np.float64).reshape(-1, 2).T
        pairs = box_muller((first + 1) * 2.0**-53, second * 2.0**-53)
        return pairs.astype(np.float32).ravel()[:count].reshape(shape)

    def permutation(self, count: int) -> NDArray[np.int64]:
        """The integers below `count` in random order; the first m are a sample of m of them."""
        return self.integers(count, 64).argsort(kind="stable").astype(np.int64, copy=False)

    def binarise(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Zeros and ones, of the shape of the pixels, with P(1) = pixel / 255 exactly.

        Bytes are drawn, those equal to 255 again; `pixel` of the 255 other values are below pixel.
        """
        draws = self.integers(pixels.size, 8)
        again = np.flatnonzero(draws == 255)
        while len(again):
            draws[again] = self.integers(len(again), 8)
            again = again[draws[again] == 255]
        return (draws.reshape(pixels.shape) < pixels).view(np.uint8)
