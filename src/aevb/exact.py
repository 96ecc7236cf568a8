"""Exact arithmetic: PyTorch code whose every bit is the same on any CPU.

    with exact():
        loss = model(x)
        loss.backward()

Within the context, the results in float32 and float64 are the same on any x86-64 or 64-bit ARM
processor, with any number of threads and any version of PyTorch and of its libraries. An operation
that is not known to be exact is refused with `NotImplementedError`, so nothing can go unnoticed.

Why the bits are fixed, operation by operation:

- **Moving numbers.** Views, copies, selections and comparisons do no arithmetic (`COPIES`).
- **Single operations.** IEEE 754 prescribes every bit of a sum, difference, product or quotient of
  two numbers, and of a conversion. PyTorch's vector and scalar kernels for `add`, `sub`, `mul` and
  `div` do one such operation per element (`ARITHMETIC`). Where one call stands for two operations,
  a compiler may fuse them: `add` with an `alpha` other than ±1 is therefore refused, as are
  `addcmul`, `lerp` and the like, and the backward formulas of `tanh` and `sigmoid` are written out.
  `reciprocal` and `pow` become divisions and multiplications.
- **Choices.** `maximum`, `amax`, `clamp` and so on return one of their arguments; which of −0 and
  +0 is left open. Adding +0 makes it +0 (`CHOICES`).
- **Sums.** A sum in floating point depends on its order, and PyTorch's order depends on the vector
  width and on the number of threads. Here the second half of the terms is added to the first one
  until one term is left, so the order depends on the number of terms alone.
- **Matrix products.** Both operands are rounded to p bits: to multiples of a power of two, the unit,
  one for each row of the first operand and for each column of the second one. All terms of one
  element of the product are then multiples of the product of two units, and p is so small that
  any partial sum is below 2⁵³ of them. In float64 no operation rounds, so the result depends neither
  on the order of the sum nor on fused operations: BLAS may do as it likes. Since each row has its
  own unit, a row of the result depends on one row of the first operand alone, so the result for an
  image does not depend on its batch. p is 21 for 2048 terms; longer sums are split. For
  comparison, a float32 has 24 bits.
- **Functions** are those of `aevb.elementary`, except the square root: IEEE 754 prescribes it, and
  NumPy's follows it (PyTorch's does not on x86, where MKL computes it).

Results that are not finite arise where float32 has them, but for matrix products: an infinite
element makes all results that depend on its row or column NaN. The bits of a NaN are not fixed.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from aevb import elementary

TERMS = 2048
"""The longest sum of products that is done at once."""

COPIES = set(
    """
    _local_scalar_dense _to_copy _unsafe_view alias all any as_strided bitwise_and bitwise_not
    bitwise_or cat clone copy detach empty empty_like empty_strided eq equal expand fill full
    full_like ge gather gt index index_select isinf isnan le lift_fresh logical_and logical_not
    logical_or lt masked_fill ne neg new_empty new_empty_strided new_full new_ones new_zeros ones
    ones_like permute repeat scalar_tensor select select_backward slice slice_backward split
    split_with_sizes squeeze stack t transpose unbind unsqueeze view where zero zeros zeros_like
    abs
    """.split()
)
ARITHMETIC = {
    *("add.Tensor", "add.Scalar", "sub.Tensor", "sub.Scalar", "rsub.Tensor", "rsub.Scalar"),
    *("mul.Tensor", "mul.Scalar", "div.Tensor", "div.Scalar"),
}
CHOICES = {"amax", "amin", "clamp", "clamp_max", "clamp_min", "maximum", "minimum", "sgn", "sign"}


def in_numpy(function: Callable[[Any], Any]) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.from_numpy(function(x.detach().numpy()))


exp, log = in_numpy(elementary.exp), in_numpy(elementary.log)


def on_grid(x: Tensor, dim: int, terms: int) -> tuple[Tensor, Tensor]:
    """x in float64, rounded along `dim` for products of so many terms, and 0, or NaN if not finite.

    The sum of a number and of 1.5 · 2⁵² units has no bits below one unit.
    """
    bits = (53 - (terms - 1).bit_length()) // 2
    top = x.abs().amax(dim, keepdim=True).double()
    exponent = torch.frexp(top).exponent
    anchor = torch.from_numpy(np.ldexp(1.5, exponent.numpy() + (52 - bits)))
    return (x + anchor).sub_(anchor), top * 0


def product(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product, as described above."""
    if a.dtype != torch.float32 or b.dtype != torch.float32:
        raise NotImplementedError("exact matrix products are in float32 only")
    result = torch.zeros(a.shape[0], b.shape[1], dtype=torch.float64)
    for left, right in zip(a.split(TERMS, 1), b.split(TERMS, 0), strict=True):
        terms = left.shape[1]
        if terms:
            (rows, row_nan), (columns, column_nan) = (
                on_grid(left, 1, terms),
                on_grid(right, 0, terms),
            )
            result += rows @ columns  # += also turns −0 into +0
            if not (row_nan.isfinite().all() and column_nan.isfinite().all()):
                result += row_nan + column_nan
    return result.float()


def total(
    x: Tensor,
    dim: Sequence[int] | None = None,
    keepdim: bool = False,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The sum over some dimensions, or over all, by halving."""
    if not x.is_floating_point():
        return torch.sum(x, dim, keepdim, dtype=dtype)
    x = x.to(dtype or x.dtype)
    dims = [d % x.dim() for d in dim] if dim else list(range(x.dim()))
    for d in dims:
        if x.shape[d] == 0:
            x = x.new_zeros([1 if i == d else size for i, size in enumerate(x.shape)])
        while (terms := x.shape[d]) > 1:
            first, second, *rest = x.split(terms // 2, d)
            x = first + second
            if rest:
                x.narrow(d, 0, 1).add_(rest[0])
    return (x if keepdim else x.squeeze(dims)) + 0.0


def mean(
    x: Tensor, dim: Sequence[int] | None = None, keepdim: bool = False, **dtype: Any
) -> Tensor:
    result = total(x, dim, keepdim, **dtype)
    return result / (x.numel() / max(result.numel(), 1))


def logsumexp(x: Tensor, dim: Sequence[int], keepdim: bool = False) -> Tensor:
    top = x.amax(dim, keepdim=True)
    top = torch.where(top.isinf(), 0.0, top) + 0.0
    result = log(total(exp(x - top), dim, True)) + top
    return result if keepdim else result.squeeze(dim)


def power(x: Tensor, exponent: float) -> Tensor:
    if exponent not in (1, 2, 3):
        raise NotImplementedError(f"the exponent {exponent} is not known to be exact")
    result = x.clone()
    for _ in range(int(exponent) - 1):
        result *= x
    return result


def logit(x: Tensor, eps: float | None = None) -> Tensor:
    x = x if eps is None else x.clamp(eps, 1 - eps)
    return log(x / (1 - x))


RULES: dict[str, Callable[..., Tensor]] = {
    "addmm": lambda bias, a, b: product(a, b) + bias,
    "exp": exp,
    "expm1": in_numpy(elementary.expm1),
    "log": log,
    "log1p": in_numpy(elementary.log1p),
    "logit": logit,
    "logsumexp": logsumexp,
    "mean": mean,
    "mm": product,
    "pow": power,
    "reciprocal": lambda x: torch.ones_like(x) / x,
    "sigmoid": in_numpy(elementary.sigmoid),
    "sigmoid_backward": lambda gradient, y: gradient * ((1 - y) * y),
    "sqrt": in_numpy(np.sqrt),
    "sum": total,
    "tanh": in_numpy(elementary.tanh),
    "tanh_backward": lambda gradient, y: gradient * (1 - y * y),
}
KINDS = {torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool}


class exact(TorchDispatchMode):  # noqa: N801, a context like torch.no_grad
    """The context in which PyTorch computes exactly, in the forward and in the backward pass.

    Raises:
        RuntimeError: if the processor is set not to follow IEEE 754.
    """

    def __enter__(self) -> "exact":
        tiny, epsilon = torch.tensor([2.0**-126, 2.0**-24])
        if not tiny / 2 > 0 or 1 + epsilon != 1 or 1 + 1.5 * epsilon == 1:
            raise RuntimeError(
                "subnormal numbers are flushed to 0, or the rounding mode is changed"
            )
        super().__enter__()
        return self

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.__name__
        base, _, overload = name.partition(".")
        in_place = base.endswith("_")
        base = base.removesuffix("_")
        for x in args:
            if isinstance(x, Tensor) and (x.device.type != "cpu" or x.dtype not in KINDS):
                raise NotImplementedError(f"{x.dtype} on {x.device.type} is not exact")
        if base in COPIES:
            return func(*args, **kwargs)
        if f"{base}.{overload}" in ARITHMETIC and not kwargs and len(args) == 2:
            return func(*args)
        if base in CHOICES:
            return func(*args, **kwargs).add_(0)
        if base in RULES and "out" not in kwargs:
            result = RULES[base](*args, **kwargs)
            return args[0].copy_(result) if in_place else result
        with self:
            result = func.decompose(*args, **kwargs)
        if result is NotImplemented:
            raise NotImplementedError(f"{func} is not known to be exact")
        return result
