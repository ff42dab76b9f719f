"""A user's own networks, of each kind that model.factory may give, and weight files."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx

from mmd_jax.models.layered import from_layers


class Block(nn.Module):
    """Dense, BatchNorm, ReLU and Dropout, as a user would write it."""

    width: int

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(self.width)(x.reshape(len(x), -1))
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dropout(0.2, deterministic=not train)(x)


class Own(nn.Module):
    """Two blocks and a classifier."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train=False):
        x = Block(16, name="below")(x, train)
        x = Block(8, name="above")(x, train)
        return nn.Dense(self.num_classes, name="head")(x)


def linen(num_classes):
    return Own(num_classes)


class Module(nnx.Module):
    """The same network as an nnx module."""

    def __init__(self, num_classes, *, rngs):
        self.below, self.above = (nnx.Linear(m, n, rngs=rngs) for m, n in ((64, 16), (16, 8)))
        self.below_norm, self.above_norm = (nnx.BatchNorm(n, rngs=rngs) for n in (16, 8))
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(8, num_classes, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.below_norm(self.below(x.reshape(len(x), -1))))
        x = nnx.relu(self.above_norm(self.above(self.dropout(x))))
        return self.head(x)


def stack(num_classes):
    return from_layers(
        [("below", Block(16)), ("above", Block(8)), ("head", nn.Dense(num_classes))], stochastic=("below", "above")
    )


def functions(num_classes):
    def init(key, x):
        sizes = (x[0].size, 16, num_classes)
        keys = jax.random.split(key, 2)
        return {
            "params": {
                name: jax.random.normal(k, (m, n)) / m**0.5 for name, k, m, n in zip("ab", keys, sizes, sizes[1:])
            }
        }

    def apply(variables, x):
        return jnp.tanh(x.reshape(len(x), -1) @ variables["params"]["a"]) @ variables["params"]["b"]

    return init, apply, ("a", "b")


def wrong_output(num_classes):
    return Own(num_classes + 1)


def breaks(num_classes):
    """A network whose loss is not a number from the start."""
    init, apply, layers = functions(num_classes)
    return init, lambda variables, x: jnp.log(-jnp.abs(apply(variables, x)) - 1), layers


def bound(num_classes):
    """The functions of a linen module, as a user hands them on who knows of (init, apply, layers) only."""
    module = Own(num_classes)
    return module.init, module.apply, ("below", "above", "head")


def named_inputs(num_classes):
    return from_layers([("inputs", Block(4)), ("head", nn.Dense(num_classes))], stochastic=("inputs",))


def save_weights(path, arrays):
    """Writes {name: array} as .npz or .safetensors, by the suffix."""
    host = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    if str(path).endswith(".npz"):
        np.savez(path, **host)
    else:
        safetensors.numpy.save_file(host, path)
