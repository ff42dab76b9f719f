"""Augmented images: flips, crops, colours and mixtures, drawn anew in every step, inside the compiled step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Key, Num

from mmd_jax.types import LossFn, Mixed, Variables


class Augmentation(NamedTuple):
    """What is done to the images of a batch; hashable. The images are [height, width, channels], of 0 … 255.

    Attributes:
      flip: whether each is mirrored left to right with probability 1/2; only where a mirror image is of the same class.
      crop: each is moved by up to this share of its sides, up or down, left or right; edges are repeated.
      colour: brightness, contrast and (of colours) saturation are each multiplied by 1 ± up to this; 0 … 1.
      mixup: α of the share λ ~ Beta(α, α) in which the images of a batch and their labels are mixed; 0 for no mixing.
    """

    flip: bool = False
    crop: float = 0.125
    colour: float = 0.2
    mixup: float = 0.2


def augmented(loss: LossFn, settings: Augmentation) -> LossFn:
    """The loss of augmented batches.

        loss(x̃, Mixed(y, y', λ)),  x̃ = λ T(x) + (1 − λ) T(x'),  x' and y' the batch in reverse order

    A batch is in random order, so its reverse pairs at random; without mixup this is loss(T(x), y).

    Args:
      loss: of a batch (x [batch, height, width, channels] of 0 … 255, y); with mixup it takes `Mixed` labels.
      settings: what is done.

    Returns:
      A LossFn; its metrics are those for the labels y. Batches that are not of images it takes as they are.

    Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond empirical risk minimization", ICLR 2018.
    """

    def of_batch(
        variables: Variables, batch: tuple[Array, Array], key: Array
    ) -> tuple[Array, tuple[Variables, dict[str, Array]]]:
        x, y = batch
        if x.ndim != 4:
            return loss(variables, batch, key)
        image_key, mix_key, key = jax.random.split(key, 3)
        x = augment(image_key, x, settings)
        if not settings.mixup:
            return loss(variables, (x, y), key)
        share = jax.random.beta(mix_key, settings.mixup, settings.mixup)
        x = share * x + (1 - share) * x[::-1]
        return loss(variables, (x, Mixed(y, y[::-1], share)), key)

    return of_batch


def augment(
    key: Key[Array, ""], x: Num[Array | np.ndarray, "batch height width channels"], settings: Augmentation
) -> Float[Array, "batch height width channels"]:
    """Each image on its own: flipped, moved, coloured; not yet mixed.

    Args:
      key: consumed.
      x: images of 0 … 255, uint8 or floating-point.
      settings: what is done.

    Returns:
      float32 images of 0 … 255.
    """
    one = _transform(settings, x.shape[1], x.shape[2], x.shape[3])
    return jax.vmap(one)(jax.random.split(key, len(x)), jnp.asarray(x, jnp.float32))


def check_augmentation(settings: Augmentation) -> None:
    """Refuses settings that can't be meant."""
    for name, most in (("crop", 0.5), ("colour", 1.0)):
        if not 0 <= getattr(settings, name) <= most:
            raise ValueError(f"augmentation {name} = {getattr(settings, name)}; expected 0 … {most:g}")
    if not 0 <= settings.mixup < float("inf"):
        raise ValueError(f"augmentation mixup = {settings.mixup}; expected 0 (no mixing) or more")


def _transform(settings: Augmentation, height: int, width: int, channels: int) -> Callable[[Array, Array], Array]:
    def one(key: Array, x: Array) -> Array:
        flip_key, crop_key, colour_key = jax.random.split(key, 3)
        if settings.flip:
            x = jnp.where(jax.random.bernoulli(flip_key), x[:, ::-1], x)
        if settings.crop:
            x = _moved(crop_key, x, round(settings.crop * height), round(settings.crop * width))
        if settings.colour:
            x = _coloured(colour_key, x, settings.colour)
        return x

    return one


def _moved(key: Array, x: Array, vertical: int, horizontal: int) -> Array:
    most = jnp.array([vertical, horizontal])
    by = jax.random.randint(key, (2,), 0, 2 * most + 1)
    padded = jnp.pad(x, ((vertical, vertical), (horizontal, horizontal), (0, 0)), mode="edge")
    return jax.lax.dynamic_slice(padded, (by[0], by[1], 0), x.shape)


def _coloured(key: Array, x: Array, most: float) -> Array:
    """Brightness, contrast about the image's mean, saturation about its grey."""
    brightness, contrast, saturation = 1 + jax.random.uniform(key, (3,), minval=-most, maxval=most)
    x = x * brightness
    x = x.mean() + contrast * (x - x.mean())
    if x.shape[-1] == 3:
        grey = x @ jnp.array([[0.299], [0.587], [0.114]])
        x = grey + saturation * (x - grey)
    return jnp.clip(x, 0, 255)
