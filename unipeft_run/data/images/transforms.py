"""Decode, resize and crop images with Pillow, by the rules of torchvision's transforms.

Shapes: H height, W width, in pixels.
"""

from __future__ import annotations

import io
import math
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from unipeft_run.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # others run external programs, or are rare
BICUBIC = Image.Resampling.BICUBIC
RATIOS = (3 / 4, 4 / 3)  # width to height of a random crop
ATTEMPTS = 10

Pixels = NDArray[np.uint8]


def decode_image(data: bytes, where: str) -> Image.Image:
    """Decode an image to RGB, turned upright by its EXIF orientation; transparent becomes white.

    Raises UserError naming `where`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            image.load()
            return _to_rgb(_turn_upright(image))
    except UnidentifiedImageError:
        formats = ", ".join(FORMATS)
        raise UserError(f"{where} is not an image in one of the formats {formats}") from None
    except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{where} cannot be decoded: {reason}") from None


def _turn_upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow does not document its exceptions for damaged EXIF data
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow would turn all but the darkest pixels white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    coloured = image.convert("RGBA")
    white = Image.new("RGBA", coloured.size, "white")
    return Image.alpha_composite(white, coloured).convert("RGB")


def resize_shorter(image: Image.Image, size: int) -> Image.Image:
    """Resize, so that the shorter side has `size` pixels; the longer one is rounded down."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    if short == size:
        return image
    other = max(1, size * long // short)
    return image.resize((size, other) if width <= height else (other, size), BICUBIC)


def shrink_shorter(image: Image.Image, size: int) -> Image.Image:
    """Resize an image whose shorter side exceeds `size`; return a smaller one unchanged."""
    return resize_shorter(image, size) if min(image.size) > size else image


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Crop to the central square of `size` pixels; a smaller image gets a black border."""
    width, height = image.size
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def resize_and_crop(image: Image.Image, resize: int, size: int) -> Image.Image:
    """Resize the shorter side to `resize`, then crop to the central square of `size` pixels."""
    return centre_crop(resize_shorter(image, resize), size)


def random_resized_crop(
    image: Image.Image, size: int, scale: tuple[float, float], random: np.random.Generator
) -> Image.Image:
    """Cut out a random part of the image and resize it to a square of `size` pixels.

    The part covers a share of the area between the bounds `scale`, and its ratio of width to height
    is between RATIOS, uniformly on a logarithmic scale.
    """
    left, top, width, height = _draw_box(*image.size, scale, random)
    part = image.crop((left, top, left + width, top + height))
    return part.resize((size, size), BICUBIC)


def _draw_box(
    width: int, height: int, scale: tuple[float, float], random: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw left, top, width and height; the largest central box if no attempt fits the image."""
    for _ in range(ATTEMPTS):
        area = width * height * random.uniform(*scale)
        ratio = math.exp(random.uniform(math.log(RATIOS[0]), math.log(RATIOS[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(random.integers(width - w + 1)), int(random.integers(height - h + 1)), w, h
    w = min(width, round(height * RATIOS[1]))
    h = min(height, round(width / RATIOS[0]))
    return (width - w) // 2, (height - h) // 2, w, h


def to_pixels(image: Image.Image) -> Pixels:
    """Return the pixels of an RGB image, [H, W, 3]."""
    return np.asarray(image, dtype=np.uint8)


def from_pixels(pixels: Pixels) -> Image.Image:
    """Return the image with the pixels [H, W, 3]."""
    return Image.fromarray(pixels)


def flip(pixels: Pixels) -> Pixels:
    """Mirror pixels [..., H, W, 3] from left to right."""
    return pixels[..., ::-1, :]
