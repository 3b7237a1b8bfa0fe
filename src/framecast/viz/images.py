"""Pictures from arrays: checked, cropped, embedded in pages."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image


def to_image(pixels: np.ndarray) -> Image.Image:
    """An image from pixels (H, W, 3) uint8; anything else is refused with ValueError."""
    pixels = np.asarray(pixels)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise ValueError(
            f"a thumbnail is {pixels.dtype} of shape {pixels.shape}; pass RGB of shape (H, W, 3) as uint8"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def cropped(image: Image.Image, aspect: float) -> Image.Image:
    """The middle of an image, with width = aspect · height."""
    width = min(image.width, max(1, round(image.height * aspect)))
    height = min(image.height, max(1, round(image.width / aspect)))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def data_uri(pixels: np.ndarray, longest: int) -> str:
    """A JPEG as the address of itself, from pixels (H, W, 3) uint8, with sides of at most `longest`."""
    image = to_image(pixels)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
