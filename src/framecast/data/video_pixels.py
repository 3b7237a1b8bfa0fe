"""Decoded frames to upright RGB pixels of a wanted size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter

from framecast.data.video_container import VideoError

Size = tuple[int, int] | None  # (height, width) of the upright frame, None = as it is


@dataclass(frozen=True)
class Orientation:
    """How coded frames are turned to be upright: swap the axes, then mirror."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> Orientation:
        """From the display matrix [a b u; c d v; x y w]: pixel (p, q) is shown at (a p + c q, b p + d q)."""
        matrix = frame.side_data.get("DISPLAYMATRIX")
        if matrix is None:
            return cls()
        a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5]
        if b == c == 0:
            return cls(False, bool(a < 0), bool(d < 0))
        if a == d == 0:
            return cls(True, bool(c < 0), bool(b < 0))
        return cls()  # a tilt by other angles is an effect of the player, not the way the camera was held

    @property
    def degrees(self) -> int:
        if self.transpose:
            return 90 if self.flip_x else 270
        return 180 if self.flip_y else 0

    @property
    def mirrored(self) -> bool:
        return self.transpose ^ self.flip_x ^ self.flip_y

    def upright(self, height: int, width: int) -> tuple[int, int]:
        return (width, height) if self.transpose else (height, width)

    def apply(self, plane: np.ndarray) -> np.ndarray:  # (H, W)
        plane = plane.T if self.transpose else plane
        return plane[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


class PixelReader:
    """Turns decoded frames of one video into upright RGB of one size."""

    def __init__(self, source: str, first: VideoFrame, size: Size) -> None:
        if size is not None and not (len(size) == 2 and min(size) > 0):
            raise ValueError(f"size is {size}; it is (height, width) in pixels, both positive")
        self.source = source
        self.orientation = Orientation.of(first)
        self.coded = (first.height, first.width)
        self.any_size = size is not None
        self.height, self.width = size or self.orientation.upright(*self.coded)
        self.target = self.orientation.upright(self.height, self.width)  # transposed twice: as it is coded
        self.upright = self.orientation == Orientation()
        self.swscale = VideoReformatter()  # keeps its tables between frames
        self.filter = Interpolation.AREA

    def empty(self, num_frames: int) -> torch.Tensor:
        """Memory (T, 3, H, W) for frames."""
        return torch.empty((num_frames, 3, self.height, self.width), dtype=torch.uint8)

    def read(self, frame: VideoFrame, out: np.ndarray) -> None:
        """Write a frame into `out` (3, H, W)."""
        height, width = self.target
        coded = (frame.height, frame.width)
        if coded != self.coded and not self.any_size:
            was, now = (f"{width}x{height}" for height, width in (self.coded, coded))
            raise VideoError(
                f"{self.source}: frames change from {was} to {now}; pass size=(height, width) for all"
            )
        # swscale 9 writes garbage into the columns of gbrp beyond a multiple of 16 unless it scales
        packed = coded == self.target and width % 16 != 0
        form = "rgb24" if packed else "gbrp"
        frame = self.swscale.reformat(frame, width, height, form, interpolation=self.filter, threads=1)
        planes = frame.planes
        if not packed and self.upright and planes[0].line_size == width:  # a few large copies
            green, blue, red = planes
            flat = out.reshape(3, height * width)
            flat[0], flat[1], flat[2] = _bytes(red), _bytes(green), _bytes(blue)
            return
        rows = [_bytes(plane).reshape(height, plane.line_size) for plane in planes]  # lines may be padded
        if packed:
            channels = np.moveaxis(rows[0][:, : 3 * width].reshape(height, width, 3), 2, 0)
        else:
            channels = [rows[i][:, :width] for i in (2, 0, 1)]
        for target, channel in zip(out, channels, strict=True):
            target[:] = self.orientation.apply(channel)


def _bytes(plane: VideoPlane) -> np.ndarray:
    return np.frombuffer(memoryview(plane), dtype=np.uint8)
