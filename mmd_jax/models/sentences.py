"""A sentence is the mean of its words' vectors; a hidden layer stands between it and the classes."""

from mmd_jax.models.layered import Network, from_layers
from mmd_jax.models.mlp import dense
from mmd_jax.models.skipgram import word_vectors


def sentence_network(num_classes: int, num_words: int, *, dim: int = 50, hidden: int = 32) -> Network:
    """Layers words → hidden → head, on numbers of words [batch, T], filled up with 0.

    The layer "words" is that of `skip_gram`, so that its vectors are copied in as any layer is (`leaves.replace`).

    Args:
      num_classes: C.
      num_words: V, with the number 0 that fills up.
      dim: d, numbers a vector.
      hidden: units of the hidden layer (ReLU).

    Raises:
      ValueError: a size that is not positive, or fewer than two words.

    >>> import jax, jax.numpy as jnp
    >>> network = sentence_network(2, 7, dim=3, hidden=4)
    >>> variables = network.init(jax.random.key(0), jnp.ones((1, 5), jnp.int32))
    >>> network.apply(variables, jnp.array([[3, 1, 0, 0, 0]]))[0].shape
    (1, 2)
    """
    if num_classes < 1 or hidden < 1:
        raise ValueError(f"num_classes = {num_classes} and hidden = {hidden}; expected at least 1 of each")
    layers = [
        ("words", word_vectors(num_words, dim)),
        ("hidden", dense(hidden)),
        ("head", dense(num_classes, relu=False)),
    ]
    return from_layers(layers)
