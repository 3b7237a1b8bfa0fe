"""Images come upright as RGB uint8, whatever the file holds; unreadable ones are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from framecast.data.images import ImageError, read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("mode", "suffix", "tolerance"),
    [
        ("RGB", "png", 0),
        ("RGB", "bmp", 0),
        ("RGB", "webp", 0),
        ("RGBA", "png", 0),
        ("CMYK", "tif", 1),
        ("CMYK", "jpg", 8),
        ("L", "png", 0),
        ("LA", "png", 0),
        ("1", "png", 0),
        ("P", "png", 0),
        ("P", "gif", 0),
    ],
)
def test_colour_models(mode: str, suffix: str, tolerance: int, tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS).convert(mode)
    image.save(tmp_path / f"x.{suffix}", lossless=True, quality=100, subsampling=0)
    expected = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    found = read_image(tmp_path / f"x.{suffix}")
    assert found.shape == (3, 20, 30)
    assert found.dtype == torch.uint8
    assert (found.int() - expected.int()).abs().max() <= tolerance


def test_sixteen_bits_keep_their_contrast(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    Image.fromarray(grey).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png")[1].numpy(), (grey >> 8).astype(np.uint8))


def test_a_photo_held_sideways_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "x.png", exif=exif)
    turned = torch.from_numpy(np.rot90(PIXELS, -1).copy()).permute(2, 0, 1)
    assert torch.equal(read_image(tmp_path / "x.png"), turned)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_file_that_is_cut_off_is_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(ImageError, match=f"x.{suffix}: is cut off"):
        read_image(path)


def test_other_bad_files(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match="is not a JPEG"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(ImageError, match="is empty"):
        read_image(tmp_path / "empty.jpg")
    with pytest.raises(ImageError, match="is not a file"):
        read_image(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_image(tmp_path / "none.jpg")
