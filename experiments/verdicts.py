"""Does the difference matter? The verdict on the deciding representation, against a margin that is given or calibrated."""

from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import ndimage

from experiments.config import Config
from experiments.measure import Measurement, chosen_indices, chosen_rows, deciding_test, input_vectors
from experiments.networks import INPUTS
from experiments.sources import Dataset
from mmd_jax.models.layered import Network
from mmd_jax.transfer.profile import layer_features
from mmd_jax.two_sample.equivalence import check_groups
from mmd_jax.two_sample.margins import margin_from_change, margin_from_splits
from mmd_jax.two_sample.verdict import Verdict, verdict
from mmd_jax.types import Variables


class Judged(NamedTuple):
    """The verdict of a run.

    Attributes:
      verdict: on the deciding representation.
      margin_from: where the margin comes from, in words.
    """

    verdict: Verdict
    margin_from: str


def judge(
    config: Config,
    key: jax.Array,
    network: Network,
    variables: Variables,
    source: Dataset,
    target: Dataset,
    measurement: Measurement,
) -> Judged:
    """The verdict on the rows that were measured, at the bandwidth of the deciding test.

    Args:
      config: its margin, test and representation.
      key: the one that the measurement was made with: the same rows are compared.
      network: whose layers are looked at.
      variables: its weights.
      source: the data it was trained on.
      target: the new data.
      measurement: of the same run.

    Raises:
      ValueError: no margin can be taken from the source; says why.
    """
    x, y, groups = chosen_rows(config, key, source, target)
    margin_key, verdict_key = jax.random.split(jax.random.fold_in(key, 0x5EED))  # the others are split(key)
    bandwidth = np.asarray(deciding_test(config, measurement).bandwidth)

    def features(rows: np.ndarray) -> np.ndarray:
        name = config.decision.representation
        if name == INPUTS:
            return input_vectors(config, rows)
        return layer_features(network, variables, rows, pooling=config.test.pooling)[name]

    margin, words = config.decision.margin, "given in the config"
    if margin is None:
        margin, words = _calibrated(config, margin_key, x, features, _labels(config, key, source, target), bandwidth)
    settings: dict[str, Any] = {} if groups is None else {"groups_x": groups[0], "groups_y": groups[1]}
    found = verdict(
        verdict_key,
        features(x),
        features(y),
        margin=margin,
        alpha=config.test.alpha,
        bandwidth=bandwidth,
        num_draws=config.test.permutations,
        test=deciding_test(config, measurement),
        **settings,
    )
    return Judged(found, words)


def check(config: Config, key: jax.Array, source: Dataset, target: Dataset) -> None:
    """Refuses a margin that the source can't give, and groups too few for an interval, before anything is trained."""
    _, _, groups = chosen_rows(config, key, source, target)
    if groups is not None:
        try:
            check_groups(*groups)
        except ValueError as error:
            raise ValueError(
                f"no verdict can be given on the {config.test.max_rows} or fewer rows of each side that are compared: {error} "
                "(test.max_rows sets how many; source.group_key and target.group_key name the groups)"
            ) from error
    margin_from = config.decision.margin_from
    if margin_from in ("classes", "groups") and (labels := _labels(config, key, source, target)) is not None:
        kinds = len(np.unique(labels))
        if not 2 <= kinds < len(labels):
            raise ValueError(
                f"decision.margin_from = {margin_from!r}, but the {len(labels)} compared source rows have {kinds} {margin_from}; "
                "expected at least two, and fewer than rows"
            )
    if margin_from == "groups" and source.test_groups is None:
        raise ValueError("decision.margin_from = 'groups', but the source has no groups; set source.group_key")
    if margin_from.startswith("blur") and source.test_x.ndim < 3:
        raise ValueError(
            f"decision.margin_from = {margin_from!r}, but the source's rows have shape {source.test_x.shape[1:]}, and only "
            "images can be blurred"
        )


def _labels(config: Config, key: jax.Array, source: Dataset, target: Dataset) -> Any:
    """Of the source rows that are compared: the class or the group of each, as the margin wants."""
    rows, _ = chosen_indices(config, key, source, target)
    labels = source.test_groups if config.decision.margin_from == "groups" else source.test_y
    return None if labels is None else labels[rows]


def _calibrated(
    config: Config, key: jax.Array, x: np.ndarray, features: Any, labels: Any, bandwidth: np.ndarray
) -> tuple[float, str]:
    kind, _, width = config.decision.margin_from.partition(":")
    try:
        if kind != "blur":
            found = margin_from_splits(key, features(x), labels, bandwidth=bandwidth)
            return found.value, f"as far as two halves of the source's {kind} are apart"
        sigma = (0, float(width), float(width)) + (0,) * (x.ndim - 3)
        found = margin_from_change(
            key, x, lambda rows: ndimage.gaussian_filter(rows, sigma), bandwidth=bandwidth, features=features
        )
        return (
            found.value,
            f"as far as the source is from itself blurred by a Gaussian of width {float(width):g} pixels",
        )
    except ValueError as error:
        raise ValueError(f"decision.margin_from = {config.decision.margin_from!r} gives no margin: {error}") from error
