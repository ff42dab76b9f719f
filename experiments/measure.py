"""The two-sample tests of a run: on the inputs and on every layer, with rows that the network was not trained on."""

from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import networks
from experiments.config import Config
from experiments.sources import Dataset
from mmd_jax.models.layered import Network
from mmd_jax.transfer.inference import in_batches
from mmd_jax.transfer.profile import layer_features, mmd_profile
from mmd_jax.two_sample import permutation_test, wild_bootstrap_test
from mmd_jax.types import TwoSampleResult, Variables

INPUTS = "inputs"
RESTORED_NOTE = (
    "The network was restored, so it is not known here whether it was trained on the source rows that were tested. If it was, "
    "its features of these rows are not exchangeable with the target's, and the tests on its layers reject too often."
)


class Measurement(NamedTuple):
    """The two-sample tests of a run.

    Attributes:
      inputs: on the preprocessed inputs, as vectors.
      layers: {layer: test on its features}.
      m: rows of the source.
      n: rows of the target.
      note: what a reader must know of the rows; may be empty.
    """

    inputs: TwoSampleResult
    layers: dict[str, TwoSampleResult]
    m: int
    n: int
    note: str


def measure(
    config: Config, key: jax.Array, network: Network, variables: Variables, source: Dataset, target: Dataset
) -> Measurement:
    """Tests P = Q on the inputs and on every layer, with source rows that the network was not trained on.

    The source's test rows are such rows; of the target, training rows are taken, so that its test rows stay unseen.
    """
    rows_key, test_key = jax.random.split(key)
    sizes = len(source.test_y), len(target.train_y)
    rows_x, rows_y = (
        np.sort(np.asarray(jax.random.permutation(k, size)[: config.test.max_rows]))
        for k, size in zip(jax.random.split(rows_key), sizes, strict=True)
    )
    x, y = source.test_x[rows_x], target.train_x[rows_y]
    groups_x, groups_y = source.test_groups, target.train_groups
    groups = None if groups_x is None or groups_y is None else (groups_x[rows_x], groups_y[rows_y])
    tests = tests_of_samples(config, test_key, network, variables, x, y, groups)
    inputs = tests.pop(INPUTS)
    return Measurement(inputs, tests, len(x), len(y), RESTORED_NOTE if config.model.weights else "")


def tests_of_samples(
    config: Config,
    key: jax.Array,
    network: Network,
    variables: Variables,
    x: np.ndarray,
    y: np.ndarray,
    groups: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, TwoSampleResult]:
    """The config's test of two samples of raw rows, on the preprocessed inputs and on every layer: {name: result}.

    Args:
      config: its test, and its model's preprocessing.
      key: consumed.
      network: whose layers are looked at.
      variables: its weights.
      x: rows of the source, [m, ...].
      y: rows of the target, [n, ...].
      groups: of the rows of both, permuted whole; or none.
    """
    settings: dict[str, Any] = {
        "alpha": config.test.alpha,
        "num_permutations": config.test.permutations,
        "bandwidth": config.test.bandwidth,
        "return_null": True,
    }
    test = permutation_test if config.test.resampling == "permutation" else wild_bootstrap_test
    if test is permutation_test and groups is not None:
        settings |= {"groups_x": groups[0], "groups_y": groups[1]}
    preprocess = networks.preprocessing(config.model, image=x.dtype == np.uint8)
    samples = [
        {INPUTS: in_batches(lambda batch: preprocess(batch).reshape(len(batch), -1), rows)}
        | layer_features(network, variables, rows, pooling=config.test.pooling)
        for rows in (x, y)
    ]
    return mmd_profile(key, *samples, test=test, **settings)
