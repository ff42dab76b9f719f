"""How far apart are source and target, layer by layer, as the network sees them?"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array

from mmd_jax.models.layered import Network
from mmd_jax.transfer.inference import in_batches
from mmd_jax.two_sample import NoBandwidthError, permutation_test
from mmd_jax.types import TwoSampleResult, Variables

POOLINGS = ("mean", "flatten")


def layer_features(
    network: Network, variables: Variables, x: np.ndarray, *, pooling: str = "mean", batch_size: int = 512
) -> dict[str, np.ndarray]:
    """Every layer's output as vectors, in evaluation mode.

    Args:
      network: the network.
      variables: its variables.
      x: inputs [n, ...].
      pooling: how a feature map [H, W, C] becomes a vector: "mean" over H and W gives [C]; "flatten" gives [H·W·C].
      batch_size: rows a call.

    Returns:
      {layer: [n, d] float32}, in the network's order.

    Raises:
      ValueError: on an unknown pooling.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"unknown pooling {pooling!r}; there are {', '.join(POOLINGS)}")
    features = in_batches(lambda batch: _features(variables, batch, network=network, pooling=pooling), x, batch_size)
    # Dictionaries come out of jit with sorted keys.
    return {name: features[name] for name in network.layers if name in features}


@partial(jax.jit, static_argnames=("network", "pooling"))
def _features(variables: Variables, x: Array, *, network: Network, pooling: str) -> dict[str, Array]:
    def vectors(output: Array) -> Array:
        if pooling == "mean" and output.ndim > 2:
            output = output.mean(axis=tuple(range(1, output.ndim - 1)))
        return output.reshape(len(output), -1).astype("float32")

    return {name: vectors(output) for name, output in network.features(variables, x).items()}


def mmd_profile(
    key: Array,
    source: Mapping[str, np.ndarray],
    target: Mapping[str, np.ndarray],
    *,
    test: Callable[..., TwoSampleResult] = permutation_test,
    **settings: Any,
) -> Iterator[tuple[str, TwoSampleResult | None]]:
    """One two-sample test a layer, each with its own bandwidth, as they are done.

    Args:
      key: consumed; every layer gets a key of its own.
      source: {layer: [m, d]}, from rows that the network was not trained on (else features of P and Q are not exchangeable).
      target: {layer: [n, d]}.
      test: `permutation_test` or `wild_bootstrap_test`.
      **settings: for the test.

    Yields:
      (layer, TwoSampleResult), in the order of `source`; None for a layer without a median distance, because at least half of
      the pairs of rows have the same features there (a dead one, say).

    Raises:
      ValueError: as the test does, naming the layer.
    """
    for one, name in zip(jax.random.split(key, len(source)), source, strict=True):
        try:
            yield name, test(one, source[name], target[name], **settings)
        except NoBandwidthError:
            yield name, None
        except ValueError as error:
            raise ValueError(f"P = Q can't be tested on {name}: {error}") from error
