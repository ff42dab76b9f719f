"""Do two series differ, whose rows depend on the rows before them? Neither permutations nor signs of single rows know."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Float, Key

from mmd_jax.two_sample.bandwidths import resolve_bandwidth
from mmd_jax.two_sample.checks import check_knobs, check_precision
from mmd_jax.two_sample.gram import Spec, prepare, visit_all
from mmd_jax.two_sample.kernels import Kernel, Precision, gaussian
from mmd_jax.two_sample.mmd import biased, unbiased
from mmd_jax.two_sample.pooled import Numbers, Pooled, is_traced, pool
from mmd_jax.two_sample.reductions import ColumnSums, as_split_sums, quadratic_forms
from mmd_jax.two_sample.resampling import observed_column
from mmd_jax.two_sample.significance import check_result, decide, is_good
from mmd_jax.types import TwoSampleResult


def time_series_test(
    key: Key[Array, ""],
    x: Numbers,
    y: Numbers,
    *,
    block_length: ArrayLike = 20.0,
    bandwidth: Numbers | None = None,
    alpha: ArrayLike = 0.05,
    num_permutations: int = 999,
    kernel: Kernel = gaussian,
    precision: Precision = "highest",
    mesh: Mesh | None = None,
    return_null: bool = False,
) -> TwoSampleResult:
    """Test whether two stationary series have the same marginal distribution, by a wild bootstrap of dependent weights."""
    check_precision(precision)
    check_knobs(key, alpha, num_permutations)
    if not is_traced(block_length) and not (np.ndim(block_length) == 0 and 0 < float(block_length) < np.inf):
        raise ValueError(f"block_length is {block_length}; expected a positive number of rows.")
    pooled = pool(x, y, pad=not is_traced(key, x, y, bandwidth, alpha, block_length))
    bandwidth = resolve_bandwidth(bandwidth, pooled, kernel)
    dtype = pooled.blocks.dtype
    alpha, block_length = (value if is_traced(value) else np.asarray(value, dtype) for value in (alpha, block_length))
    spec = Spec((kernel,), precision, mesh)
    result = _run(key, pooled, bandwidth, alpha, block_length, spec=spec, num=num_permutations, return_null=return_null)
    check_result(result)
    return result


@partial(jax.jit, static_argnames=("spec", "num", "return_null"))
def _run(
    key: Key[Array, ""],
    pooled: Pooled,
    bandwidth: Float[Array, " k"],
    alpha: Float[Array, ""],
    block_length: Float[Array, ""],
    *,
    spec: Spec,
    num: int,
    return_null: bool,
) -> TwoSampleResult:
    dtype = jnp.asarray(pooled.blocks).dtype
    weights = wild_weights(key, num, pooled, block_length).astype(dtype)
    columns = jnp.concatenate(
        [
            observed_column(pooled).astype(dtype),
            _as_difference(jnp.ones_like(weights[:, :1]), pooled),
            _as_difference(weights, pooled),
        ],
        axis=1,
    )
    problem = prepare(pooled, columns, (bandwidth[None],), spec)
    forms = visit_all(problem, spec, quadratic_forms)
    # Each column sums to 0, so the shift cancels.
    squared = (forms.within + forms.diagonal)[0, 1:-1]
    sums = as_split_sums(ColumnSums(*(value[:, jnp.array([0, -1])] for value in forms)), problem)
    estimate, root = unbiased(sums)[0, 0], biased(sums)[0, 0]
    good = is_good(pooled, alpha, num, None) & (block_length > 0) & jnp.all(jnp.isfinite(squared))
    # In units of MMD²ᵤ, from which MMD_b² differs by a constant of the sample.
    statistics = jnp.concatenate([estimate[None], squared[1:] - (squared[0] - estimate)])
    return decide(statistics, alpha, good)._replace(
        mmd_biased=jnp.where(good, root, jnp.nan),
        bandwidth=bandwidth,
        null=jnp.where(good, statistics[1:], jnp.nan) if return_null else None,
    )


def wild_weights(key: Key[Array, ""], num: int, pooled: Pooled, block_length: Any) -> Float[Array, "N B"]:
    """Autoregressive multipliers of the rows, centred within each sample, one set a column."""
    start_key, noise_key = jax.random.split(key)
    decay = jnp.exp(-1 / block_length)
    row = jnp.arange(pooled.capacity)

    def step(before: Array, row: Array) -> tuple[Array, Array]:
        noise = jax.random.normal(jax.random.fold_in(noise_key, row), (num,), before.dtype)
        # The second sample's series starts afresh.
        now = jnp.where(
            (row == 0) | (row == pooled.m), noise, decay * before + jnp.sqrt(-jnp.expm1(-2 / block_length)) * noise
        )
        return now, now

    dtype = jnp.asarray(pooled.blocks).dtype
    weights = lax.scan(step, jax.random.normal(start_key, (num,), dtype), row)[1]
    in_x, in_y = (row < pooled.m)[:, None], ((row >= pooled.m) & (row < pooled.count))[:, None]
    mean_x = jnp.sum(weights, axis=0, where=in_x, keepdims=True) / pooled.m
    mean_y = jnp.sum(weights, axis=0, where=in_y, keepdims=True) / pooled.n
    return weights - jnp.where(in_x, mean_x, mean_y)


def _as_difference(weights: Float[Array, "N C"], pooled: Pooled) -> Float[Array, "N C"]:
    row = jnp.arange(pooled.capacity)[:, None]
    return jnp.where(row < pooled.m, weights / pooled.m, jnp.where(row < pooled.count, -weights / pooled.n, 0))
