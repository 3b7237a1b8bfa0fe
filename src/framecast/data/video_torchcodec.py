"""torchcodec as a second decoder, used only where it is asked for.

It needs the FFmpeg libraries of the system, so that it is installed does not mean that it works: it is probed
by loading it. Which frames are read is decided by the same packet table as with PyAV, and the time stamps
that come back are compared with it.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from typing import Any

import numpy as np
import torch

from framecast.data.video_container import PacketTable, VideoError
from framecast.data.video_pixels import Size


@cache
def why_not_torchcodec() -> str:
    """Why torchcodec cannot be used here, "" = it can."""
    try:
        importlib.import_module("torchcodec.decoders")
    except ImportError as error:
        return f"it is not installed ({error}); pip install 'framecast[fast-video]'"
    except Exception as error:  # a missing shared library surfaces as RuntimeError or OSError
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return f"it does not load ({first}); install the FFmpeg 4-8 shared libraries of your system"
    return ""


def require_torchcodec() -> None:
    """Raise OSError with the reason where torchcodec does not load."""
    reason = why_not_torchcodec()
    if reason:
        raise OSError(f"the torchcodec backend was asked for but {reason}; or use backend='pyav'")


class TorchcodecReader:
    """Frames of one video through torchcodec, checked against the packet table."""

    def __init__(self, path: str | os.PathLike[str], table: PacketTable, size: Size) -> None:
        require_torchcodec()
        decoders = importlib.import_module("torchcodec.decoders")
        transforms = importlib.import_module("torchcodec.transforms")
        options: dict[str, Any] = {"transforms": [transforms.Resize(size)]} if size else {}
        self.path, self.table = path, table
        try:
            self.decoder = decoders.VideoDecoder(
                os.fspath(path), seek_mode="exact", num_ffmpeg_threads=1, **options
            )
        except (RuntimeError, ValueError) as error:
            raise VideoError(f"{path}: torchcodec cannot open it ({str(error).splitlines()[0]})") from None

    def frames_at(self, pts: np.ndarray) -> torch.Tensor:
        """Frames (T, 3, H, W) uint8 with the time stamps `pts` of the packet table."""
        seconds = pts * float(self.table.time_base)
        index = np.searchsorted(self.table.frame_pts, pts)
        try:
            batch = self.decoder.get_frames_at(index.tolist())
        except (RuntimeError, IndexError) as error:
            raise VideoError(f"{self.path}: torchcodec stops ({str(error).splitlines()[0]})") from None
        off = np.abs(batch.pts_seconds.numpy() - seconds) > 0.5 * float(self.table.time_base)
        if off.any():
            where = float(self.table.seconds(pts[off])[0])
            raise VideoError(
                f"{self.path}: torchcodec gives another frame at {where:.3f} s than the time stamps "
                "say; use backend='pyav'"
            )
        return batch.data
