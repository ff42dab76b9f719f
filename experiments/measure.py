"""The two-sample tests of a run: on the inputs and on every layer, with rows that the network was not trained on."""

from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import networks
from experiments.config import Config
from experiments.sources import Dataset
from mmd_jax.models.layered import Network
from mmd_jax.transfer.inference import in_batches
from mmd_jax.transfer.profile import layer_features
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
    groups = groups_of(config, source, target)
    if groups is not None:
        groups = groups[0][rows_x], groups[1][rows_y]
    tests = tests_of_samples(config, test_key, network, variables, x, y, groups)
    notes = [RESTORED_NOTE] if config.model.weights else []
    seen = jax.eval_shape(network.features, variables, x[:1])
    if untested := [name for name in network.layers if name in seen and name not in tests]:
        notes.append(
            f"Not tested: {', '.join(untested)}. There at least half of the pairs of rows have the same features, so that "
            "no bandwidth can be taken from them."
        )
    inputs = tests.pop(INPUTS)
    return Measurement(inputs, tests, len(x), len(y), " ".join(notes))


def groups_of(config: Config, source: Dataset, target: Dataset) -> tuple[np.ndarray, np.ndarray] | None:
    """The groups of the source's test rows and of the target's training rows; none where either has none.

    Raises:
      ValueError: the test would tear groups apart, or a group stands on both sides.
    """
    x, y = source.test_groups, target.train_groups
    if x is None or y is None:
        return None
    if config.test.resampling == "wild_bootstrap":
        raise ValueError(
            "test.resampling = 'wild_bootstrap' swaps single rows, which tears groups apart; use 'permutation', or leave "
            "group_key empty"
        )
    assert config.source is not None
    if (config.source.name, config.source.group_key) != (config.target.name, config.target.group_key):
        return x, y + x.max() + 1  # each data set numbers its own groups from 0
    if shared := len(np.intersect1d(x, y)):
        raise ValueError(
            f"{shared} groups of {config.source.name} have rows both in the source's test split and in the target's training "
            "split, so that no permutation moves them whole; split the data by group, or leave group_key empty to treat "
            "rows as independent"
        )
    return x, y


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

    A layer where at least half of the pairs of rows have the same features (a dead one, say) is left out, unless it decides.

    Args:
      config: its test, and its model's preprocessing.
      key: consumed.
      network: whose layers are looked at.
      variables: its weights.
      x: rows of the source, [m, ...].
      y: rows of the target, [n, ...].
      groups: of the rows of both, permuted whole; or none.

    Raises:
      ValueError: the inputs or the deciding layer can't be tested; names which, and why.
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
    x_features, y_features = (
        {INPUTS: in_batches(lambda batch: preprocess(batch).reshape(len(batch), -1), rows)}
        | layer_features(network, variables, rows, pooling=config.test.pooling)
        for rows in (x, y)
    )
    results = {}
    for one, name in zip(jax.random.split(key, len(x_features)), x_features, strict=True):
        try:
            results[name] = test(one, x_features[name], y_features[name], **settings)
        except ValueError as error:
            if name in (INPUTS, config.decision.representation):
                raise ValueError(f"P = Q can't be tested on {name}: {error}") from error
    return results
