"""Image files as RGB uint8: upright, whatever their colour model."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")  # what a file may be, whatever its suffix


class ImageError(ValueError):
    """A file cannot be read as an image; the message names the file and the reason in one line."""


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """(3, H, W) uint8 RGB of an image file, turned as its EXIF data says.

    Grey and CMYK become RGB, transparency is dropped, 16 bits become 8, of an animation the first picture
    is taken. Raises FileNotFoundError, PermissionError, or ImageError with the reason.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise ImageError(f"{path}: is not a file; pass an image")
    try:
        data = path.read_bytes()
    except PermissionError:
        raise PermissionError(f"{path}: no permission to read it; change its mode") from None
    if not data:
        raise ImageError(f"{path}: is empty (0 bytes); copy or download it again")
    try:
        Image.init()  # all formats, else only the commonest can be named
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            upright = ImageOps.exif_transpose(image)
            return torch.from_numpy(_rgb(upright).transpose(2, 0, 1).copy())
    except UnidentifiedImageError:
        raise ImageError(f"{path}: is not a JPEG, PNG, WebP, BMP, TIFF or GIF image; convert it") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{path}: has more pixels than can be meant; make it smaller") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise ImageError(f"{path}: {_reason(str(error))}") from None


def _rgb(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut at 255
        grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:  # else Pillow warns and drops it all the same
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _reason(message: str) -> str:
    """What the decoder said, for a person."""
    if "truncated" in message.lower() or "incomplete" in message:
        return "is cut off; copy or download it again"
    first = message.splitlines()[0][:120] if message else "no reason given"
    return f"cannot be decoded as an image ({first})"
