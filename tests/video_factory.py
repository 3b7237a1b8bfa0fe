"""Small encoded videos whose frames carry their number, so that a test can say which frame it got.

Every frame shows its number as eight black or white blocks along the top, above a moving pattern that makes
the encoder use motion and B-frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

NUM_BITS = 8


def numbered_frame(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """(height, width, 3) uint8; the number modulo 256 in the upper third, movement below."""
    y, x = np.mgrid[0:height, 0:width]
    wave = 127 + 60 * np.sin((x + 3 * number) / 7) + 60 * np.cos((y - 2 * number) / 5)
    frame = np.stack([wave, np.roll(wave, 5, axis=1), 255 - wave], axis=-1).astype(np.uint8)
    bits = (number >> np.arange(NUM_BITS)) & 1
    frame[: height // 3] = (255 * bits).astype(np.uint8)[x[: height // 3] * NUM_BITS // width][..., None]
    return frame


def number_of(frame: Any) -> int:
    """The number that an upright frame (3, H, W) carries, whatever its size."""
    grey = np.asarray(frame).astype(float).mean(axis=0)
    height, width = grey.shape
    rows = grey[height // 12 : height // 4].mean(axis=0)
    middles = ((np.arange(NUM_BITS) + 0.5) * width / NUM_BITS).astype(int)
    return int(((rows[middles] > 127) << np.arange(NUM_BITS)).sum())


def numbers_of(frames: Iterable[Any]) -> list[int]:
    return [number_of(frame) for frame in frames]


def write_video(
    path: Path,
    num_frames: int = 30,
    *,
    size: tuple[int, int] = (48, 64),
    rate: int = 10,
    codec: str = "libx264",
    gop: int = 12,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    pix_fmt: str = "yuv420p",
    audio: bool = False,
    video: bool = True,
    turn: Callable[[np.ndarray], np.ndarray] | None = None,
    rotate_ccw: int = 0,
    mirror: bool = False,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode numbered frames.

    pts: time stamps in ticks of `time_base`, for variable frame rates. turn: done to the frames before they
    are coded, as a camera held sideways does; rotate_ccw, mirror: what the file says to do to show them.
    """
    height, width = size
    tick = time_base or Fraction(1, rate)
    with av.open(str(path), "w", options=container_options or {}) as container:
        sound: Any = container.add_stream("aac", rate=16_000, layout="mono") if audio else None
        if video:
            settings = {"g": str(gop), "keyint_min": str(gop), "sc_threshold": "0", **(options or {})}
            if codec == "libx264":
                settings = {"threads": "1", "preset": "veryfast", **settings}  # same bits everywhere
            elif codec.startswith("mpeg"):
                settings = {"b": "2000000", **settings}  # else the first frame eats the bits of the others
            stream: Any = container.add_stream(codec, rate=rate, options=settings)
            stream.width, stream.height = (width, height) if turn is None else turn_size(turn, width, height)
            stream.pix_fmt = pix_fmt
            stream.codec_context.time_base = tick
            if rotate_ccw or mirror:
                stream.set_display_rotation(rotate_ccw, hflip=mirror)
            for i in range(num_frames):
                image = numbered_frame(i, height, width)
                image = image if turn is None else np.ascontiguousarray(turn(image))
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = (i if pts is None else pts[i]), tick
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        if audio:
            for i in range(num_frames * 16_000 // rate // 1024):
                silence = np.zeros((1, 1024), dtype=np.float32)
                tone = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
                tone.sample_rate, tone.pts, tone.time_base = 16_000, 1024 * i, Fraction(1, 16_000)
                container.mux(sound.encode(tone))
            container.mux(sound.encode())
    return path


def turn_size(turn: Callable[[np.ndarray], np.ndarray], width: int, height: int) -> tuple[int, int]:
    turned = turn(np.zeros((height, width, 3), dtype=np.uint8))
    return turned.shape[1], turned.shape[0]


def remux(source: Path, target: Path, *, shift_s: float, options: dict[str, str] | None = None) -> Path:
    """Copy the packets of a video with all time stamps moved, without coding them again."""
    with av.open(str(source)) as reader, av.open(str(target), "w", options=options or {}) as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        shift = round(shift_s / float(stream.time_base or 1))
        for packet in reader.demux(stream):
            if packet.size:
                packet.pts, packet.dts = (packet.pts or 0) + shift, (packet.dts or 0) + shift
                packet.stream = copy
                writer.mux(packet)
    return target
