"""Image files → arrays, and arrays of images from one format (height, width, channels) to another."""

import io
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from experiments.progress import track

_STACK = 256  # images that one call converts


def decode(content: bytes | Path, where: str, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decodes one image file.

    Args:
      content: the file, or its bytes.
      where: how to name it in an error.
      size: resize to (height, width).

    Returns:
      uint8 [H, W, 1] for a grey image, else [H, W, 3]; turned upright as its EXIF data say, without transparency.

    Raises:
      ValueError: it is not an image, or it is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about oddities of a file that is decoded all the same
            with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as file:
                image = _plain(ImageOps.exif_transpose(file))
    except Exception as error:  # a damaged file makes a decoder raise nearly anything
        raise ValueError(f"{where} is not an image that can be read: {error}") from error
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def stack(images: Iterable[np.ndarray], names: list[str]) -> np.ndarray:
    """Stacks images of one size; where some are grey and some coloured, grey becomes RGB.

    Raises:
      ValueError: they differ in size.
    """
    arrays = list(images)
    for array, name in zip(arrays, names):
        if array.shape[:2] != arrays[0].shape[:2]:
            first, other = (f"{a.shape[0]}x{a.shape[1]} ({n})" for a, n in ((arrays[0], names[0]), (array, name)))
            raise ValueError(
                f"the images differ in size: {first} and {other}; give `size`, such as --target.size 32 32"
            )
    channels = max((a.shape[2] for a in arrays), default=1)
    return np.stack([a if a.shape[2] == channels else np.repeat(a, channels, axis=2) for a in arrays])


def to_format(images: np.ndarray, height: int, width: int, channels: int) -> np.ndarray:
    """Brings images to one format by a fixed map, which does not look at what the images show.

    RGB becomes grey by luma (.299 R + .587 G + .114 B), grey becomes RGB by repeating, and the size is changed by
    bilinear interpolation (over the area of a pixel, where it shrinks). Images in that format are returned unchanged.

    Args:
      images: uint8, shape [N, H, W, C].
      height, width: new size in pixels.
      channels: 1 or 3, or as many as there are.

    Returns:
      uint8, shape [N, height, width, channels].

    Raises:
      ValueError: `images` are no such array, or the channels can't be converted.
    """
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(f"images are a uint8 array [N, H, W, C], not {images.dtype} {list(images.shape)}")
    have = images.shape[3]
    if channels != have and {have, channels} != {1, 3}:
        raise ValueError(f"{have} channels can't become {channels}: only grey (1) and RGB (3) become each other")
    if images.shape[1:3] == (height, width):
        resized = images if channels >= have else _grey(images)
    else:
        resized = _resize(images if channels >= have else _grey(images), height, width)
    return np.repeat(resized, channels, axis=3) if channels > have else resized


def _plain(image: Image.Image) -> Image.Image:
    """Any mode → L or RGB, 8 bits a channel."""
    if image.mode.startswith("I;16"):  # PIL would clip 16 bits at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are 32-bit numbers (mode {image.mode}), of which the range is not known")
    if image.mode in ("1", "L", "LA", "La"):
        return image.convert("L")
    return image.convert("RGB")


def _grey(images: np.ndarray) -> np.ndarray:
    """One call converts many images, laid on top of each other."""
    grey = np.empty((*images.shape[:3], 1), np.uint8)
    for i in range(0, len(images), _STACK):
        part = images[i : i + _STACK]
        tower = Image.fromarray(part.reshape(-1, *part.shape[2:]))
        grey[i : i + _STACK] = np.asarray(tower.convert("L")).reshape(*part.shape[:3], 1)
    return grey


def _resize(images: np.ndarray, height: int, width: int) -> np.ndarray:
    out = np.empty((len(images), height, width, images.shape[3]), np.uint8)
    for i, image in enumerate(track(images, "resizing images", total=len(images))):
        planes = [image] if image.shape[2] == 3 else [np.ascontiguousarray(plane) for plane in np.moveaxis(image, 2, 0)]
        new = [np.asarray(Image.fromarray(p).resize((width, height), Image.Resampling.BILINEAR)) for p in planes]
        out[i] = new[0] if image.shape[2] == 3 else np.stack(new, axis=2)
    return out
