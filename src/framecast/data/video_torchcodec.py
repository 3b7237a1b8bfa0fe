"""torchcodec as a second decoder, used only where it is asked for.

It needs the FFmpeg libraries of the system, so that it is installed does not mean that it works: it is probed
by loading it. Which frames are read is decided by the same packet table as with PyAV, and the time stamps
that come back are compared with it.
"""

from __future__ import annotations

import importlib
import os
from functools import cache

import numpy as np
import torch
from av.video.frame import VideoFrame

from framecast.data.video_container import PacketTable, VideoError
from framecast.data.video_decoding import Decoder
from framecast.data.video_pixels import Orientation, PixelReader, Size

CHUNK = 16  # full-size frames held at a time


@cache
def why_not_torchcodec() -> str:
    """Why torchcodec cannot be used here, "" = it can."""
    try:
        importlib.import_module("torchcodec.decoders")
    except ImportError as error:
        return f"it is not installed ({error}); pip install 'framecast[fast-video]'"
    except Exception as error:  # a missing shared library surfaces as RuntimeError or OSError
        return f"it does not load ({_first_line(error)}); install the shared libraries of FFmpeg"
    return ""


def require_torchcodec() -> None:
    """Raise OSError with the reason where torchcodec does not load."""
    reason = why_not_torchcodec()
    if reason:
        raise OSError(f"the torchcodec backend was asked for but {reason}; or use backend='pyav'")


class TorchcodecReader:
    """Frames of one video through torchcodec, checked against the packet table.

    At its own size a frame has the pixels that PyAV gives. Other sizes are made by the same filter, but from
    RGB, which differs by 1 to 2 of 255 levels on average.
    """

    def __init__(self, path: str | os.PathLike[str], table: PacketTable, size: Size) -> None:
        require_torchcodec()
        decoders = importlib.import_module("torchcodec.decoders")
        self.path, self.table, self.size = path, table, size
        with Decoder(path, "keep", table=table) as decoder:
            first = next(decoder.every_frame(), None)
            if first is not None and Orientation.of(first[1]).mirrored:
                raise VideoError(f"{path}: is shown mirrored, unlike by torchcodec; use backend='pyav'")
        try:
            self.decoder = decoders.VideoDecoder(
                os.fspath(path), seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC"
            )
        except (RuntimeError, ValueError) as error:
            raise VideoError(f"{path}: torchcodec cannot open it ({_first_line(error)})") from None

    def frames_at(self, pts: np.ndarray) -> torch.Tensor:
        """Frames (T, 3, H, W) uint8 with the time stamps `pts` of the packet table."""
        if self.size is None:
            return self._decode(pts).permute(0, 3, 1, 2)
        parts = [self._resize(self._decode(pts[i : i + CHUNK])) for i in range(0, len(pts), CHUNK)]
        return torch.cat(parts)

    def _decode(self, pts: np.ndarray) -> torch.Tensor:  # (T,) -> (T, H, W, 3)
        index = np.searchsorted(self.table.frame_pts, pts)
        try:
            batch = self.decoder.get_frames_at(index.tolist())
        except (RuntimeError, IndexError) as error:
            raise VideoError(
                f"{self.path}: torchcodec stops ({_first_line(error)}); use backend='pyav'"
            ) from None
        tick = float(self.table.time_base)
        off = np.abs(batch.pts_seconds.numpy() - pts * tick) > 0.5 * tick
        if off.any():
            where = float(self.table.seconds(pts[off])[0])
            raise VideoError(
                f"{self.path}: torchcodec gives another frame at {where:.3f} s than the time stamps say; "
                "use backend='pyav'"
            )
        return batch.data

    def _resize(self, frames: torch.Tensor) -> torch.Tensor:  # (T, H, W, 3) -> (T, 3, h, w)
        images = [VideoFrame.from_ndarray(image, format="rgb24") for image in frames.contiguous().numpy()]
        pixels = PixelReader(str(self.path), images[0], self.size)
        resized = pixels.empty(len(images))
        for image, out in zip(images, resized.numpy(), strict=True):
            pixels.read(image, out)
        return resized


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
