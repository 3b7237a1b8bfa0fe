"""Reading video: framecast against plain PyAV, side by side in one process.

    python benchmarks/decode.py [--quick] [--json FILE]

CPU time of one thread, median of paired rounds, on clips of 60 s at 30 frames per second that are made here
(H.264, a keyframe every 250 frames, moving texture with noise; the decoding rate of each is printed). Every
round scans the file anew, as the first read of a video does. The floor rows are bare loops over PyAV that do
only what every reader through it must: decode, convert into a frame of PyAV's own, copy into a clip.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from pairing import paired_times, ratio, report

from framecast.data.video import iter_clips, read_frames, sample_times
from framecast.data.video_container import _scan
from framecast.data.video_pixels import AREA

SECONDS, RATE, KEYFRAME_EVERY, NUM_SAMPLES = 60, 30, 250, 16
TARGET, FRAMES_PER_CLIP = (224, 224), 32


def make_clip(path: Path, height: int, width: int) -> Path:
    """A textured plane that swings behind noise, hard enough that B-frames and residuals are real work."""
    random = np.random.default_rng(0)
    window = np.hanning(9) / np.hanning(9).sum()
    plane = random.normal(size=(height + 200, width + 400))
    for axis in (0, 1):
        plane = np.apply_along_axis(np.convolve, axis, plane, window, mode="same")
    plane = (128 + 50 * plane / plane.std()).clip(0, 255).astype(np.uint8)
    noise = random.integers(0, 16, size=(16, height, width), dtype=np.uint8)
    chroma = np.full((height // 2, width), 128, dtype=np.uint8)
    chroma[:, : width // 2] = 90
    with av.open(str(path), "w") as container:
        options = {"g": str(KEYFRAME_EVERY), "keyint_min": str(KEYFRAME_EVERY), "sc_threshold": "0"}
        stream: Any = container.add_stream("libx264", rate=RATE, options={**options, "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(SECONDS * RATE):
            x, y = int(200 + 190 * np.sin(i / 95)), int(100 + 90 * np.cos(i / 38))
            luma = plane[y : y + height, x : x + width] // 2 + noise[i % len(noise)] + 30
            frame = av.VideoFrame.from_ndarray(np.concatenate([luma, chroma]), format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decode_all(path: Path, convert: Collection[int] = ()) -> int:
    """What a plain PyAV reader does: every frame decoded, the wanted ones converted to RGB."""
    count = 0
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for count, frame in enumerate(container.decode(video=0), start=1):
            if count - 1 in convert:
                frame.to_ndarray(format="rgb24", threads=1)
    return count


def decode_and_resize(path: Path) -> None:
    """The usual way to every frame at the target size with PyAV."""
    height, width = TARGET
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for frame in container.decode(video=0):
            frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA", threads=1)


def decode_and_convert(path: Path, *, copy: bool, reuse: bool = True) -> None:
    """The least that every frame at the target size takes with PyAV, which owns what it converts to.

    reuse: copy into the same clip again and again, else into a new one every FRAMES_PER_CLIP frames.
    """
    height, width = TARGET
    convert, clip = VideoReformatter().reformat, np.empty(0)
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for i, frame in enumerate(container.decode(video=0)):
            converted = convert(frame, width, height, "gbrp", interpolation=AREA, threads=1)
            if copy:
                if i == 0 or (not reuse and i % FRAMES_PER_CLIP == 0):
                    shape = (FRAMES_PER_CLIP, 3, height * width)
                    clip = torch.empty(shape, dtype=torch.uint8).numpy()
                rgb = clip[i % FRAMES_PER_CLIP]
                rgb[1], rgb[2], rgb[0] = converted.planes


def fresh(read: Callable[[], Any]) -> Callable[[], Any]:
    """Forget the packet table, so that scanning the file is part of what is timed."""

    def run() -> Any:
        _scan.cache_clear()
        return read()

    return run


def measure(path: Path, name: str, keyframe_goal: float, rounds: int) -> list[dict[str, Any]]:
    times_s = sample_times(SECONDS, NUM_SAMPLES)
    wanted = set((times_s * RATE).astype(int).tolist())
    times = paired_times(
        {
            "decode": lambda: decode_all(path),
            "convert": lambda: decode_and_convert(path, copy=False),
            "copy": lambda: decode_and_convert(path, copy=True),
            "dense": fresh(lambda: sum(len(clip) for clip in iter_clips(path, size=TARGET))),
            "copy, new clips": lambda: decode_and_convert(path, copy=True, reuse=False),
            "usual": lambda: decode_and_resize(path),
            "step": fresh(lambda: sum(len(clip) for clip in iter_clips(path, size=TARGET, step_s=0.5))),
            "decode, convert 16": lambda: decode_all(path, wanted),
            "exact": fresh(lambda: read_frames(path, times_s)),
            "keyframes": fresh(lambda: read_frames(path, times_s, keyframes_only=True)),
        },
        rounds,
    )
    rate = SECONDS * RATE / (float(np.median(times["decode"])) / 1e3)
    print(f"{name}: {path.stat().st_size * 8 / SECONDS / 1e3:.0f} kbit/s, decoded at {rate:.0f} frames/s")

    def row(label: str, ours: str, reference: str, goal: float | None, *, at_least: bool = False) -> dict:
        value = ratio(times, reference, ours) if at_least else ratio(times, ours, reference)
        holds = None if goal is None else (value >= goal if at_least else value <= goal)
        sign = ">=" if at_least else "<="
        return {
            "name": f"{label}, {name}",
            "ours": float(np.median(times[ours])),
            "reference": float(np.median(times[reference])),
            "unit": "ms",
            "ratio": value,
            "goal": "" if goal is None else f"{sign} {goal}x",
            "holds": holds,
        }

    return [
        row("exact 16 of 60 s / decode all", "exact", "decode, convert 16", 0.85),
        row("keyframe mode, faster than exact", "keyframes", "exact", keyframe_goal, at_least=True),
        row("every frame at 224 / decode only", "dense", "decode", 1.15),
        row("floor: decode, convert / decode only", "convert", "decode", None),
        row("floor: decode, convert, copy / decode only", "copy", "decode", None),
        row("every frame at 224 / that floor", "dense", "copy", None),
        row("the same into new clips / decode only", "copy, new clips", "decode", None),
        row("every frame at 224, faster than to_ndarray", "dense", "usual", None, at_least=True),
        row("2 per second at 224 / decode only", "step", "decode", None),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round instead of seven; under a minute")
    parser.add_argument("--json", metavar="FILE", help="write the rows to FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rounds = 1 if arguments.quick else 7
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for height, width, keyframe_goal in ((224, 224, 3.5), (480, 640, 5.0)):
            path = make_clip(Path(folder) / f"{width}.mp4", height, width)
            rows += measure(path, f"{width}x{height}", keyframe_goal, rounds)
    report(rows, arguments.json)


if __name__ == "__main__":
    main()
