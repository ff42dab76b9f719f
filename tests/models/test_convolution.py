"""Both forms of a convolution are one function; pooling is reduce_window; a CPU gets the form that scans fast."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mmd_jax.models import convolution
from mmd_jax.models.convolution import convolve, convolve_builtin, convolve_sliced, max_pool

SHAPES = [
    ((2, 8, 8, 1), (3, 3, 1, 4)),
    ((3, 5, 7, 3), (3, 3, 3, 2)),
    ((1, 6, 4, 2), (5, 2, 2, 3)),
    ((2, 1, 1, 4), (1, 1, 4, 4)),
]


@pytest.mark.parametrize("shapes", SHAPES)
def test_both_forms_agree_in_value_and_gradient(key, shapes):
    x, kernel, weight = (jax.random.normal(jax.random.fold_in(key, i), s) for i, s in enumerate((*shapes, shapes[0])))
    weight = weight[..., :1]

    def loss(form):
        return lambda x, kernel: jnp.sum(jnp.sin(form(x, kernel)) * weight)

    # A sum of kh·kw·c products of standard normals, in float32.
    np.testing.assert_allclose(convolve_sliced(x, kernel), convolve_builtin(x, kernel), atol=1e-5)
    for sliced, builtin in zip(
        jax.grad(loss(convolve_sliced), (0, 1))(x, kernel), jax.grad(loss(convolve_builtin), (0, 1))(x, kernel)
    ):
        np.testing.assert_allclose(sliced, builtin, atol=1e-4)


def test_sliced_form_is_the_double_loop(key):
    x = np.asarray(jax.random.normal(key, (2, 4, 5, 3)), np.float64)
    kernel = np.asarray(jax.random.normal(jax.random.fold_in(key, 1), (3, 3, 3, 2)), np.float64)
    expected = np.zeros((2, 4, 5, 2))
    for i in range(4):
        for j in range(5):
            for u in range(3):
                for v in range(3):
                    if 0 <= i + u - 1 < 4 and 0 <= j + v - 1 < 5:
                        expected[:, i, j] += x[:, i + u - 1, j + v - 1] @ kernel[u, v]
    np.testing.assert_allclose(convolve_sliced(jnp.float32(x), jnp.float32(kernel)), expected, atol=1e-5)


@pytest.mark.parametrize("form", [convolve_sliced, convolve_builtin, convolve])
def test_dtype_is_the_wider_one(form):
    x, kernel = jnp.ones((1, 4, 4, 2), jnp.bfloat16), jnp.ones((3, 3, 2, 2), jnp.bfloat16)
    assert form(x, kernel).dtype == jnp.bfloat16
    assert form(x, kernel.astype(jnp.float32)).dtype == jnp.float32


def test_on_cpu_a_scanned_training_step_holds_no_convolution_op():
    """In a loop, XLA's CPU backend runs one 9 to 23 times slower; a matrix product it runs as fast as outside."""

    def step(kernel, x):
        return kernel - jax.grad(lambda kernel: jnp.sum(convolve(x, kernel) ** 2))(kernel), None

    def lowered(platform):
        scanned = jax.jit(lambda kernel, xs: lax.scan(step, kernel, xs))
        return scanned.lower(jnp.ones((3, 3, 1, 2)), jnp.ones((4, 2, 8, 8, 1))).as_text()

    assert jax.default_backend() == "cpu"
    text = lowered("cpu")
    assert "stablehlo.convolution" not in text
    assert "stablehlo.dot_general" in text


@pytest.mark.parametrize("backend", ["gpu", "tpu"])
def test_elsewhere_it_is_the_builtin_one(monkeypatch, backend):
    monkeypatch.setattr(convolution.jax, "default_backend", lambda: backend)
    # A new function each time: jax keeps the trace of one it has seen.
    text = (
        jax.jit(lambda x, kernel: convolve(x, kernel)).lower(jnp.ones((1, 8, 8, 1)), jnp.ones((3, 3, 1, 2))).as_text()
    )
    assert "stablehlo.convolution" in text


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (2, 3)])
def test_max_pool_is_reduce_window(key, size):
    x = jax.random.normal(key, (2, *size, 3))

    def reference(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    np.testing.assert_array_equal(max_pool(x), reference(x))
    gradients = [jax.grad(lambda x, pool=pool: jnp.sum(jnp.sin(pool(x))))(x) for pool in (max_pool, reference)]
    np.testing.assert_allclose(*gradients, atol=1e-6)


def test_max_pool_shares_the_gradient_among_ties():
    gradient = jax.grad(lambda x: jnp.sum(max_pool(x)))(jnp.zeros((1, 2, 2, 1)))
    assert float(gradient.sum()) == 1.0
