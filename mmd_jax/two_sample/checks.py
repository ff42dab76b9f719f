"""Bad knobs and rows that could never reject, told at the public edge of the tests that resample."""

import math
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Int

from mmd_jax.two_sample.kernels import PRECISIONS
from mmd_jax.two_sample.pooled import Pooled, is_traced


def check_knobs(key: Any, alpha: Any, num: Any) -> None:
    check_key(key)
    if isinstance(num, bool) or not isinstance(num, int | np.integer):
        raise TypeError(f"num_permutations is {num!r}; expected a plain integer, since it is a shape.")
    if num < 1:
        raise ValueError(f"num_permutations is {num}; expected at least 1.")
    if is_traced(alpha):
        return
    if not (np.ndim(alpha) == 0 and 0 < float(alpha) < 1):
        raise ValueError(f"alpha is {alpha}; expected one number between 0 and 1, the level of the test.")
    if allowed(np.float64(alpha), num) < 1:
        raise ValueError(
            f"alpha is {alpha}, below 1 / (num_permutations + 1) = 1 / {num + 1}, the smallest possible p: nothing "
            f"could ever be rejected. Use at least {math.ceil(1 / float(alpha)) - 1} permutations, or a larger alpha."
        )


def check_both(groups_x: Any, groups_y: Any) -> None:
    """The groups of both samples, or of neither."""
    if (groups_x is None) != (groups_y is None):
        missing = "groups_y" if groups_y is None else "groups_x"
        raise ValueError(f"{missing} is missing; give the groups of both samples, or of neither.")


def number_groups(groups_x: Any, groups_y: Any, pooled: Pooled) -> tuple[Any, tuple[int, int] | None]:
    """The group of each row as a number 0 … G − 1, with padding, shape [N]; and how many each sample has, if known."""
    for name, groups, rows in (("groups_x", groups_x, pooled.m), ("groups_y", groups_y, pooled.n)):
        if np.shape(groups) != (rows,):
            raise ValueError(f"{name} has shape {np.shape(groups)}; expected one label a row, ({rows},).")
    if is_traced(groups_x, groups_y):
        labels = jnp.concatenate([jnp.asarray(groups_x), jnp.asarray(groups_y)])
        numbers = jnp.unique(labels, return_inverse=True, size=labels.size)[1]
        return jnp.pad(numbers.astype(jnp.int32), (0, pooled.capacity - labels.size)), None
    x_labels, y_labels = set(np.asarray(groups_x).tolist()), set(np.asarray(groups_y).tolist())
    both = sorted(x_labels & y_labels, key=str)
    if both:
        raise ValueError(
            f"{len(both)} groups have rows in both samples ({', '.join(map(str, both[:5]))}{', …' * (len(both) > 5)}); "
            "their rows depend on each other across x and y, which no test or interval here allows for. Drop these "
            "rows, or, if the samples only number their groups alike, give them different labels."
        )
    # Apart: numpy would turn the number 1 beside the name "1" into a name, and two groups into one.
    in_x, in_y = (np.unique(np.asarray(groups), return_inverse=True)[1] for groups in (groups_x, groups_y))
    num_x, num_y = int(in_x.max()) + 1, int(in_y.max()) + 1
    numbers = np.concatenate([in_x, in_y + num_x])
    return np.pad(numbers.astype(np.int32), (0, pooled.capacity - numbers.size)), (num_x, num_y)


def groups_are_apart(groups: Int[Array, " N"], pooled: Pooled) -> Bool[Array, ""]:
    """Whether no group has rows of both samples."""
    row = jnp.arange(pooled.capacity)
    nobody = jnp.zeros(pooled.capacity, bool)
    in_x = nobody.at[groups].max(row < pooled.m)
    in_y = nobody.at[groups].max((row >= pooled.m) & (row < pooled.count))
    return ~jnp.any(in_x & in_y)


def check_splits(groups: np.ndarray, in_x: int, in_y: int, alpha: Any) -> None:
    """Whether whole groups, given by the number of each row's, can be split in ways enough."""
    sizes = np.sort(np.bincount(groups))
    if min(sizes[:in_x].sum(), sizes[:in_y].sum()) < 2:
        raise ValueError(
            f"with {in_x} groups in x and {in_y} in y, a permutation could leave one row on a side, where the unbiased "
            "estimate needs two; drop the groups of a single row."
        )
    check_reach(f"{in_x} groups in x and {in_y} in y can be split", count_splits(in_x, in_y), alpha, "groups")


def check_reach(what: str, ways: int, alpha: Any, more: str) -> None:
    if not is_traced(alpha) and ways * float(alpha) < 1:
        raise ValueError(
            f"{what} in {ways} ways only, so p is never far below 1 / {ways} and alpha = {alpha} could never be met; "
            f"gather more {more}, or use a larger alpha."
        )


def count_splits(in_x: int, in_y: int) -> int:
    """How many statistics the splits have; a billion or more are not counted to the end, as no float may hold it."""
    few = min(in_x, in_y, 17)
    # With as many on both sides, each split and its mirror image have the same statistic.
    return math.comb(in_x + in_y, few) // (2 if in_x == in_y else 1)


def check_key(key: Any) -> None:
    """One typed key."""
    if not (hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(f"key is {type(key).__name__}; expected a typed key, as jax.random.key(seed) makes it.")
    if key.shape != ():
        raise ValueError(f"key has shape {key.shape}; expected one key. For many tests, use jax.vmap over the keys.")


def check_finite(*values: Any, unless: str = "") -> None:
    """Results of concrete rows and bandwidths, which were checked before: what is left to be not finite is the kernel.

    Args:
      values: traced ones go unchecked.
      unless: a sentence on another cause, where there is one.
    """
    if not is_traced(*values) and not all(np.isfinite(np.asarray(value)).all() for value in values):
        raise ValueError(
            "the kernel's values, or their sums, are not finite: it overflows on these rows. Rescale both samples, or use a "
            f"bounded kernel such as the Gaussian.{unless}"
        )


def check_memory(rows: int, num: int, bins: int | None) -> None:
    """Refuses membership columns that this machine can't hold; three copies of them exist for a moment."""
    if bins is not None or not hasattr(os, "sysconf"):
        return
    needed, there = 3 * rows * (num + 1), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there > 0:
        raise ValueError(
            f"{num} permutations of {rows} rows take {needed:,} bytes, and this machine has {there:,}; permute bins of rows "
            "instead (bins=256), whose memory does not grow with the permutations, or draw them in batches (sequential_test)."
        )


def check_precision(precision: Any) -> None:
    """One of `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}.")


def check_bins(bins: int, units_x: int, units_y: int, unit: str, alpha: Any) -> None:
    """A number of bins that leaves each sample at least one, and splits enough to reject."""
    if isinstance(bins, bool) or not isinstance(bins, int):
        raise TypeError(f"bins is {bins!r}; expected a plain integer, since it is a shape.")
    if not 2 <= bins <= units_x + units_y:
        raise ValueError(
            f"bins is {bins}, and there are {units_x + units_y} {unit}; expected from 2 to as many bins as {unit}."
        )
    each = -(-(units_x + units_y) // bins)
    in_x, in_y = units_x // each, units_y // each
    if min(in_x, in_y) < 1:
        raise ValueError(
            f"bins is {bins}, which makes bins of {each} {unit}, more than the {min(units_x, units_y)} of one sample; use more "
            "bins."
        )
    check_reach(
        f"{in_x} bins of x and {in_y} of y can be split", count_splits(in_x, in_y), alpha, "rows, or use more bins"
    )


def allowed(alpha: Any, num: Any) -> Any:
    """floor(alpha (B + 1)): how many of the B + 1 statistics may be as large as the observed one in a rejection.

    alpha (B + 1) is often meant to be whole and is not in binary: .29 · 100 is 28.999999999999996.
    """
    floor = jnp.floor if is_traced(alpha) else np.floor
    return floor(alpha * (num + 1) * (1 + 1e-6))
