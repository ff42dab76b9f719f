"""The values that pass between rooms.

Shapes use one alphabet throughout: m, n samples of source and target; N = m + n pooled; d features; B permutations;
C membership columns; L layers; k bandwidths.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax import Array

# {"params": tree, "batch_stats": tree, …}: linen's layout, and all that this library asks of a network's weights.
Variables = Mapping[str, Any]
# A pytree of arrays.
Tree = Any
# loss(variables, batch, key) -> (scalar, (model state after the pass, {name: scalar}))
LossFn = Callable[[Variables, Any, Array], tuple[Array, tuple[Variables, dict[str, Array]]]]


class KernelTable(NamedTuple):
    """What each of K kernels and bandwidths found alone, in a test over all of them.

    Attributes:
      layer: which of the layers, by its place among them, where several were tested together; else 0. Shape [K], int32.
      kernel: which of the kernels, by its place among them. Shape [K], int32.
      bandwidth: shape [K].
      statistic: unbiased estimate of MMD² by this kernel. Shape [K].
      pvalue: not adjusted for there being K of them. Shape [K].
      reject: whether this kernel's statistic is among those for which the test rejects. Shape [K], bool.
    """

    layer: Array
    kernel: Array
    bandwidth: Array
    statistic: Array
    pvalue: Array
    reject: Array


class TwoSampleResult(NamedTuple):
    """What a two-sample test of P = Q found. Every field may carry leading axes from `jax.vmap`.

    Attributes:
      statistic: unbiased estimate of MMD², in squared kernel units; it can be negative. Shape [].
      pvalue: (1 + #{null >= statistic}) / (1 + B), never 0. Shape [].
      threshold: the statistic above which the test rejects at its level. Shape [].
      reject: whether P = Q is rejected, decided on integer counts. Shape [], bool.
      mmd_biased: biased estimate of MMD: the largest difference of means over the unit ball of the RKHS. Shape [].
      bandwidth: the bandwidths that were summed over. Shape [k].
      num_permutations: resampled statistics that p rests on; 0 for a test that does not resample. Shape [].
      pvalue_interval: 95 % Monte-Carlo interval of the p-value that all resamplings would give. Shape [2].
      null: the resampled statistics where they were asked for, else None. Shape [B].
      kernels: what each kernel and bandwidth found alone, for a test over several, else None.
    """

    statistic: Array
    pvalue: Array
    threshold: Array
    reject: Array
    mmd_biased: Array
    bandwidth: Array
    num_permutations: Array
    pvalue_interval: Array
    null: Array | None = None
    kernels: KernelTable | None = None


class Rows(NamedTuple):
    """Labelled rows on the host.

    Attributes:
      x: inputs of the network, or of the layer they were cached for. Shape [n, ...], numpy; uint8 images stay uint8.
      y: labels 0 … classes − 1. Shape [n], int32.
    """

    x: np.ndarray
    y: np.ndarray


class Mixed(NamedTuple):
    """Labels of a batch whose rows were mixed in pairs: y in the share λ, the other in the share 1 − λ.

    Attributes:
      y: labels. Shape [batch], int32.
      other: of the rows that were mixed in. Shape [batch], int32.
      share: λ. Shape [].
    """

    y: Array
    other: Array
    share: Array


class Similarity(NamedTuple):
    """What is known of P = Q when a rule is asked.

    Attributes:
      kind: "similar", "different", "undecided" or "unknown".
      evidence: one sentence that says how it is known.
    """

    kind: str
    evidence: str


class Stage(NamedTuple):
    """One stage of fine-tuning: each layer is frozen or trained, by name.

    Attributes:
      frozen: layers that take no gradient, no weight decay and no new batch statistics.
      trained: (layer, multiplier of the learning rate), in the network's order.
      reinitialised: the trained layers that start from fresh weights at the beginning of this stage.
      augment: whether inputs are augmented in training, by the recipe's augmentation.
      cached: whether the frozen prefix is computed once and its outputs kept.
      cache_reason: why it is cached, or why not, and where augmentation is off for it, why; in sentences.
    """

    frozen: tuple[str, ...]
    trained: tuple[tuple[str, float], ...]
    reinitialised: tuple[str, ...] = ()
    augment: bool = False
    cached: bool = False
    cache_reason: str = ""


class Plan(NamedTuple):
    """How the network is reused.

    Attributes:
      rule: the rule that chose ("patent", "quadrant"), or "given" where the user did.
      regime: "linear_probe", "finetune_top", "finetune_all", "lp_ft" or "from_scratch".
      stages: carried out in order.
      reason: one sentence.
    """

    rule: str
    regime: str
    stages: tuple[Stage, ...]
    reason: str


def as_they_are(x: Any) -> Any:
    """The rows of most objectives are the network's inputs."""
    return x


class Objective(NamedTuple):
    """What a fit minimises. It is hashed with what a chunk is compiled for: make one once.

    Attributes:
      loss: (network, names of the layers in training mode, *, start=0, dtype="float32") -> LossFn of a batch (x, y).
      validate: (network, variables, rows, *, start=0, precision="float32") -> {"loss": …, other numbers by name}, over
        all rows, every layer in evaluation mode.
      check: (network, *parts) -> None; refuses rows that it can't be minimised on, by a ValueError.
      inputs: (x of some rows) -> a batch as the network takes it, for the shapes of fresh weights.
    """

    loss: Callable[..., LossFn]
    validate: Callable[..., dict[str, float]]
    check: Callable[..., None]
    inputs: Callable[[Any], Any] = as_they_are
