"""One training step and one evaluation step, pure and not jitted; every loss and every regime goes through them."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from mmd_jax.models.layered import Network
from mmd_jax.transfer.freezing import FROZEN, stop_frozen
from mmd_jax.types import LossFn, Mixed, Tree, Variables


class TrainState(NamedTuple):
    """What the next step needs.

    Attributes:
      step: number of steps taken. Shape [], int32.
      variables: parameters and the other collections.
      opt_state: of the optimizer; holds the learning rate.
    """

    step: Array
    variables: Variables
    opt_state: Tree


def init_state(variables: Variables, optimizer: optax.GradientTransformation, *, learning_rate: float) -> TrainState:
    """A TrainState at step 0, with this learning rate in an optimizer of `staged_optimizer`."""
    return at_rate(TrainState(jnp.zeros((), jnp.int32), variables, optimizer.init(variables["params"])), learning_rate)


def rate_of(state: TrainState) -> Array:
    """The learning rate in the state of an optimizer of `staged_optimizer`. Shape []."""
    return state.opt_state.hyperparams["learning_rate"]


def at_rate(state: TrainState, rate: ArrayLike) -> TrainState:
    """The state with another learning rate."""
    rate = jnp.asarray(rate, rate_of(state).dtype)
    hyperparams = {**state.opt_state.hyperparams, "learning_rate": rate}
    return state._replace(opt_state=state.opt_state._replace(hyperparams=hyperparams))


def train_step(
    state: TrainState,
    batch: Tree,
    key: Array,
    *,
    loss: LossFn,
    optimizer: optax.GradientTransformation,
    labels: Tree,
) -> tuple[TrainState, dict[str, Array]]:
    """One step of gradient descent on the trained leaves.

    θ_trained ← θ_trained + update(∇ loss(θ)),  θ_frozen ← θ_frozen, bit for bit.

    Args:
      state: the state so far.
      batch: what `loss` takes.
      key: of the whole stage; the step's own key is folded in from `state.step`.
      loss: (variables, batch, key) -> (scalar, (model state, {name: scalar})).
      optimizer: of `staged_optimizer`.
      labels: "frozen" or anything else for every leaf of the parameters.

    Returns:
      The next state, and {"loss", "grad_norm", and what `loss` reports}, each of shape [].
    """
    params = state.variables["params"]

    def objective(params: Tree) -> tuple[Array, tuple[Variables, dict[str, Array]]]:
        variables = {**state.variables, "params": stop_frozen(params, labels)}
        return loss(variables, batch, jax.random.fold_in(key, state.step))

    (value, (model_state, metrics)), gradients = jax.value_and_grad(objective, has_aux=True)(params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, params)
    # Not optax.apply_updates for frozen leaves: −0 + 0 is +0, another bit pattern, and XLA would have to copy them.
    params = jax.tree.map(
        lambda p, u, label: p if label == FROZEN else (p + u).astype(p.dtype), params, updates, labels
    )
    variables = {**state.variables, **model_state, "params": params}
    metrics = {"loss": value, "grad_norm": optax.tree.norm(gradients), **metrics}
    return TrainState(state.step + 1, variables, opt_state), metrics


def classification_loss(network: Network, train: Sequence[str], *, start: int = 0, dtype: str = "float32") -> LossFn:
    """Mean cross-entropy of a batch (x, y), with the named layers in training mode.

    Args:
      network: its last layer gives logits [batch, classes].
      train: names of the layers in training mode; frozen layers are left out, so that their batch statistics stand still.
      start: the layer whose inputs x are; 0 for the network's own inputs.
      dtype: of the computation, "float32" or "bfloat16"; parameters, gradients and the loss itself stay as they are.

    Returns:
      A LossFn that also reports "accuracy"; y may be `Mixed`, whose first labels the accuracy is of.
    """

    def loss(
        variables: Variables, batch: tuple[Array, Array | Mixed], key: Array
    ) -> tuple[Array, tuple[Variables, dict[str, Array]]]:
        x, labels = batch
        y = labels.y if isinstance(labels, Mixed) else labels
        logits, model_state = forward(network, variables, x, start=start, dtype=dtype, train=tuple(train), key=key)
        value = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        if isinstance(labels, Mixed):
            other = optax.softmax_cross_entropy_with_integer_labels(logits, labels.other).mean()
            value = labels.share * value + (1 - labels.share) * other
        return value, (model_state, {"accuracy": (logits.argmax(-1) == y).mean(dtype=jnp.float32)})

    return loss


def eval_step(
    network: Network, variables: Variables, x: Array, *, start: int = 0, dtype: str = "float32"
) -> Float[Array, "batch classes"]:
    """Log-probabilities of a batch, every layer in evaluation mode."""
    logits, _ = forward(network, variables, x, start=start, dtype=dtype)
    return jax.nn.log_softmax(logits)


def forward(
    network: Network,
    variables: Variables,
    x: Array,
    *,
    start: int = 0,
    stop: int | None = None,
    dtype: str = "float32",
    train: tuple[str, ...] = (),
    key: Array | None = None,
) -> tuple[Array, Variables]:
    """Layers start … stop − 1 computed in `dtype`: (outputs in at least float32, model state in its own dtypes).

    Only the parameters are cast here: a network computes in their dtype, and its preprocessing comes before that.
    """
    if dtype == "float32":
        return network.apply(variables, x, start=start, stop=stop, train=train, key=key)
    low = {**variables, "params": _cast(variables["params"], dtype)}
    y, model_state = network.apply(low, x, start=start, stop=stop, train=train, key=key)
    old = {name: variables[name] for name in model_state}
    return y.astype(jnp.float32), jax.tree.map(lambda new, kept: new.astype(kept.dtype), model_state, old)


def _cast(tree: Tree, dtype: str) -> Tree:
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def cross_entropy(log_probabilities: Float[Array, "n classes"], y: Int[Array, " n"]) -> Float[Array, " n"]:
    """−log p(y) of each row."""
    return -jnp.take_along_axis(log_probabilities, y[:, None], axis=-1)[:, 0]
