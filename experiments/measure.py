"""The two-sample tests of a run: on the inputs and on every layer, with rows that the network was not trained on."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import networks
from experiments.config import Config
from experiments.networks import INPUTS
from experiments.progress import track
from experiments.sources import Dataset
from mmd_jax.models.layered import Network
from mmd_jax.transfer.inference import in_batches
from mmd_jax.transfer.profile import layer_features, mmd_profile
from mmd_jax.two_sample import permutation_test, wild_bootstrap_test
from mmd_jax.types import TwoSampleResult, Variables

RESTORED_NOTE = (
    "The network was restored, so it is not known here whether it was trained on the source rows that were tested. If it was, "
    "its features of these rows are not exchangeable with the target's, and the tests on its layers reject too often."
)


ONE_GROUPED_NOTE = (
    "Only one of source and target says which rows belong together, so the test treats all rows as independent; if rows of a "
    "group depend on each other, it rejects too often."
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

    Raises:
      ValueError: the inputs or the deciding layer can't be tested; names which, and why.
    """
    x, y, groups = chosen_rows(config, key, source, target)
    tests = dict(
        track(
            tests_of_samples(config, key_of_tests(key), network, variables, x, y, groups),
            "tests",
            1 + len(network.layers),
        )
    )
    notes = [RESTORED_NOTE] if config.model.weights else []
    if (source.test_groups is None) != (target.train_groups is None):
        notes.append(ONE_GROUPED_NOTE)
    if untested := [name for name, result in tests.items() if result is None]:
        notes.append(
            f"Not tested: {', '.join(untested)}. There at least half of the pairs of rows have the same features, so that "
            "no bandwidth can be taken from them."
        )
    if config.decision.representation in untested:
        raise ValueError(
            f"P = Q can't be tested on {config.decision.representation}, where at least half of the pairs of rows have the "
            "same features; set test.bandwidth, or decision.representation to another"
        )
    done = {name: result for name, result in tests.items() if result is not None}
    return Measurement(done.pop(INPUTS), done, len(x), len(y), " ".join(notes))


def deciding_test(config: Config, measurement: Measurement) -> TwoSampleResult:
    """The test on the representation that decides."""
    name = config.decision.representation
    return measurement.inputs if name == INPUTS else measurement.layers[name]


def check(config: Config, key: jax.Array, source: Dataset, target: Dataset) -> None:
    """Refuses inputs that can't be tested, before anything is trained: the test on them is run once for that.

    Raises:
      ValueError: names what is wrong.
    """
    x, y, groups = chosen_rows(config, key, source, target)
    samples = ({INPUTS: input_vectors(config, rows)} for rows in (x, y))
    if any(result is None for _, result in mmd_profile(key_of_tests(key), *samples, **settings_of(config, groups))):
        raise ValueError(
            "P = Q can't be tested on the inputs: at least half of the pairs of pooled rows coincide, so that no bandwidth can "
            "be taken from them; set test.bandwidth"
        )


def chosen_rows(
    config: Config, key: jax.Array, source: Dataset, target: Dataset
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """The raw rows that are compared, [m, ...] and [n, ...], at most `test.max_rows` of each, and their groups."""
    rows_x, rows_y = chosen_indices(config, key, source, target)
    groups = groups_of(config, source, target)
    if groups is not None:
        groups = groups[0][rows_x], groups[1][rows_y]
    return source.test_x[rows_x], target.train_x[rows_y], groups


def chosen_indices(config: Config, key: jax.Array, source: Dataset, target: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Which of the source's test rows and of the target's training rows are compared."""
    sizes = len(source.test_y), len(target.train_y)
    keys = jax.random.split(jax.random.split(key)[0])
    rows_x, rows_y = (
        np.sort(np.asarray(jax.random.permutation(one, size)[: config.test.max_rows]))
        for one, size in zip(keys, sizes, strict=True)
    )
    return rows_x, rows_y


def key_of_tests(key: jax.Array) -> jax.Array:
    """The key of the tests; the other half of `key` chooses the rows."""
    return jax.random.split(key)[1]


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
    if (source.origins, config.source.group_key) != (target.origins, config.target.group_key):
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
) -> Iterator[tuple[str, TwoSampleResult | None]]:
    """The config's test of two samples of raw rows, on the preprocessed inputs and on every layer, as they are done.

    Args:
      config: its test, and its model's preprocessing.
      key: consumed.
      network: whose layers are looked at.
      variables: its weights.
      x: rows of the source, [m, ...].
      y: rows of the target, [n, ...].
      groups: of the rows of both, permuted whole; or none.

    Returns:
      (name, result) pairs; None for a layer where at least half of the pairs of rows have the same features (a dead one).
    """
    samples = (representations(config, network, variables, rows) for rows in (x, y))
    return mmd_profile(key, *samples, **settings_of(config, groups))


def representations(config: Config, network: Network, variables: Variables, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The preprocessed inputs, and every layer's features, as vectors: {name: [n, d]}."""
    features = layer_features(network, variables, rows, pooling=config.test.pooling)
    return {INPUTS: input_vectors(config, rows)} | features


def input_vectors(config: Config, rows: np.ndarray) -> np.ndarray:
    """Preprocessed rows as vectors, [n, d]."""
    preprocess = networks.preprocessing(config.model, image=rows.dtype == np.uint8)
    return in_batches(lambda batch: preprocess(batch).reshape(len(batch), -1), rows)


def settings_of(config: Config, groups: tuple[np.ndarray, np.ndarray] | None) -> dict[str, Any]:
    """The config's test, as `mmd_profile` takes it."""
    permute = config.test.resampling == "permutation"
    settings: dict[str, Any] = {
        "test": permutation_test if permute else wild_bootstrap_test,
        "alpha": config.test.alpha,
        "num_permutations": config.test.permutations,
        "bandwidth": config.test.bandwidth,
        "return_null": True,
    }
    if permute and groups is not None:
        settings |= {"groups_x": groups[0], "groups_y": groups[1]}
    return settings
