"""All forms of a convolution are one function; pooling is reduce_window; a CPU gets the form that scans fast."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mmd_jax.models import convolution
from mmd_jax.models.channelwise import depthwise_builtin, depthwise_shifted, scale_and_shift
from mmd_jax.models.convolution import (
    MIN_CHANNELS,
    MIN_MULTIPLICATIONS,
    convolve,
    convolve_builtin,
    convolve_sliced,
    convolve_winograd,
)
from mmd_jax.models.mobilenet import mobilenet_v2
from mmd_jax.models.pooling import max_pool
from mmd_jax.transfer.train import classification_loss

SHAPES = [
    ((2, 8, 8, 1), (3, 3, 1, 4)),
    ((3, 5, 7, 3), (3, 3, 3, 2)),
    ((1, 6, 4, 2), (5, 2, 2, 3)),
    ((2, 1, 1, 4), (1, 1, 4, 4)),
]
# Even and odd sizes, less than a tile, few and many channels.
THREE = [
    ((2, 8, 8, 1), (3, 3, 1, 4)),
    ((3, 5, 7, 3), (3, 3, 3, 2)),
    ((2, 4, 7, 8), (3, 3, 8, 5)),
    ((1, 1, 2, 16), (3, 3, 16, 3)),
]
CASES = [(convolve_sliced, shapes) for shapes in SHAPES] + [(convolve_winograd, shapes) for shapes in THREE]

# The fewest images of 8 × 8 with MIN_CHANNELS channels, convolved to 2, for Winograd's form.
MANY = -(-MIN_MULTIPLICATIONS // (64 * 9 * MIN_CHANNELS * 2))


@pytest.mark.parametrize("form, shapes", CASES)
def test_the_forms_agree_in_value_and_gradient(key, form, shapes):
    x, kernel, weight = (jax.random.normal(jax.random.fold_in(key, i), s) for i, s in enumerate((*shapes, shapes[0])))
    weight = weight[..., :1]

    def loss(form):
        return lambda x, kernel: jnp.sum(jnp.sin(form(x, kernel)) * weight)

    # A sum of kh·kw·c products of standard normals, in float32.
    np.testing.assert_allclose(jax.jit(form)(x, kernel), convolve_builtin(x, kernel), atol=2e-5)
    gradients = [jax.jit(jax.grad(loss(one), (0, 1)))(x, kernel) for one in (form, convolve_builtin)]
    for ours, builtin in zip(*gradients):
        np.testing.assert_allclose(ours, builtin, atol=1e-4)


@pytest.mark.parametrize("form", [convolve_sliced, convolve_winograd])
def test_a_form_is_the_double_loop(key, form):
    x = np.asarray(jax.random.normal(key, (2, 4, 5, 3)), np.float64)
    kernel = np.asarray(jax.random.normal(jax.random.fold_in(key, 1), (3, 3, 3, 2)), np.float64)
    expected = np.zeros((2, 4, 5, 2))
    for i in range(4):
        for j in range(5):
            for u in range(3):
                for v in range(3):
                    if 0 <= i + u - 1 < 4 and 0 <= j + v - 1 < 5:
                        expected[:, i, j] += x[:, i + u - 1, j + v - 1] @ kernel[u, v]
    np.testing.assert_allclose(jax.jit(form)(jnp.float32(x), jnp.float32(kernel)), expected, atol=1e-5)


STRIDED = [
    ((2, 8, 8, 3), (3, 3, 3, 2), 2, "SAME"),
    ((2, 7, 9, 3), (5, 5, 3, 2), 2, "SAME"),
    ((1, 9, 6, 2), (7, 3, 2, 4), 2, "VALID"),
    ((1, 5, 6, 4), (1, 1, 4, 3), 2, "VALID"),
    ((2, 6, 5, 4), (3, 3, 4, 3), 1, "VALID"),
]


@pytest.mark.parametrize("shape, size, stride, padding", STRIDED)
@pytest.mark.parametrize("forms", [(convolve_sliced, convolve_builtin), (depthwise_shifted, depthwise_builtin)])
def test_strides_and_padding_agree_in_value_and_gradient(key, forms, shape, size, stride, padding):
    size = size if forms[0] is convolve_sliced else size[:3]
    x, kernel, weight = (
        jax.random.normal(jax.random.fold_in(key, i), s) for i, s in enumerate((shape, size, (99, 99)))
    )
    found = []
    for form in forms:

        def loss(x, kernel, form=form):
            y = form(x, kernel, stride=stride, padding=padding)
            return jnp.sum(jnp.sin(y) * weight[None, : y.shape[1], : y.shape[2], None]), y

        found.append(jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, kernel))
    for ours, builtin in zip(*(jax.tree.leaves(one) for one in found)):
        np.testing.assert_allclose(ours, builtin, atol=1e-4)


def test_depthwise_maps_over_kernels(key):
    x, kernels = jax.random.normal(key, (2, 6, 5, 4)), jax.random.normal(key, (3, 3, 3, 4))
    gradient = jax.grad(lambda kernel: jnp.sum(depthwise_shifted(x, kernel) ** 2))
    together = jax.jit(jax.vmap(gradient))(kernels)
    np.testing.assert_allclose(together, jnp.stack([gradient(kernel) for kernel in kernels]), rtol=1e-4)


def test_scale_and_shift_has_the_gradient_of_the_plain_sum(key):
    x, scale, shift = (
        jax.random.normal(jax.random.fold_in(key, i), s) for i, s in enumerate(((2, 3, 4, 5), (5,), (5,)))
    )

    def plain(x, scale, shift):
        return x * scale[None, None, None] + shift[None, None, None]

    def gradient(function):
        return jax.grad(lambda *arrays: jnp.sum(function(*arrays) ** 3), (0, 1, 2))(x, scale, shift)

    for ours, expected in zip(gradient(scale_and_shift), gradient(plain)):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_winograd_rounds_little_more_than_a_sum_of_products(key):
    """In units of float32's precision; the operands are images after ReLU and He's weights, as in a network."""
    x = jax.nn.relu(jax.random.normal(key, (2, 8, 8, 32)))
    kernel = jax.random.normal(jax.random.fold_in(key, 1), (3, 3, 32, 16)) / 12
    with jax.enable_x64(True):
        exact = np.asarray(convolve_builtin(jnp.float64(np.asarray(x)), jnp.float64(np.asarray(kernel))))
        in_float64 = np.asarray(jax.jit(convolve_winograd)(jnp.float64(np.asarray(x)), jnp.float64(np.asarray(kernel))))
    np.testing.assert_allclose(in_float64, exact, atol=1e-13)
    error = np.sqrt(np.mean((np.asarray(jax.jit(convolve_winograd)(x, kernel)) - exact) ** 2)) / exact.std()
    assert error < 4 * np.finfo(np.float32).eps


def test_winograd_maps_over_kernels(key):
    x = jax.random.normal(key, (2, 6, 5, 8))
    kernels = jax.random.normal(jax.random.fold_in(key, 1), (3, 3, 3, 8, 4))
    together = jax.jit(jax.vmap(convolve_winograd, (None, 0)))(x, kernels)
    np.testing.assert_allclose(together, jnp.stack([convolve_winograd(x, kernel) for kernel in kernels]), atol=1e-5)


def test_winograd_refuses_other_kernels():
    with pytest.raises(ValueError, match=r"shape \(5, 5, 8, 2\).*use convolve_sliced"):
        convolve_winograd(jnp.ones((1, 8, 8, 8)), jnp.ones((5, 5, 8, 2)))


@pytest.mark.parametrize(
    "size, channels, dtype, rows, winograd",
    [
        (3, MIN_CHANNELS, jnp.float32, MANY, True),
        (3, MIN_CHANNELS, jnp.float32, MANY - 1, False),
        (3, MIN_CHANNELS - 1, jnp.float32, 2 * MANY, False),
        (5, MIN_CHANNELS, jnp.float32, MANY, False),
        (3, MIN_CHANNELS, jnp.bfloat16, MANY, False),
    ],
)
def test_on_cpu_the_form_goes_by_kernel_size_and_dtype(size, channels, dtype, rows, winograd):
    x = jax.ShapeDtypeStruct((rows, 8, 8, channels), dtype)
    kernel = jax.ShapeDtypeStruct((size, size, channels, 2), dtype)
    text = jax.jit(lambda x, kernel: convolve(x, kernel)).lower(x, kernel).as_text()
    assert text.count("stablehlo.dot_general") == (16 if winograd else 1)


@pytest.mark.parametrize("form", [convolve_sliced, convolve_winograd, convolve_builtin, convolve])
def test_dtype_is_the_wider_one(form):
    x, kernel = jnp.ones((1, 4, 4, 8), jnp.bfloat16), jnp.ones((3, 3, 8, 2), jnp.bfloat16)
    form = jax.jit(form)
    assert form(x, kernel).dtype == jnp.bfloat16
    assert form(x, kernel.astype(jnp.float32)).dtype == jnp.float32


@pytest.mark.parametrize("channels", [1, MIN_CHANNELS])
def test_on_cpu_a_scanned_training_step_holds_no_convolution_op(channels):
    """In a loop, XLA's CPU backend runs one 9 to 23 times slower; a matrix product it runs as fast as outside."""

    def step(kernel, x):
        return kernel - jax.grad(lambda kernel: jnp.sum(convolve(x, kernel) ** 2))(kernel), None

    def lowered(platform):
        scanned = jax.jit(lambda kernel, xs: lax.scan(step, kernel, xs))
        xs = jax.ShapeDtypeStruct((4, MANY, 8, 8, channels), jnp.float32)
        return scanned.lower(jnp.ones((3, 3, channels, 2)), xs).as_text()

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


def test_gradients_have_the_dtype_of_the_inputs():
    x, scale = jnp.ones((2, 3, 3, 4), jnp.bfloat16), jnp.ones(4, jnp.bfloat16)
    of_x, of_scale = jax.jit(
        jax.grad(lambda x, scale: scale_and_shift(x, scale, scale).sum().astype(jnp.float32), argnums=(0, 1))
    )(x, scale)
    assert of_x.dtype == of_scale.dtype == jnp.bfloat16
    network = mobilenet_v2(2)
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    loss = classification_loss(network, network.layers, dtype="bfloat16")
    jax.eval_shape(
        jax.grad(lambda v: loss(v, (jnp.ones((2, 32, 32, 3)), jnp.zeros(2, int)), jax.random.key(0))[0]), variables
    )
