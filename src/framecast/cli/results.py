"""Writes what `predict` and `demo` found: CSV, JSON, pictures, pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from framecast.structures import Provenance, Segments

STRIP_PICTURES = 12
THUMBNAIL_WIDTH = 240  # pixels


@dataclass
class Result:
    """One video with its segments."""

    source: Path  # the video, or the feature file
    segments: Segments
    provenance: Provenance | None = None
    truth: Segments | None = None


def write_results(
    results: Sequence[Result],
    out: Path,
    facts: dict[str, str],
    *,
    pages: bool = True,
    beside: Sequence[Any] = (),
) -> list[Path]:
    """segments.csv and .json for all videos; a picture and a page for each; index.html for several.

    beside: `FuturesEntry` of pages that index.html lists as well.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = _write_tables(results, out)
    return written + (_write_pages(results, out, facts, beside) if pages else [])


def _write_tables(results: Sequence[Result], out: Path) -> list[Path]:
    from framecast.data.tables import write_segments_csv, write_segments_json

    return [
        write_segments_csv([r.segments for r in results], out / "segments.csv"),
        write_segments_json([r.segments for r in results], out / "segments.json"),
    ]


def _write_pages(
    results: Sequence[Result], out: Path, facts: dict[str, str], beside: Sequence[Any]
) -> list[Path]:
    from framecast.viz.futures_index import futures_card
    from framecast.viz.report import write_index

    index = out / "index.html" if len(results) > 1 else None
    written, entries = [], []
    for result in results:
        files, entry = _write_video(result, out, facts, index)
        written += files
        entries.append(entry)
    if index is not None:
        cards = [futures_card(entry, index) for entry in beside]
        written.append(write_index(index, entries, title="Timelines", facts=facts, beside=cards))
    return written


def _write_video(
    result: Result, out: Path, facts: dict[str, str], index: Path | None
) -> tuple[list[Path], Any]:
    from framecast.viz.report import IndexEntry, write_report
    from framecast.viz.timeline import draw_timeline

    segments, name = result.segments, result.segments.video
    about, strip, strip_times, thumbnails = _pictures(result)
    rows = (
        {"segments": segments}
        if result.truth is None
        else {"prediction": segments, "ground truth": result.truth}
    )
    picture = draw_timeline(
        rows, out / f"{name}.png", title=name, thumbnails=strip or None, thumbnail_times=strip_times
    )
    page = write_report(
        out / f"{name}.html",
        video=about,
        segments=segments,
        thumbnails=thumbnails or None,
        truth=result.truth,
        filmstrip=strip or None,
        facts=facts,
        provenance=result.provenance,
        index=index,
    )
    entry = IndexEntry(
        page, segments, truth=result.truth, thumbnail=strip[len(strip) // 2] if strip else None
    )
    return [picture, page], entry


def _pictures(
    result: Result,
) -> tuple[dict[str, object], list[np.ndarray], np.ndarray | None, list[np.ndarray]]:
    """Facts of the video, a film strip with its times, and the middle frame of every segment."""
    from framecast.data.features import FEATURE_SUFFIXES
    from framecast.data.video import probe

    segments = result.segments
    if result.source.suffix in FEATURE_SUFFIXES or segments.limits_s is None:
        return {"name": segments.video, "frames": segments.num_frames}, [], None, []
    info = probe(result.source)
    strip_times = (np.arange(STRIP_PICTURES) + 0.5) * info.duration_s / STRIP_PICTURES
    # The last step of a track may last longer than the video.
    middles = segments.limits_s.clip(max=info.duration_s).mean(1)
    times = np.concatenate([strip_times, middles])
    pictures = film(result.source, times)
    about = {
        "name": segments.video,
        "duration": info.duration_s,
        "frames": info.num_frames,
        "size": (info.width, info.height),
        "fps": info.fps,
    }
    return about, pictures[:STRIP_PICTURES], strip_times, pictures[STRIP_PICTURES:]


def film(path: Path, times_s: np.ndarray) -> list[np.ndarray]:
    """Small pictures (H, W, 3) uint8 of a video at moments in any order."""
    from framecast.data.video import probe, read_frames

    info, order = probe(path), np.argsort(times_s, kind="stable")
    height = max(2, round(THUMBNAIL_WIDTH * info.height / info.width / 2) * 2)
    frames = read_frames(path, times_s[order].tolist(), size=(height, THUMBNAIL_WIDTH)).frames
    pictures: list[np.ndarray] = [np.empty(0)] * len(times_s)
    for place, frame in zip(order, frames, strict=True):
        pictures[place] = frame.permute(1, 2, 0).numpy()
    return pictures
