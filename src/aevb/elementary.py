"""Elementary functions with the same bits on any machine with IEEE 754 arithmetic.

Each is a fixed sequence of single additions, subtractions, multiplications, divisions and square
roots, which the standard rounds correctly, and of exact operations on the bits of numbers. NumPy
does not fuse them, so neither the processor nor its vector width matters. The functions of the C
library, of NumPy and of PyTorch have no such definition and differ between machines.

The functions take arrays of float32 or float64 and return arrays of the same type. Their errors
are stated in units in the last place (ulp); the bits of a NaN are not determined.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]

BLOCK = 1 << 15
"""Elements that are computed at a time: few enough for the intermediate results to be cached."""


class Format(NamedTuple):
    """What depends on the precision."""

    integer: Any
    """The integers of the same size."""
    mantissa: int
    """Bits of the fraction."""
    bias: int
    """The exponent field of 1."""
    ln2: tuple[float, float]
    """log 2 in two parts; the first has so few bits that its multiples by an exponent are exact."""
    limit: float
    """Beyond ± this, exp is 0 or infinite."""
    exp_terms: int
    log_terms: int
    """Terms of the series; the first dropped one is below an eighth of an ulp."""


FORMATS = {
    np.dtype(np.float32): Format(
        np.int32, 23, 127, (0.693359375, -2.12194440054690583e-4), 105.0, 7, 5
    ),
    np.dtype(np.float64): Format(
        np.int64, 52, 1023, (6.93147180369123816490e-01, 1.90821492927058770002e-10), 750.0, 14, 10
    ),
}


def elementwise(function: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    """Apply the function to one block of elements after the other."""

    def apply(x: Floats) -> Floats:
        flat = x.reshape(-1)
        result = np.empty_like(flat)
        with np.errstate(all="ignore"):
            for start in range(0, len(flat), BLOCK):
                block = slice(start, start + BLOCK)
                result[block] = function(flat[block])
        return result.reshape(x.shape)

    apply.__name__, apply.__doc__ = function.__name__, function.__doc__
    return apply


def polynomial(x: Floats, coefficients: list[float]) -> Floats:
    """Σ cᵢ xⁱ by Horner's rule."""
    result = x * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        result += coefficient
        result *= x
    result += coefficients[0]
    return result


def power_of_two(exponent: NDArray[Any], format: Format) -> Floats:
    """2ⁿ for the exponents of normal numbers, by its bits."""
    exponent += format.bias
    exponent <<= format.mantissa
    return exponent.view(np.float32 if format.integer is np.int32 else np.float64)


def reduced_exp(x: Floats) -> tuple[Floats, Floats, Floats]:
    """p, s and t with eˣ = (1 + p) s t, where s and t are powers of two and |p| < 0.42.

    With one power instead of two, eˣ could not be subnormal.
    """
    format = FORMATS[x.dtype]
    x = np.clip(x, -format.limit, format.limit)
    n = np.rint(x * (1 / 0.6931471805599453))
    r = x - n * format.ln2[0]
    r -= n * format.ln2[1]
    p = polynomial(r, [1 / math.factorial(i) for i in range(2, format.exp_terms + 1)])
    p *= r
    p *= r
    p += r
    exponent: NDArray[Any] = n.astype(format.integer)
    half = exponent >> 1
    exponent -= half
    return p, power_of_two(half, format), power_of_two(exponent, format)


@elementwise
def exp(x: Floats) -> Floats:
    """eˣ, within 1.5 ulp."""
    p, s, t = reduced_exp(x)
    p += 1
    p *= s
    p *= t
    return p


@elementwise
def expm1(x: Floats) -> Floats:
    """eˣ − 1, within 3 ulp."""
    p, s, t = reduced_exp(np.maximum(x, -50))
    p *= s
    s -= 1 / t
    p += s
    p *= t
    return p


@elementwise
def tanh(x: Floats) -> Floats:
    """tanh x = t / (t + 2) with t = e²ˣ − 1, within 3 ulp; computed for |x|."""
    t = expm1(np.minimum(abs(x), 20) * 2)
    result: Floats = np.copysign(t / (t + 2), x)
    return result


@elementwise
def sigmoid(x: Floats) -> Floats:
    """1 / (1 + e⁻ˣ), within 2.5 ulp; 0 where e⁻ˣ overflows."""
    result: Floats = 1 / (exp(-x) + 1)
    return result


@elementwise
def log(x: Floats) -> Floats:
    """log x, within 1.5 ulp; −∞ for 0 and NaN below.

    With x = 2ⁿ (1 + f), √½ ≤ 1 + f < √2 and s = f / (2 + f), log(1 + f) = 2 artanh s. The sum is
    arranged such that its largest term, f, is exact, as in FreeBSD's library.
    """
    format = FORMATS[x.dtype]
    tiny = np.finfo(x.dtype).tiny
    usual = x.min() >= tiny and x.max() < np.inf
    shift = 0 if usual else (x < tiny) * (format.mantissa + 1)
    bits: NDArray[Any] = (x if usual else np.ldexp(x, shift)).view(format.integer)
    root = np.sqrt(np.asarray(0.5, x.dtype)).view(format.integer)
    exponent = bits - root
    exponent >>= format.mantissa
    f = (bits - (exponent << format.mantissa)).view(x.dtype) - 1
    n: Floats = (exponent - shift).astype(x.dtype)
    s = f / (f + 2)
    q = s * s
    half = f * f
    half *= 0.5
    r = polynomial(q, [2 / (2 * i + 1) for i in range(1, format.log_terms)])
    r *= q
    r += half
    r *= s
    r += n * format.ln2[1]
    half -= r
    half -= f
    n *= format.ln2[0]
    n -= half
    if not usual:
        n[x == 0] = -np.inf
        n[(x < 0) | np.isnan(x)] = np.nan
        n[x == np.inf] = np.inf
    return n


@elementwise
def log1p(x: Floats) -> Floats:
    """log(1 + x), within 3 ulp: the logarithm of the rounded sum and a correction for rounding."""
    u = 1 + x
    result = log(u)
    return np.where(np.isfinite(result), result - ((u - 1) - x) / u, result)


sqrt = elementwise(np.sqrt)
"""√x, correctly rounded, as IEEE 754 prescribes."""


def cos_sin_turns(turns: Floats) -> tuple[Floats, Floats]:
    """cos 2πu and sin 2πu for 0 ≤ u ≤ 1 in float64, each within 2 ulp of 1."""
    quarter = np.rint(turns * 4)
    angle = (turns - quarter / 4) * (2 * math.pi)  # the difference is exact
    q = angle * angle
    cos = polynomial(q, [(-1) ** i / math.factorial(2 * i) for i in range(10)])
    sin = polynomial(q, [(-1) ** i / math.factorial(2 * i + 1) for i in range(10)]) * angle
    quarters = [quarter % 4 == i for i in range(3)]
    return (
        np.select(quarters, [cos, -sin, -cos], sin),
        np.select(quarters, [sin, cos, -sin], -cos),
    )
