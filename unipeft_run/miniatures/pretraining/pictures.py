"""Pictures of emoji as pixels, and their random changes in pretraining.

Shapes: N pictures, H = W = 64 pixels; values between 0 and 1.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

SIZE = 64
MEAN = STD = 0.5
SHIFT, ZOOM, TURN = 0.12, 0.2, 10.0  # of half the width; relative; degrees


def decode(picture: bytes) -> Tensor:
    """Decode a PNG file on a white ground, uint8 [3, H, W]."""
    from PIL import Image

    coloured = Image.open(io.BytesIO(picture)).convert("RGBA").resize((SIZE, SIZE))
    white = Image.new("RGBA", coloured.size, "white")
    pixels = np.asarray(Image.alpha_composite(white, coloured).convert("RGB"))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def normalise(pictures: Tensor) -> Tensor:
    """Scale uint8 pictures to the model's input."""
    return (pictures.float() / 255 - MEAN) / STD


def augment(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Move, zoom, turn and recolour uint8 pictures at random, and cover a square of each."""
    images = pictures.float() / 255
    images = _recolour(_move(images, generator), generator)
    return (_cover(images, generator) - MEAN) / STD


def _uniform(number: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(number, generator=generator) * (high - low) + low


def _move(images: Tensor, generator: torch.Generator) -> Tensor:
    """Apply a random affine map; what comes from outside is white."""
    n = len(images)
    angle = _uniform(n, -TURN, TURN, generator) * math.pi / 180
    zoom_x, zoom_y = (_uniform(n, 1 - ZOOM, 1 + ZOOM, generator) for _ in range(2))
    shift_x, shift_y = (_uniform(n, -SHIFT, SHIFT, generator) for _ in range(2))
    cos, sin = angle.cos(), angle.sin()
    rows = [cos * zoom_x, -sin * zoom_y, shift_x, sin * zoom_x, cos * zoom_y, shift_y]
    grid = affine_grid(torch.stack(rows, 1).view(n, 2, 3), list(images.shape), align_corners=False)
    return 1 - grid_sample(1 - images, grid, align_corners=False)


def _recolour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast and saturation, and mix the colours a little."""
    n = len(images)
    gain, offset = _uniform(n, 0.7, 1.3, generator), _uniform(n, -0.15, 0.15, generator)
    saturation = _uniform(n, 0.2, 1.6, generator)
    mixing = torch.eye(3) + 0.08 * torch.randn(n, 3, 3, generator=generator)
    images = torch.einsum("nij,njhw->nihw", mixing, images)
    grey = images.mean(1, keepdim=True)
    images = grey + saturation.view(-1, 1, 1, 1) * (images - grey)
    return (images * gain.view(-1, 1, 1, 1) + offset.view(-1, 1, 1, 1)).clamp(0, 1)


def _cover(images: Tensor, generator: torch.Generator) -> Tensor:
    """Fill a square of a quarter to a half of the width with grey, in a third of the pictures."""
    corners = torch.randint(0, SIZE, (len(images), 2), generator=generator)
    sides = torch.randint(SIZE // 4, SIZE // 2, (len(images),), generator=generator)
    sides *= torch.rand(len(images), generator=generator) < 1 / 3
    places = torch.arange(SIZE)
    inside = (places >= corners[..., None]) & (places < (corners + sides[:, None])[..., None])
    covered = inside[:, 0, :, None] & inside[:, 1, None, :]
    return images.masked_fill(covered[:, None], 0.5)
