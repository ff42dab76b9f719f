"""Two samples become one pooled array, in blocks of rows: the public edge where bad input is told from good.

Concrete arrays are checked and padded on the host, to one of few sizes, so that a new m or n finds a compiled program.
Traced arrays keep their static shape; nothing can raise there, and `all_finite` later turns bad values into NaN.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

# What the public functions take as numbers: arrays of jax or numpy, plain numbers, and lists of them.
Numbers = ArrayLike | Sequence[Any]

# Products of tiles reach a processor's peak near 1,024 rows; an accelerator needs more at a time. Smaller ones waste less on
# small samples.
LARGEST_TILE = {"cpu": 1024}
LARGEST_TILE_ELSEWHERE = 4096
SMALLEST_TILE = 64
TILES_A_SIDE = 8


class Pooled(NamedTuple):
    """The rows of x, then those of y, then padding.

    Attributes:
      blocks: the rows, in b blocks of t. Shape [b, t, d], float.
      m: rows of x. Shape [].
      n: rows of y. Shape [].
    """

    blocks: Any
    m: Any
    n: Any

    @property
    def count(self) -> Any:
        """N = m + n, without the padding."""
        return self.m + self.n

    @property
    def capacity(self) -> int:
        """N with the padding: the static number of rows, b·t."""
        return self.blocks.shape[0] * self.blocks.shape[1]


def is_traced(*values: Any) -> bool:
    """Whether any of these is traced by `jax.jit`, `vmap` or `grad`, and so has no value to check."""
    return any(isinstance(value, jax.core.Tracer) for value in values)


def pool(x: Any, y: Any, *, pad: bool) -> Pooled:
    """Check two samples and lay them out.

    Args:
      x: sample of P, shape [m, d]. Integers, booleans and half precision become float32; float64 stays only under x64.
      y: sample of Q, shape [n, d].
      pad: to one of few capacities, on the host; False keeps the static shape, for traced computations.

    Returns:
      The pooled rows; `m` and `n` are plain integers.

    Raises:
      ValueError: not two matrices of at least two rows and equal widths, or entries that are not finite or too large.
      TypeError: entries that are not real numbers.
    """
    x, y = (check_rows(name, sample) for name, sample in (("x", x), ("y", y)))
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"x has {x.shape[1]} features and y has {y.shape[1]}; both samples must be measured in the same features: "
            "pass them through one fixed map first."
        )
    return Pooled(stack((x, y), pad=pad), x.shape[0], y.shape[0])


def check_rows(name: str, rows: Any) -> Any:
    """A matrix of at least two rows of finite real numbers, or an error; values of traced arrays go unchecked."""
    traced = is_traced(rows)
    if not traced:
        try:
            rows = np.asarray(rows)
        except ValueError as error:
            raise ValueError(f"{name} is not a rectangular array: {error}") from error
    if not (jnp.issubdtype(rows.dtype, jnp.floating) or jnp.issubdtype(rows.dtype, jnp.integer) or rows.dtype == bool):
        raise TypeError(f"{name} has entries of type {rows.dtype}; expected real numbers.")
    if rows.ndim != 2:
        advice = f"{name}.reshape(-1, 1)" if rows.ndim < 2 else f"{name}.reshape(len({name}), -1)"
        raise ValueError(
            f"{name} has shape {tuple(rows.shape)}; expected two axes, [rows, features]. Flatten each row to a vector, "
            f"for instance by {advice}."
        )
    if rows.shape[0] < 2 or rows.shape[1] < 1:
        raise ValueError(
            f"{name} has shape {tuple(rows.shape)}; expected at least 2 rows and 1 feature, since an unbiased estimate "
            "compares different rows of the same sample."
        )
    if not traced:
        _check_values(name, rows)
    return rows


def _check_values(name: str, rows: np.ndarray) -> None:
    dtype = _working_dtype(rows)
    # One pass without a copy: NaN and infinity survive into the extremes.
    low, high = (float(extreme) for extreme in (rows.min(), rows.max()))
    if not np.isfinite([low, high]).all():
        bad = ~np.isfinite(rows.astype(dtype)).all(axis=1)
        raise ValueError(
            f"{name} has {int(bad.sum())} rows with NaN or infinite entries (the first is row {int(bad.argmax())}); "
            "remove or impute them before testing."
        )
    # ‖a − b‖² is at most 4·d·max²; neither the sums that lead to it nor a bandwidth as large may overflow.
    limit = float(np.sqrt(float(jnp.finfo(dtype).max) / (64 * rows.shape[1])))
    if max(-low, high) > limit:
        raise ValueError(
            f"{name} has entries as large as {max(-low, high):.3g}, whose squared distances overflow {dtype}; rescale "
            f"both samples to below {limit:.3g}."
        )


def stack(samples: Sequence[Any], *, pad: bool) -> Any:
    """The samples' rows, one after the other and then zeros, in blocks: shape [b, t, d]."""
    count, width = sum(len(sample) for sample in samples), samples[0].shape[1]
    dtype = _working_dtype(*samples)
    capacity = padded_size(count) if pad else count
    largest = LARGEST_TILE.get(jax.default_backend(), LARGEST_TILE_ELSEWHERE)
    tile = min(largest, max(SMALLEST_TILE, capacity // TILES_A_SIDE))
    if pad:
        # In numpy: an eager jnp.pad would compile once for every size.
        padded = np.zeros((capacity, padded_width(width)), dtype)
        start = 0
        for sample in samples:
            padded[start : start + len(sample), :width] = sample
            start += len(sample)
        return padded.reshape(-1, tile, padded.shape[1])
    num_blocks = -(-count // tile)
    tile = -(-count // num_blocks)
    rows = jnp.concatenate([jnp.asarray(sample).astype(dtype) for sample in samples])
    return jnp.pad(rows, ((0, num_blocks * tile - count), (0, 0))).reshape(num_blocks, tile, width)


def padded_size(count: int) -> int:
    """The capacity that `count` rows are padded to: the next power of two, 64 at least; in quarters of it above 8,192.

    Padding costs no tile, but it takes memory and random numbers.
    """
    power = 1 << (count - 1).bit_length()
    step = power // 8
    return max(SMALLEST_TILE, power if power <= 8192 else -(-count // step) * step)


def padded_width(width: int) -> int:
    """The width that features are padded to with zeros, which move no row: 8, 16, 32, 64, 128, then multiples of 128.

    The layers of a network have all kinds of widths, and each would compile anew.
    """
    return max(8, 1 << (width - 1).bit_length()) if width <= 128 else -(-width // 128) * 128


def all_finite(blocks: Float[Array, "b t d"]) -> Bool[Array, ""]:
    """Whether traced rows are free of NaN and infinity."""
    return jnp.all(jnp.isfinite(blocks))


def check_bandwidth(bandwidth: Numbers, dtype: Any) -> Any:
    """Bandwidths as a vector [k], good where they can be seen; traced ones that are not `usable` become NaN."""
    if np.ndim(bandwidth) > 1 or np.size(bandwidth) == 0:
        raise ValueError(
            f"bandwidth has shape {np.shape(bandwidth)}; expected a positive number or a vector [k] of them."
        )
    if isinstance(bandwidth, jax.core.Tracer):
        traced = jnp.ravel(jnp.asarray(bandwidth)).astype(dtype)
        return jnp.where(usable(traced), traced, jnp.nan)
    with np.errstate(over="ignore", under="ignore"):
        values = np.ravel(np.asarray(bandwidth)).astype(dtype)
    if not usable(values).all():
        low, high = _bandwidth_limits(dtype)
        raise ValueError(
            f"bandwidth is {bandwidth}; expected finite numbers above 0, in {dtype} from {low:.1e} to {high:.1e} (the "
            "kernel divides by the square). Rescale both samples, or leave it out to use the median distance."
        )
    return values


def usable(bandwidth: Any) -> Any:
    """Whether σ² and 1/2σ² are normal numbers: where the square underflows, kernel values are 0/0."""
    low, high = _bandwidth_limits(bandwidth.dtype)
    return (bandwidth >= low) & (bandwidth <= high)  # False for NaN


def _bandwidth_limits(dtype: Any) -> tuple[float, float]:
    # Twice the least normal number, since the kernel takes 1/2σ².
    low = float(np.sqrt(2 * float(jnp.finfo(dtype).tiny)))
    return low, 1 / low


def _working_dtype(*samples: Any) -> Any:
    dtype = jnp.float32
    for sample in samples:
        dtype = jnp.promote_types(dtype, sample.dtype)
    return jax.dtypes.canonicalize_dtype(dtype)
