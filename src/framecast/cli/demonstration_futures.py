"""The part of `framecast demo` that looks ahead: a real kitchen timeline, and what may come next.

The labels are those of a Breakfast video (Kuehne, Arslan and Serre, CVPR 2014, CC BY 4.0) that the shipped
model has not seen in training; what the person really did next is shown beside the forecast.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from framecast.cli.anticipation import Ahead, describe, look_ahead, write_pages
from framecast.cli.output import show
from framecast.structures import Segments

if TYPE_CHECKING:
    from framecast.viz.futures_index import FuturesEntry

MODEL = "breakfast_futures"
NOW_S = 24.0  # what came before is shown to the model
AHEAD = Ahead(horizon_s=60.0, samples=25, seed=0, length_s=120.0)
NAME = "kitchen"


def futures_demo(out: Path, device: str, index: Path) -> FuturesEntry:
    """Forecast from the beginning of the kitchen timeline; files, a picture and a page into the folder.

    index: the page that links to this one. Prints what may come and what really came.
    """
    from framecast.data.futures_files import write_futures_csv, write_futures_json
    from framecast.data.tables import write_segments_csv
    from framecast.data.timelines import read_timelines
    from framecast.infer.forecaster import Forecaster
    from framecast.viz.futures_index import FuturesEntry
    from framecast.weights import kitchen_timeline

    forecaster = Forecaster(MODEL, device=device)
    (whole,) = read_timelines(kitchen_timeline(), forecaster.card.classes)
    truth = replace(whole, video=NAME)
    seen = until(truth, NOW_S)
    futures = look_ahead(forecaster, seen, AHEAD)
    files = [
        write_segments_csv([seen], out / f"{NAME}_seen.csv"),
        write_futures_csv(futures, out / "futures.csv"),
        write_futures_json(futures, out / "futures.json"),
    ]
    title = "A kitchen: what comes next?"
    command = (
        f"framecast predict --timeline {files[0]} --model {MODEL} --anticipate {AHEAD.horizon_s:g}s "
        f"--expected-length {AHEAD.length_s:g}s"
    )
    facts = {
        "command": command,
        "model": f"{forecaster.model.registered_name} from {MODEL}, which ships with framecast; weights: "
        f"{forecaster.card.licence}",
        "observes": "labels of what was seen so far, no pixels",
        "horizon": str(AHEAD),
        "timeline": f"labels of {whole.video}, Breakfast Actions (Kuehne, Arslan and Serre, CVPR 2014), "
        "CC BY 4.0; the person was not seen in training",
    }
    names = [file.name for file in files]
    pages = write_pages(futures, out, facts, names, truth=truth, index=index, title=title)
    show(f"{NAME}: {describe(futures)}")
    show(f"{NAME}: what really came: {continuation(truth, NOW_S)}")
    show(f"change {files[0]} and look ahead again: {command}")
    return FuturesEntry(pages[-1], futures, name=title, truth=truth)


def until(segments: Segments, now_s: float) -> Segments:
    """The part of a timeline before a moment."""
    assert segments.times is not None
    count = int(np.searchsorted(segments.times, now_s - 1e-6))
    return Segments.from_frames(
        segments.frame_labels[:count],
        segments.classes,
        video=segments.video,
        times=segments.times[:count],
    )


def continuation(segments: Segments, now_s: float) -> str:
    """ "stir_egg (+3 s), pour_egg2pan (+16 s)" """
    assert segments.limits_s is not None
    coming = [
        f"{name} (+{start - now_s:.0f} s)"
        for name, (start, _) in zip(segments.names, segments.limits_s, strict=True)
        if now_s < start < now_s + AHEAD.horizon_s
    ]
    return ", ".join(coming)
