"""What a model is here: layers with names, in order, that can be applied from one to another."""

from collections.abc import Callable
from typing import NamedTuple

from jax import Array

from mmd_jax.types import Variables


class Network(NamedTuple):
    """An ordered stack of named layers, as pure functions.

    A layer's name is also the "/"-joined path prefix of its leaves in every collection of the variables ("params",
    "batch_stats", …): that is all that freezing, copying and hashing need to know of a network.

    Attributes:
      layers: the names, in the order of computation; the last is the classifier's output layer.
      init: (key, x) -> variables. x is a batch of inputs [batch, ...], as `apply` takes it.
      apply: (variables, x, *, start=0, stop=None, train=(), key=None) -> (y, state). Runs layers[start:stop] on x, the
        input of layer `start`. `train` names the layers in training mode (batch statistics, dropout); all others run in
        evaluation mode. `state` holds the collections other than "params", after the pass (empty dict if there are none).
      features: (variables, x) -> {layer: its output, [batch, ...]}, in evaluation mode, in the order of `layers`.
      num_base: how many leading layers form the (convolutional) base; the others are the classifier.
      whole: why `start` and `stop` are not supported, in one sentence; empty where they are.
      stochastic: the layers that draw random numbers in training mode.
    """

    layers: tuple[str, ...]
    init: Callable[[Array, Array], Variables]
    apply: Callable[..., tuple[Array, Variables]]
    features: Callable[[Variables, Array], dict[str, Array]]
    num_base: int
    whole: str = ""
    stochastic: frozenset[str] = frozenset()
