"""Freezing is data: a label a leaf, from which follow the gradients that are stopped and the optimizer that skips them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
import optax

from mmd_jax.models import leaves
from mmd_jax.types import Stage, Tree, Variables

FROZEN = "frozen"
TRAINED = "trained"


def freeze_labels(params: Tree, frozen: Sequence[str]) -> Tree:
    """Labels every leaf "frozen" or "trained", for `optax.multi_transform`.

    Args:
      params: any pytree of parameters.
      frozen: path prefixes ("conv1", "encoder/block_1"): a leaf is frozen if its "/"-joined path is, or lies under, one.

    Returns:
      A pytree of strings with the structure of `params`.

    Raises:
      ValueError: if a prefix matches no leaf; the message prints the names there are.

    Example:
      >>> freeze_labels({"conv1": {"kernel": 0.0}, "head": {"kernel": 0.0}}, ["conv1"])
      {'conv1': {'kernel': 'frozen'}, 'head': {'kernel': 'trained'}}
    """
    if isinstance(frozen, str):
        raise ValueError(f"frozen is a sequence of layer names, got the string {frozen!r}; write [{frozen!r}]")
    frozen = tuple(frozen)
    leaves.take({"params": params}, frozen)  # an error where a prefix matches nothing
    return jax.tree_util.tree_map_with_path(
        lambda path, _: FROZEN if leaves.layer_of(leaves.path_name(path), frozen) else TRAINED, params
    )


def stop_frozen(params: Tree, labels: Tree) -> Tree:
    """Stops the gradient at every frozen leaf, so that XLA computes none for it, whatever reads the gradients later.

    Clipping by a global norm or logging it would otherwise keep the whole backward pass alive (optax #290, #477).

    Args:
      params: pytree of arrays.
      labels: of `freeze_labels`.

    Returns:
      `params`, to be used inside the function that is differentiated.
    """
    return jax.tree.map(lambda p, label: jax.lax.stop_gradient(p) if label == FROZEN else p, params, labels)


def stage_labels(params: Tree, stage: Stage) -> Tree:
    """Labels every leaf "frozen" or with its layer's multiplier of the learning rate, as a string.

    Args:
      params: the network's parameters.
      stage: says of every layer what is done with it.

    Returns:
      A pytree of strings: "frozen", "1.0", "0.1", …

    Raises:
      ValueError: if a leaf belongs to no layer of the stage.
    """
    labels = {**dict.fromkeys(stage.frozen, FROZEN), **{name: str(rate) for name, rate in stage.trained}}
    leaves.check_cover({"params": params}, tuple(labels))
    return jax.tree_util.tree_map_with_path(
        lambda path, _: labels[str(leaves.layer_of(leaves.path_name(path), labels))], params
    )


def staged_optimizer(
    transform: Callable[[jax.Array], optax.GradientTransformation], labels: Tree, *, clip_norm: float = 0.0
) -> optax.GradientTransformationExtraArgs:
    """`optax.multi_transform` over the labels of a stage, with one learning rate that is traced.

    Args:
      transform: learning rate -> the transformation of trained leaves (for example `optax.adamw`).
      labels: of `stage_labels`, or of `freeze_labels`, whose trained leaves take the learning rate as it is.
      clip_norm: global norm at which the gradients of trained leaves are clipped; 0 for no clipping.

    Returns:
      An optimizer whose state has `.hyperparams["learning_rate"]`; it keeps no moments and applies no weight decay for
      frozen leaves.
    """

    def build(learning_rate: jax.Array) -> optax.GradientTransformation:
        multipliers = sorted(set(jax.tree.leaves(labels)) - {FROZEN})
        transforms = {
            label: transform((1.0 if label == TRAINED else float(label)) * learning_rate) for label in multipliers
        }
        staged = optax.multi_transform({**transforms, FROZEN: optax.set_to_zero()}, labels)
        return optax.chain(optax.clip_by_global_norm(clip_norm), staged) if clip_norm else staged

    return optax.inject_hyperparams(build)(learning_rate=1.0)


def leaf_hash(leaf: Tree) -> str:
    """The sha256 of an array's dtype, shape and bytes.

    Example:
      >>> import numpy as np
      >>> leaf_hash(np.float32(0.0)) == leaf_hash(np.float32(-0.0))
      False
    """
    array = np.asarray(leaf)
    digest = hashlib.sha256(f"{array.dtype}{list(array.shape)}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def frozen_hashes(variables: Variables, stage: Stage) -> dict[str, str]:
    """{path: `leaf_hash`} of what a stage must not change: the leaves of its frozen layers, in every collection."""
    return {path: leaf_hash(leaf) for path, leaf in leaves.take(variables, stage.frozen).items()}


def check_frozen(before: Mapping[str, str], variables: Variables, stage: Stage) -> None:
    """Checks that frozen parameters and batch statistics are bit-identical to what they were.

    Args:
      before: `frozen_hashes` at the start of the stage.
      variables: at its end.
      stage: the stage.

    Raises:
      RuntimeError: naming the leaves that changed.
    """
    after = frozen_hashes(variables, stage)
    if changed := sorted(name for name in {*before, *after} if before.get(name) != after.get(name)):
        raise RuntimeError(
            f"frozen leaves changed during the stage: {', '.join(changed)}; the loss or the network's apply returned new "
            "values for layers that the plan freezes"
        )
