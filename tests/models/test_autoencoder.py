"""An autoencoder is a network like any other: sliced, frozen, and copied into a classifier by its layers' names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax.models.autoencoder import autoencoder
from mmd_jax.models.cnn8 import cnn8, cnn8_base
from mmd_jax.models.leaves import named_leaves, replace
from mmd_jax.models.mlp import mlp, mlp_base


@pytest.mark.parametrize(
    ("base", "classifier", "shape"),
    [(cnn8_base(2), cnn8(3, width=2), (8, 8, 3)), (mlp_base((6, 4)), mlp(3, hidden=(6, 4)), (5,))],
)
def test_its_encoder_is_the_classifiers(key, base, classifier, shape):
    """With the encoder's weights copied, the classifier's last layer but one gives the code."""
    network, x = autoencoder(base, shape, hidden=(7,)), jax.random.normal(key, (3, *shape))
    assert network.layers == (*classifier.layers[:-1], "decode1", "decode2")
    assert network.num_base == len(base)

    @jax.jit
    def both(x):
        variables = network.init(jax.random.key(1), x)
        own = replace(classifier.init(jax.random.key(2), x), variables, classifier.layers[:-1])
        features = network.features(variables, x)
        out, _ = network.apply(variables, x)
        again, _ = network.apply(variables, features[classifier.layers[-2]], start=len(base))
        return out, again, features, classifier.features(own, x)

    out, again, features, of_classifier = both(x)
    assert out.shape == x.shape
    np.testing.assert_allclose(out, again, atol=1e-5)
    for name in classifier.layers[:-1]:
        np.testing.assert_array_equal(features[name], of_classifier[name])


def test_the_classifiers_are_what_they_were(key):
    """Their bases in front of their last layers: no weight of the published layers has moved."""
    variables = jax.jit(cnn8(4, width=2).init)(key, jnp.ones((1, 8, 8, 1)))
    assert [path for path in named_leaves(variables) if path.endswith("kernel")] == [
        *(f"params/conv{i}/kernel" for i in range(1, 6)),
        *(f"params/fc{i}/kernel" for i in range(6, 9)),
    ]
    assert mlp(2, hidden=()).layers == ("fc1",) and mlp_base(()) == []


@pytest.mark.parametrize(
    ("base", "shape", "hidden", "message"),
    [
        ([], (4,), (3,), "at least one layer"),
        (mlp_base((3,)), (4, 0), (3,), "positive"),
        (mlp_base((3,)), (4,), (0,), "positive"),
        (mlp_base((3,)), (), (), "positive"),
    ],
)
def test_refused(base, shape, hidden, message):
    with pytest.raises(ValueError, match=message):
        autoencoder(base, shape, hidden=hidden)
