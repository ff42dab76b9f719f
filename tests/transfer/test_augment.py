"""Augmentation: what each part may do to an image, how labels are mixed, and that a stage that asks for it gets it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmd_jax import from_layers, preprocessed, stages_of
from mmd_jax.intervals import binomial_interval
from mmd_jax.models.mlp import dense
from mmd_jax.transfer.augment import Augmentation, augment, augmented, check_augmentation
from mmd_jax.transfer.finetune import begin_fit, fit, prepare
from mmd_jax.transfer.prefix import with_caching
from mmd_jax.transfer.recipe import Recipe
from mmd_jax.types import Plan, Rows

NOTHING = Augmentation(flip=False, crop=0.0, colour=0.0, mixup=0.0)
IMAGES = np.random.default_rng(0).integers(0, 256, (200, 8, 6, 3), np.uint8)


def done(settings, images=IMAGES, seed=0):
    return np.asarray(jax.jit(lambda key: augment(key, images, settings))(jax.random.key(seed)))


def test_nothing_is_done_where_nothing_is_asked_for():
    assert done(NOTHING).dtype == np.float32
    np.testing.assert_array_equal(done(NOTHING), IMAGES)


def test_half_of_the_images_are_mirrored():
    found = done(NOTHING._replace(flip=True))
    mirrored = (found == IMAGES[:, :, ::-1]).all((1, 2, 3))
    assert (mirrored | (found == IMAGES).all((1, 2, 3))).all()
    interval = binomial_interval(int(mirrored.sum()), len(IMAGES), level=0.999)
    assert interval.low < 0.5 < interval.high


def test_each_image_is_moved_by_whole_pixels_and_its_edges_are_repeated():
    found = done(NOTHING._replace(crop=0.25))
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")  # a quarter of 8 and (rounded) of 6
    moves = {(i, j): padded[:, i : i + 8, j : j + 6] for i in range(5) for j in range(5)}
    hits = {by: (found == moved).all((1, 2, 3)) for by, moved in moves.items()}
    assert np.any(list(hits.values()), axis=0).all()
    assert sum(hit.any() for hit in hits.values()) > 20  # of 25 moves


def test_colours_keep_a_grey_image_grey_within_the_bounds():
    grey = np.full((200, 2, 2, 3), 100, np.uint8)
    found = done(NOTHING._replace(colour=0.3), grey)
    np.testing.assert_allclose(found, np.broadcast_to(found[:, :1, :1, :1], found.shape), rtol=1e-5)
    assert 69.9 < found.min() < 80 and 120 < found.max() < 130.1
    bright = done(NOTHING._replace(colour=1.0))
    assert bright.min() >= 0 and bright.max() <= 255


def test_images_and_labels_are_mixed_in_the_same_share():
    x = jnp.arange(1.0, 5.0).reshape(4, 1, 1, 1)
    y = jnp.array([1.0, 0.0, 2.0, 5.0])

    def loss(variables, batch, key):
        x, (y, other, share) = batch
        return (x.ravel() * (share * y + (1 - share) * other)).sum(), ({}, {"x": x})

    value, (_, metrics) = augmented(loss, NOTHING._replace(mixup=1.0))({}, (x, y), jax.random.key(3))
    mixed = np.asarray(metrics["x"]).ravel()
    share = (mixed[0] - 4) / (1 - 4)
    assert 0 < share < 1
    np.testing.assert_allclose(mixed, share * x.ravel() + (1 - share) * x.ravel()[::-1], rtol=1e-5)
    np.testing.assert_allclose(value, (mixed * (share * y + (1 - share) * y[::-1])).sum(), rtol=1e-5)


def test_rows_that_are_not_images_are_left_as_they_are():
    rows = jnp.ones((4, 3))

    def loss(variables, batch, key):
        assert batch[0] is rows
        return jnp.float32(0), ({}, {})

    augmented(loss, Augmentation())({}, (rows, jnp.ones(4)), jax.random.key(0))


@pytest.mark.parametrize(
    "name, value", [("crop", 0.7), ("colour", -0.1), ("mixup", float("nan")), ("crop", float("nan"))]
)
def test_settings_that_cannot_be_meant_are_named(name, value):
    with pytest.raises(ValueError, match=f"augmentation {name} = {value}"):
        check_augmentation(NOTHING._replace(**{name: value}))


NETWORK = preprocessed(
    from_layers([("first", dense(8)), ("last", dense(2, relu=False))]), lambda x: jnp.asarray(x, jnp.float32) / 255
)
ROWS = Rows(IMAGES[:32], np.arange(32, dtype=np.int32) % 2)


def trained(recipe, *, augment, num_frozen=0, resume=0):
    [stage] = stages_of("finetune_top", NETWORK.layers, num_frozen=num_frozen, augment=augment)
    variables = NETWORK.init(jax.random.key(0), jnp.asarray(ROWS.x[:1], jnp.float32))
    prepared = prepare(jax.random.key(1), NETWORK, variables, stage, ROWS, ROWS, recipe=recipe)
    states = [begin_fit(NETWORK, prepared, learning_rate=1e-4, recipe=recipe)]
    states += [state for state, _ in fit(NETWORK, prepared, states[0], recipe=recipe)]
    if resume:
        states = [state for state, _ in fit(NETWORK, prepared, states[resume], recipe=recipe)]
    return jax.tree.leaves(states[-1].train.variables)


def test_a_stage_that_asks_for_it_is_augmented_and_resumes_bit_for_bit():
    recipe = Recipe(epochs=3, batch_size=16, augmentation=Augmentation(flip=True))
    whole = trained(recipe, augment=True)
    for one, other in zip(whole, trained(recipe, augment=True, resume=1), strict=True):
        np.testing.assert_array_equal(one, other)
    plain = trained(recipe, augment=False)
    assert not np.array_equal(whole[1], plain[1])
    for one, other in zip(plain, trained(recipe._replace(augmentation=NOTHING), augment=True), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "cache, cached, augments, said",
    [
        ("auto", False, True, "the inputs are augmented"),
        ("always", True, False, "Augmentation is off"),
        ("never", False, True, "wants no cache"),
    ],
)
def test_a_prefix_is_cached_or_its_inputs_are_augmented(cache, cached, augments, said):
    stages = stages_of("finetune_top", NETWORK.layers, num_frozen=1, augment=True)
    plan = Plan("given", "finetune_top", stages, "")
    settled = with_caching(plan, NETWORK, IMAGES[:1], num_rows=9, limit_bytes=1e9, cache=cache).stages[0]
    assert (settled.cached, settled.augment) == (cached, augments) and said in settled.cache_reason
    rows = with_caching(plan, NETWORK, IMAGES[:1].reshape(1, -1), num_rows=9, limit_bytes=1e9).stages[0]
    assert rows.cached and not rows.augment and "Not augmented: the rows are not images" in rows.cache_reason
