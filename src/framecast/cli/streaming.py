"""`stream`: what comes next, said again and again while a video plays."""

from __future__ import annotations

import json
import os
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from framecast.cli import prediction
from framecast.cli.anticipation import parse_horizon
from framecast.cli.data import Weights
from framecast.cli.output import AsJson, Device, check_out, no_empty_folder, pick_device, show

LIVE_ONLY = ("max_delay",)
VIDEO_ONLY = ("segmenter", "hold", "look_back", "weights")
AHEAD_ONLY = ("anticipate", "samples", "seed", "memory", "expected_length")


def stream(
    context: typer.Context,
    source: Annotated[
        str | None, typer.Argument(help="Video, feature file or camera (/dev/video0).", show_default=False)
    ] = None,
    segmenter: Annotated[
        str | None, typer.Option(help="Trained segmentation model that labels what is seen.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Trained anticipation model; without one, only what is seen is told.")
    ] = None,
    anticipate: Annotated[str | None, typer.Option(help="How far to look ahead, e.g. 60s or 2m.")] = None,
    samples: Annotated[int, typer.Option(help="How many futures.", min=1)] = 25,
    every: Annotated[str, typer.Option(help="From one forecast to the next.")] = "5s",
    seed: Annotated[int, typer.Option(help="Of the random futures.", min=0)] = 0,
    timeline: Annotated[
        str | None, typer.Option(help="CSV of what is seen instead of a video; - is standard input.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="With --timeline: wait for more rows, until Ctrl-C.")
    ] = False,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Give a file out like a camera, each frame at its time.")
    ] = False,
    max_delay: Annotated[
        str, typer.Option(help="Camera, --realtime: what comes later than this is skipped.")
    ] = "2s",
    hold: Annotated[
        float, typer.Option(help="Causal segmenters: seconds that a class leads before it counts.", min=0)
    ] = 1.0,
    look_back: Annotated[
        str, typer.Option(help="Other segmenters: how much of what was seen is labelled again.")
    ] = "60s",
    memory: Annotated[
        str, typer.Option(help="How much of the past the anticipation model is shown.")
    ] = "10m",
    expected_length: Annotated[
        str | None, typer.Option(help="How long the whole video may be; without it, to the horizon.")
    ] = None,
    weights: Weights = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("stream"),
    pages: Annotated[bool, typer.Option(help="At the end, draw a picture and write an HTML page.")] = True,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say what comes next while a video plays: a line every few seconds; at the end a timeline and a page.

    framecast stream cooking.mp4 --segmenter runs/kitchen --model runs/anticipation --anticipate 60s
    framecast stream /dev/video0 --segmenter runs/kitchen --model runs/anticipation --anticipate 60s
    framecast stream --timeline seen.csv --model runs/anticipation --anticipate 60s --every 10s
    """
    from framecast.infer.stream import Stream, StreamPlan
    from framecast.infer.stream_sources import Pace, is_camera
    from framecast.train.signals import StopRequests

    _check_words(context, source, timeline, segmenter, model, anticipate, realtime, follow)
    camera = source is not None and is_camera(source)
    if not (camera or realtime):
        prediction.refuse_options(context, LIVE_ONLY, "cameras and --realtime; a file waits for us")
    plan = StreamPlan(
        horizon_s=60.0 if anticipate is None else parse_horizon(anticipate),
        every_s=parse_horizon(every),
        samples=samples,
        seed=seed,
        hold_s=hold,
        look_back_s=parse_horizon(look_back),
        memory_s=parse_horizon(memory),
        length_s=None if expected_length is None else parse_horizon(expected_length),
    )
    check_out(out)
    forecaster, own = _open_models(model, segmenter, weights, pick_device(device))
    words = [*([source] if source else []), *prediction.given_options(context)]
    facts = {"command": shlex.join(["framecast", "stream", *words])}
    if forecaster is not None:
        facts["model"] = f"{forecaster.model.registered_name} from {model}"
        facts["horizon"] = f"{plan.horizon_s:g} s, {samples} futures, seed {seed}, every {plan.every_s:g} s"
    if own is not None:
        facts["labelled by"] = f"{own.model.registered_name} from {segmenter}"
    with StopRequests() as stops, no_empty_folder(out):
        pace = None
        if camera or realtime:
            pace = Pace(parse_horizon(max_delay), paced=not camera, stop=lambda: bool(stops.received))
        running = Stream(plan, forecaster, segmenter=own, pace=pace, stop=lambda: bool(stops.received))
        diary = Diary(out, running, as_json=as_json)
        watched = running.watch_table(timeline, follow=follow) if timeline else running.watch(source or "")
        try:
            for moment in watched:
                diary.add(moment)
        finally:  # what was seen until the camera was pulled out is worth as much as what a file held
            written = diary.finish(facts, plan.horizon_s, pages=pages)
        if not as_json:
            show(diary.summary(plan.horizon_s))
            show(f"wrote {', '.join(p.name for p in written)} into {out}" if written else "nothing was seen")
        if stops.received:
            raise _stopped(stops.received)


def _check_words(
    context: typer.Context,
    source: str | None,
    timeline: str | None,
    segmenter: str | None,
    model: str | None,
    anticipate: str | None,
    realtime: bool,
    follow: bool,
) -> None:
    """ValueError for words that are missing or do not go together."""
    if (source is None) == (timeline is None):
        raise ValueError("pass a video, a feature file or a camera, or --timeline seen.csv, and one of them")
    if source is not None and "://" in source:
        raise ValueError(
            f"{source}: streams are not fetched from the network; record to a file, or bring the stream to a "
            "camera device such as v4l2loopback makes"
        )
    if model is None:
        given = "--anticipate looks ahead" if anticipate else "a timeline says what was seen already"
        if anticipate or timeline:
            raise ValueError(f"{given}; say by which model, --model RUN")
        if segmenter is None:
            raise ValueError("say who labels what is seen, --segmenter RUN, and who looks ahead, --model RUN")
        prediction.refuse_options(context, AHEAD_ONLY, "looking ahead; pass --model RUN as well")
    elif anticipate is None:
        raise ValueError("this model looks ahead; say how far, for example --anticipate 60s")
    if timeline is not None:
        prediction.refuse_options(context, VIDEO_ONLY, "videos and feature files, not for a timeline")
        if realtime and (follow or timeline == "-"):
            raise ValueError("--realtime gives a finished file out in time; a growing one has its own pace")
    elif follow:
        raise ValueError("--follow is for --timeline")


def _open_models(model: str | None, segmenter: str | None, weights: str | None, device: str) -> Any:
    """The anticipation model and the segmentation model, None where there is none."""
    from framecast.infer.forecaster import Forecaster
    from framecast.infer.predictor import Predictor

    own = None if segmenter is None else Predictor(segmenter, weights=weights, device=device)
    if model is None:
        return None, own
    return Forecaster(model, segmenter=own, weights=weights, device=device), own


def _stopped(signal: str) -> SystemExit:
    from framecast.train.signals import Interrupted, Requeue

    if signal == "SIGINT":
        return Interrupted("stopped by Ctrl-C")
    return Requeue(f"stopped by {signal}")


@dataclass
class Diary:
    """What a stream leaves behind: a line of JSON as soon as it is said, the rest at the end."""

    out: Path
    running: Any  # Stream
    as_json: bool
    records: list[dict[str, Any]] = field(default_factory=list)
    _file: int = -1
    _warned: bool = False

    @property
    def path(self) -> Path:
        return self.out / "stream.jsonl"

    def add(self, moment: Any) -> None:
        record = moment.record()
        text = json.dumps(record, ensure_ascii=False, allow_nan=False)
        if self._file < 0:
            self.out.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
        os.write(self._file, f"{text}\n".encode())  # one write: a line is there as a whole or not at all
        self.records.append({key: record[key] for key in ("time_s", "now", "next") if key in record})
        show(text if self.as_json else moment.line())
        if not self._warned and (moment.skipped or moment.missed):
            self._warned = True
            warnings.warn(self._too_slow(moment), stacklevel=1)

    def _too_slow(self, moment: Any) -> str:
        limit = self.running.pace.max_delay_s if self.running.pace else 0.0
        if moment.skipped:
            return (
                f"this machine is too slow for the stream: steps that are more than {limit:g} s late are "
                "skipped and counted, and what was seen before is taken to go on"
            )
        return (
            "drawing futures takes longer than --every: what is due meanwhile is left out and counted; "
            "use fewer --samples or a longer --every"
        )

    def finish(self, facts: dict[str, str], horizon_s: float, *, pages: bool) -> list[Path]:
        """timeline.csv, and a picture and a page of the last futures."""
        from framecast.data.tables import write_segments_csv

        if self._file >= 0:
            os.close(self._file)
        seen = self.running.seen()
        if seen is None:
            return []
        written = [write_segments_csv([seen], self.out / "timeline.csv")]
        written += [self.path] if self.records else []
        if not pages:
            return written
        facts = facts | self._counts()
        right, total = self._right(horizon_s)
        if total:
            facts["next action right"] = f"{right} of {total} forecasts, by what the stream saw later"
        return written + self._pages(seen, facts, [path.name for path in written])

    def _pages(self, seen: Any, facts: dict[str, str], files: Sequence[str]) -> list[Path]:
        futures = self.running.last.futures if self.running.last is not None else None
        if futures is not None:
            from framecast.cli.anticipation import write_pages

            return write_pages(futures, self.out, facts, files)
        from framecast.viz.report import write_report
        from framecast.viz.timeline import draw_timeline

        name = seen.video or "stream"
        picture = draw_timeline({"segments": seen}, self.out / f"{name}.png", title=name)
        about: dict[str, object] = {"name": name, "frames": seen.num_frames}
        return [picture, write_report(self.out / f"{name}.html", video=about, segments=seen, facts=facts)]

    def _counts(self) -> dict[str, str]:
        counts = {}
        if self.running.pace is not None:
            counts["skipped"] = f"{self.running.skipped} steps, more than the allowed delay late"
        if self.running.missed:
            counts["missed"] = f"{self.running.missed} forecasts, due while another one was being drawn"
        return counts

    def _right(self, horizon_s: float) -> tuple[int, int]:
        from framecast.infer.stream_moments import came_true

        seen = self.running.seen()
        return (0, 0) if seen is None else came_true(self.records, seen, horizon_s)

    def summary(self, horizon_s: float) -> str:
        """ "12 forecasts; the action named first came next in 7 of 9; 0 steps skipped" """
        parts = [f"{len(self.records)} moments"]
        right, total = self._right(horizon_s)
        if total:
            parts.append(f"the action named first came next in {right} of {total}")
        if self.running.pace is not None:
            parts.append(f"{self.running.skipped} steps skipped, {self.running.missed} forecasts missed")
        return "; ".join(parts)
