"""Decoded frames to upright RGB pixels of a wanted size."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from framecast.data.video_container import VideoError

AREA = int(Interpolation.AREA)  # averages when shrinking, bilinear when enlarging

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
        self.any_size = size is not None
        self.orientation = Orientation.of(first)
        self.upright = self.orientation == Orientation()
        self.coded_height, self.coded_width = first.height, first.width
        self.height, self.width = size or self.orientation.upright(first.height, first.width)
        self.target = self.orientation.upright(self.height, self.width)  # transposed twice: as it is coded
        self.reformat = VideoReformatter().reformat  # keeps its tables between frames
        self.format = self._format()

    def empty(self, num_frames: int) -> torch.Tensor:
        """Memory (T, 3, H, W) for frames."""
        return torch.empty((num_frames, 3, self.height, self.width), dtype=torch.uint8)

    def read(self, frame: VideoFrame, out: np.ndarray) -> None:
        """Write a frame into `out` (3, H, W). Runs between decoding calls, with cold caches: kept short."""
        if frame.width != self.coded_width or frame.height != self.coded_height:
            self._change_size(frame)
        height, width = self.target
        planes = self.reformat(frame, width, height, self.format, interpolation=AREA, threads=1).planes
        if self.upright and self.format == "gbrp" and planes[0].line_size == width:
            flat = out.reshape(3, height * width)
            flat[1], flat[2], flat[0] = planes
            return
        rows = [
            np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size) for plane in planes
        ]
        if self.format == "gbrp":
            channels = [rows[i][:, :width] for i in (2, 0, 1)]  # lines may be padded
        else:
            channels = np.moveaxis(rows[0][:, : 3 * width].reshape(height, width, 3), 2, 0)
        for target, channel in zip(out, channels, strict=True):
            target[:] = self.orientation.apply(channel)

    def _format(self) -> str:
        # swscale 9 writes garbage into the columns of gbrp beyond a multiple of 16 unless it scales
        as_it_is = (self.coded_height, self.coded_width) == self.target
        return "rgb24" if as_it_is and self.coded_width % 16 else "gbrp"

    def _change_size(self, frame: VideoFrame) -> None:
        if not self.any_size:
            raise VideoError(
                f"{self.source}: frames change from {self.coded_width}x{self.coded_height} to "
                f"{frame.width}x{frame.height}; pass size=(height, width) for all"
            )
        self.coded_height, self.coded_width = frame.height, frame.width
        self.format = self._format()


class ClipMemory:
    """Memory for one clip after another; that of a clip which nobody holds any more serves a later one.

    Memory fresh from the system is mapped page by page, which costs up to a third of decoding small frames.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.lent: list[tuple[np.ndarray, weakref.ref[np.ndarray]]] = []  # the last two: one is often held

    def take(self) -> torch.Tensor:
        """Memory with whatever was in it."""
        free = [i for i, (_, holder) in enumerate(self.lent) if holder() is None]
        memory = self.lent.pop(free[0])[0] if free else np.empty(self.shape, np.uint8)
        lent = memory.view()  # lives as long as the tensor and all that is made from its memory
        self.lent = [*self.lent[-1:], (memory, weakref.ref(lent))]
        return torch.from_numpy(lent)
