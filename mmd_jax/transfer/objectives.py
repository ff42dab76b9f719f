"""What a fit minimises: the loss of a batch, its value over validation rows, and which rows it can take."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mmd_jax.models.layered import Network
from mmd_jax.transfer.inference import log_probabilities
from mmd_jax.transfer.train import classification_loss, cross_entropy
from mmd_jax.types import Objective, Rows, Variables


def validate(
    network: Network, variables: Variables, rows: Rows, *, start: int = 0, precision: str = "float32"
) -> dict[str, float]:
    """{"loss": mean cross-entropy in nats, "accuracy"} of a classifier on some rows."""
    found = log_probabilities(network, variables, rows.x, start=start, precision=precision)
    losses = cross_entropy(jnp.asarray(found), jnp.asarray(rows.y))
    return {"loss": float(losses.mean()), "accuracy": float((found.argmax(-1) == rows.y).mean())}


def check_rows(network: Network, *parts: Rows) -> None:
    """Refuses rows that a classifier can't be trained on: none, lengths that differ, labels outside 0 … classes − 1."""
    for x, y in parts:
        if not len(y) or len(x) != len(y):
            raise ValueError(
                f"there are {len(x)} rows of inputs and {len(y)} labels; expected as many of both, at least one"
            )
        if not np.issubdtype(np.asarray(y).dtype, np.integer):
            raise ValueError(f"labels have dtype {np.asarray(y).dtype}; expected integers from 0")

        def classes(row: Array) -> Array:
            return network.apply(network.init(jax.random.key(0), row), row)[0]

        num_classes = jax.eval_shape(classes, x[:1]).shape[-1]
        if y.min() < 0 or y.max() >= num_classes:
            raise ValueError(
                f"labels run from {y.min()} to {y.max()}, but the network has {num_classes} outputs; expected labels "
                f"0 … {num_classes - 1}"
            )


CLASSIFICATION = Objective(classification_loss, validate, check_rows)
