"""Which of many data sets differ, and by how much? All pairs among them, from one pass over their Gram matrix."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int, Key

from mmd_jax.intervals import holm
from mmd_jax.two_sample.bandwidths import resolve_bandwidth
from mmd_jax.two_sample.checks import allowed, check_finite, check_knobs, check_precision, check_reach, count_splits
from mmd_jax.two_sample.gram import Spec, prepare, visit_all
from mmd_jax.two_sample.kernels import Kernel, Precision, gaussian
from mmd_jax.two_sample.mmd import unbiased
from mmd_jax.two_sample.pooled import Numbers, Pooled, check_rows, is_traced, stack
from mmd_jax.two_sample.reductions import BlockSums, block_sums, split_sums_of_bins
from mmd_jax.two_sample.resampling import bin_permutations, into_bins


class PairwiseResult(NamedTuple):
    """Every pair among D data sets. The matrices are symmetric.

    Attributes:
      names: of the data sets, in the order of the axes.
      statistic: unbiased estimates of MMD², 0 on the diagonal. Shape [D, D].
      pvalue: of P_a = P_b, each by itself; 1 on the diagonal. Shape [D, D].
      pvalue_holm: adjusted by Holm for all D(D − 1)/2 pairs. Shape [D, D].
      reject: whether the pair differs, with the family-wise level alpha. Shape [D, D], bool.
      bandwidth: of all pooled rows. Shape [k].
      num_permutations: B, for each pair. Shape [].
    """

    names: tuple[str, ...]
    statistic: Array
    pvalue: Array
    pvalue_holm: Array
    reject: Array
    bandwidth: Array
    num_permutations: Array


def pairwise_tests(
    key: Key[Array, ""],
    samples: Mapping[str, Numbers],
    *,
    bins: int | None = None,
    bandwidth: Numbers | None = None,
    alpha: float = 0.05,
    num_permutations: int = 9999,
    kernel: Kernel = gaussian,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
) -> PairwiseResult:
    """Test P_a = P_b for every pair of many data sets, with Holm's correction, in one pass over all pooled rows.

    Rows are put into bins within their data set, and the bins of each pair are permuted, as `permutation_test` does
    with `bins`: each p is exact. All pairs share one bandwidth, so their distances can be compared.

    Args:
      key: consumed.
      samples: {name: rows, shape [n of the data set, d]}, at least two, of any sizes >= 2.
      bins: how many at most, over all data sets; none: 256, or 16 for each data set where these are more.
      bandwidth: of the kernel, or several [k] to sum over; none: the median of all pooled rows.
      alpha: family-wise level, in (0, 1).
      num_permutations: B, for each pair.
      kernel: which kernel.
      precision: as `permutation_test`.
      mesh: as `permutation_test`.

    Returns:
      `PairwiseResult`.

    Raises:
      ValueError: fewer than two data sets; bad rows (see `permutation_test`); a data set too small for its bins; B too
        small for the smallest adjusted p to reach alpha. TypeError: traced arguments.

    Example:
      >>> import jax
      >>> keys = jax.random.split(jax.random.key(1), 4)
      >>> a, b, c = (jax.random.normal(key, (100, 2)) for key in keys[:3])
      >>> result = pairwise_tests(keys[3], {"a": a, "b": b, "c": c + 1})
      >>> result.reject.tolist()
      [[False, False, True], [False, False, True], [True, True, False]]

    Reference: Holm, A simple sequentially rejective multiple test procedure, 1979; Domingo-Enrich et al., Cheap
    permutation testing, arXiv:2502.07672.
    """
    names = tuple(samples)
    if len(names) < 2:
        raise ValueError(f"there are {len(names)} data sets; expected at least two to compare.")
    if is_traced(key, alpha, *samples.values()):
        raise TypeError("pairwise_tests reads its numbers, so it can't be traced: use permutation_test instead.")
    check_precision(precision)
    check_knobs(key, alpha, num_permutations)
    rows = [check_rows(name, sample) for name, sample in samples.items()]
    if len({sample.shape[1] for sample in rows}) > 1:
        widths = ", ".join(f"{name} {sample.shape[1]}" for name, sample in zip(names, rows, strict=True))
        raise ValueError(
            f"the data sets have different numbers of features ({widths}); pass them through one fixed map."
        )
    sizes = np.array([len(sample) for sample in rows])
    num_pairs = len(names) * (len(names) - 1) // 2
    bins = min(max(256, 16 * len(names)), int(sizes.sum())) if bins is None else bins
    _check_bins(bins, dict(zip(names, sizes, strict=True)), float(alpha) / num_pairs)
    if allowed(np.float64(alpha) / num_pairs, num_permutations) < 1:
        raise ValueError(
            f"with {num_pairs} pairs and {num_permutations} permutations the smallest p is {num_pairs}/"
            f"{num_permutations + 1} after Holm's correction, above alpha = {alpha}; use at least "
            f"{int(np.ceil(num_pairs / alpha)) - 1} permutations."
        )
    blocks = stack(rows, pad=True)
    pooled = Pooled(blocks, int(sizes[0]), int(sizes[1:].sum()))
    bandwidth = resolve_bandwidth(bandwidth, pooled, kernel)
    sample = np.full(pooled.capacity, len(names), np.int32)
    sample[: sizes.sum()] = np.repeat(np.arange(len(names)), sizes)
    statistic, pvalue = _pairwise(
        key, pooled, sample, bandwidth,
        num_samples=len(names), bins=int(bins), num=num_permutations, spec=Spec((kernel,), precision, mesh),
    )  # fmt: skip
    statistic, pvalue = np.asarray(statistic), np.asarray(pvalue)
    check_finite(statistic)
    pairs = np.triu_indices(len(names), 1)
    adjusted = np.ones(pvalue.shape)
    adjusted[pairs] = holm(pvalue[pairs])
    adjusted = np.minimum(adjusted, adjusted.T)
    counts = np.round(adjusted * (num_permutations + 1))
    return PairwiseResult(
        names, jnp.asarray(statistic), jnp.asarray(pvalue), jnp.asarray(adjusted.astype(pvalue.dtype)),
        jnp.asarray(counts <= allowed(np.float64(alpha), num_permutations)), jnp.asarray(bandwidth),
        jnp.asarray(num_permutations, jnp.int32),
    )  # fmt: skip


def _check_bins(bins: int, sizes: dict[str, Any], alpha: float) -> None:
    if isinstance(bins, bool) or not isinstance(bins, int | np.integer):
        raise TypeError(f"bins is {bins!r}; expected a plain integer, since it is a shape.")
    count = sum(sizes.values())
    if not 2 * len(sizes) <= bins <= count:
        raise ValueError(
            f"bins is {bins}; expected at least two for each of the {len(sizes)} data sets, and no more than the {count} rows."
        )
    each = -(-int(count) // int(bins))
    smallest = min(sizes, key=lambda name: sizes[name])
    if sizes[smallest] < 2 * each:
        raise ValueError(
            f"with {bins} bins over all data sets a bin has {each} rows, and {smallest} has {sizes[smallest]} rows only; use "
            f"at least {-(-count // (int(sizes[smallest]) // 2))} bins, so that each data set has two."
        )
    least, next_least = sorted(int(size) // int(each) for size in sizes.values())[:2]
    what = f"{smallest} has {least} bins and the next larger data set {next_least}, which can be split"
    check_reach(what, count_splits(least, next_least), alpha, "rows, or use more bins")


@partial(jax.jit, static_argnames=("num_samples", "bins", "num", "spec"))
def _pairwise(
    key: Key[Array, ""],
    pooled: Pooled,
    sample: Int[Array, " N"],
    bandwidth: Float[Array, " k"],
    *,
    num_samples: int,
    bins: int,
    num: int,
    spec: Spec,
) -> tuple[Float[Array, "D D"], Float[Array, "D D"]]:
    bins_key, pairs_key = jax.random.split(key)
    binned = into_bins(bins_key, bins, sample, num_samples, None)
    blocks = jnp.asarray(pooled.blocks)
    rows = blocks.reshape(-1, blocks.shape[2])[binned.order].reshape(blocks.shape)
    problem = prepare(pooled._replace(blocks=rows), binned.bins, (bandwidth[None],), spec)
    b, t, _ = blocks.shape
    smallest = max(1, b * t // 2 // bins)
    sums = visit_all(problem, spec, block_sums(bins + num_samples, t // smallest + 2 + num_samples))
    first, second = np.triu_indices(num_samples, 1)
    found = jax.lax.map(
        lambda pair: _one_pair(pair[0], pair[1], pair[2], binned, sums, problem.shifts[0], num),
        (jax.random.split(pairs_key, len(first)), jnp.asarray(first), jnp.asarray(second)),
    )
    nothing = jnp.zeros((num_samples, num_samples), blocks.dtype)
    statistic, pvalue = (nothing.at[first, second].set(one).at[second, first].set(one) for one in found)
    return statistic, jnp.where(jnp.eye(num_samples, dtype=bool), 1, pvalue)


def _one_pair(
    key: Key[Array, ""], a: Any, b: Any, binned: Any, sums: BlockSums, shift: Float[Array, " 1"], num: int
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    columns = bin_permutations(key, num, binned, a, b)
    # What is neither in a nor in b is left out.
    number, ends = jnp.arange(len(binned.sizes)), binned.firsts + binned.counts
    inside = jnp.any(
        jnp.stack([(number >= binned.firsts[one]) & (number <= ends[one]) for one in (a, b)]), axis=0
    ).astype(sums.between.dtype)  # fmt: skip
    between = sums.between * inside[None, :, None] * inside[None, None, :]
    pair = BlockSums(between, sums.diagonal * inside[None])
    statistics = unbiased(split_sums_of_bins(pair, binned.sizes * inside, columns, shift))[0]
    return statistics[0], _pvalue(statistics, columns)


def _pvalue(statistics: Float[Array, " C"], columns: Any) -> Float[Array, ""]:
    same = jnp.all(columns == columns[:, :1], axis=0)
    # Equal bins in another order sum up in another order: what is equal but for rounding counts.
    close = statistics >= statistics[0] - 1e-5 * jnp.std(statistics)
    reached: Bool[Array, " B"] = (same | close)[1:]
    return ((1 + jnp.sum(reached)) / len(statistics)).astype(statistics.dtype)
