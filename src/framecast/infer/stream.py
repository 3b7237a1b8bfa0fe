"""Anticipation while a video plays: what is seen is labelled as it comes, and now and then futures are drawn.

    forecaster = Forecaster("runs/anticipation", segmenter=Predictor("runs/kitchen"))
    stream = Stream(StreamPlan(horizon_s=60), forecaster)
    for moment in stream.watch("cooking.mp4"):
        print(moment.line())

A file is read as fast as the machine can, nothing is left out, and what comes out depends on the file and
the seed alone. With a `Pace`, as for a camera, steps whose turn comes too late are skipped, and futures are
drawn beside the watching, one forecast at a time: what a forecast costs delays no picture.
Legend: K classes, T steps, S samples.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from framecast.data.features import FEATURE_SUFFIXES, load_track
from framecast.data.tables import SegmentRow
from framecast.data.timelines import FINEST_S, timeline_of
from framecast.infer.forecaster import Forecaster
from framecast.infer.frame_features import READ_AHEAD, FrameEncoder, read_ahead
from framecast.infer.live_segmentation import LiveTimeline, VectorWindow
from framecast.infer.predictor import Predictor, backbone_of, features_of, settings_of
from framecast.infer.stream_moments import Moment
from framecast.infer.stream_sources import (
    Pace,
    Step,
    camera_frames,
    file_frames,
    is_camera,
    never,
    table_rows,
    table_until,
    track_steps,
    video_steps,
)
from framecast.structures import FeatureTrack, Futures, Provenance, Segments
from framecast.tasks.segmentation import check_features

SAME_TIME_S = 1e-6


@dataclass(frozen=True)
class StreamPlan:
    """What is asked of a stream; times in seconds."""

    horizon_s: float = 60.0
    every_s: float = 5.0  # from one forecast to the next, in time of the video
    samples: int = 25
    seed: int = 0
    hold_s: float = 1.0  # how long a class has to lead before a causal segmenter changes to it
    look_back_s: float = 60.0  # window that other segmenters label again
    memory_s: float = 600.0  # how much of the past the anticipation model is shown
    length_s: float | None = None  # how long the whole video is expected to be

    def __post_init__(self) -> None:
        for name in ("horizon_s", "every_s", "look_back_s", "memory_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a time in seconds, more than 0")
        if not self.hold_s >= 0 or self.samples < 1:
            raise ValueError(
                f"hold_s is {self.hold_s} and samples {self.samples}; at least 0 seconds and 1 future"
            )


class Stream:
    """Watches one source from its beginning to its end, or until `stop` says so.

    forecaster: None = what is seen is labelled and nothing is forecast. segmenter: labels what is seen, None
    = that of the forecaster. pace: the source does not wait for us.
    """

    def __init__(
        self,
        plan: StreamPlan,
        forecaster: Forecaster | None = None,
        *,
        segmenter: Predictor | None = None,
        pace: Pace | None = None,
        stop: Callable[[], bool] = never,
    ) -> None:
        self.plan, self.forecaster, self.pace, self.stop = plan, forecaster, pace, stop
        self.segmenter = segmenter or (forecaster.segmenter if forecaster else None)
        if self.forecaster is None and self.segmenter is None:
            raise ValueError("a stream needs a segmentation model, an anticipation model, or both")
        if forecaster is not None:
            forecaster.num_steps(plan.horizon_s)  # what cannot be forecast is said before anything is watched
        self.skipped = 0  # steps that came too late to be looked at
        self.missed = 0  # forecasts that were due while the one before was still being drawn
        self.live: LiveTimeline | None = None
        self.last: Moment | None = None
        self._features: VectorWindow | None = None
        self._made: Provenance | None = None
        self._table: tuple[list[SegmentRow], str, str] | None = None
        self._seen_s = self._asked_s = 0.0
        self._due_s = plan.every_s
        self._step_s = 0.0
        self._source = ""
        self._pool = ThreadPoolExecutor(1, "forecast") if pace is not None else None
        self._drawing: Future[Moment] | None = None

    # Sources --------------------------------------------------------------------------------------------

    def watch(self, source: str | os.PathLike[str] | FeatureTrack) -> Iterator[Moment]:
        """Moments of a video file, a camera (/dev/video0), a feature file or a feature track.

        Raises VideoError or ValueError where it cannot be read or was made in another way than the training
        features, also in the middle; what was seen until then can be asked for.
        """
        try:
            with closing(self._steps(source)) as steps:
                for step in steps:
                    self._see(step)
                    yield from self._drawn()
                    if self._seen_s + SAME_TIME_S >= self._due_s:
                        yield from self._ask()
                    if self.stop():
                        break
            yield from self._finish()
        finally:
            self.close()

    def watch_table(self, path: str, *, follow: bool = False) -> Iterator[Moment]:
        """Moments of a table video,start_s,end_s,label that may still grow; "-" is standard input.

        A table on disk is gone through from its beginning, as if it were written now. Of one that grows, only
        the newest time that is due is forecast.
        """
        assert self.forecaster is not None
        if self.forecaster.observe != "labels":
            raise ValueError("this model observes features; give it a video or a feature file")
        rows: list[SegmentRow] = []
        grows = follow or path == "-"
        try:
            for video, new in table_rows(path, follow=follow, stop=self.stop):
                rows += new
                self._table = (rows, video, path)
                if not grows:
                    yield from self._replay(rows[-1].end)
                    continue
                self._seen_s = rows[-1].end
                if self._seen_s + SAME_TIME_S >= self._due_s:
                    self.missed += int((self._seen_s + SAME_TIME_S - self._due_s) / self.plan.every_s)
                    yield from self._ask()
            yield from self._finish()
        finally:
            self.close()

    def _replay(self, end_s: float) -> Iterator[Moment]:
        """Ask at every time that is due until end_s, as if the rows until then were all there are."""
        assert self._table is not None
        rows = self._table[0]
        for due in [*self._due_times(end_s), end_s]:
            if self.stop():
                return
            if self.pace is not None:
                self.pace.meet(due)
                yield from self._drawn()
            known = [min(row.end, due) for row in rows if row.start + FINEST_S <= due + SAME_TIME_S]
            self._seen_s = max(known, default=0.0)
            if due < self._due_s - SAME_TIME_S:
                continue
            if self._seen_s > self._asked_s + SAME_TIME_S:
                yield from self._ask()
            self._due_s = due + self.plan.every_s

    def _due_times(self, end_s: float) -> list[float]:
        count = math.floor((end_s - self._due_s + SAME_TIME_S) / self.plan.every_s) + 1
        return [self._due_s + i * self.plan.every_s for i in range(count)]

    def _steps(self, source: str | os.PathLike[str] | FeatureTrack) -> Generator[Step]:
        """Steps with vectors; what has to be there for them is opened before the source is."""
        watched = self.segmenter or self.forecaster
        assert watched is not None
        if self.forecaster is not None and self.forecaster.observe != "features" and self.segmenter is None:
            raise ValueError(
                "this model observes labels; give it a timeline (--timeline observed.csv), or a segmentation "
                "model of the same classes that makes one of the video (--segmenter RUN)"
            )
        if isinstance(source, FeatureTrack) or Path(source).suffix in FEATURE_SUFFIXES:
            track = source if isinstance(source, FeatureTrack) else load_track(source)
            self._check(track)
            made = track.provenance or watched.card.features
            self._open(made, Path(track.source or "features").stem, made.step_s if made else None)
            yield from track_steps(track, self._step_s or None, self.pace)
            return
        name = os.fspath(source)
        made = features_of(watched.card)
        settings = settings_of(made)
        backbone = self.segmenter.backbone if self.segmenter else backbone_of(made, watched.weights)
        encoder = FrameEncoder(backbone, settings, watched.device, provenance=made)
        self._check(FeatureTrack(np.empty((self._width(), 0)), None, made, name))
        self._open(made, Path(name).stem, made.step_s)
        frames = camera_frames(name) if is_camera(name) else file_frames(name)
        steps = video_steps(frames, made.step_s, settings.image_size, source=name, pace=self.pace)
        with closing(frames), closing(steps if self.pace else read_ahead(steps, READ_AHEAD)) as ready:
            for step in ready:
                if step.frames is None:
                    yield step
                else:
                    yield Step(step.time_s, vector=encoder.stored(encoder(step.frames)[0], name))

    def _width(self) -> int:
        assert self.segmenter is not None or self.forecaster is not None
        if self.segmenter is not None:
            return self.segmenter.model.config.feature_dim
        return self._observed_width()

    def _observed_width(self) -> int:
        assert self.forecaster is not None
        labels = len(self.forecaster.card.classes) if self.forecaster.observe == "both" else 0
        return self.forecaster.model.config.feature_dim - labels

    def _check(self, track: FeatureTrack) -> None:
        """Refuse features that the models were not trained for, before any is made."""
        if self.segmenter is not None:
            wanted = self.segmenter.model.config.feature_dim
            check_features(self.segmenter.card.features, track, wanted_dim=wanted)
        if self.forecaster is not None and self.forecaster.observe != "labels":
            check_features(self.forecaster.card.features, track, wanted_dim=self._observed_width())

    def _open(self, made: Provenance | None, name: str, step_s: float | None) -> None:
        self._made, self._step_s, self._source = made, step_s or 0.0, name
        plan = self.plan
        if self.segmenter is not None:
            self.live = LiveTimeline(
                self.segmenter.model, hold_s=plan.hold_s, look_back_s=plan.look_back_s, step_s=step_s
            )
            self.live.video = name
        if self.forecaster is not None and self.forecaster.observe != "labels":
            self._features = VectorWindow(plan.memory_s)

    # What is seen ---------------------------------------------------------------------------------------

    def _see(self, step: Step) -> None:
        self.skipped += step.skipped
        if self.live is not None:
            self.live.see(step.time_s, step.vector)
        if self._features is not None:
            vector = self._features.vectors[-1] if step.vector is None else step.vector
            self._features.add(step.time_s, vector)
        self._seen_s = step.time_s + self._step_s

    def seen(self) -> Segments | None:
        """The timeline so far, all of it; None before anything was seen."""
        if self._table is not None:
            return self._timeline(0.0)
        if self.live is not None:
            return self.live.segments() if len(self.live) else None
        return None if self.last is None else self.last.seen

    def _timeline(self, since_s: float) -> Segments:
        if self.live is not None:
            return self.live.segments(since_s)
        assert self._table is not None
        assert self.forecaster is not None
        rows, video, path = self._table
        classes = self.forecaster.card.classes
        found = timeline_of(table_until(rows, video, self._seen_s, path), video, classes)
        return found if since_s <= 0 else _since(found, since_s)

    # What follows ---------------------------------------------------------------------------------------

    def _ask(self) -> Iterator[Moment]:
        """Draw futures after what was seen until now, at once or beside the watching."""
        self._asked_s = self._seen_s
        every = self.plan.every_s
        self._due_s = (math.floor((self._seen_s + SAME_TIME_S) / every) + 1) * every
        if self._drawing is not None:
            self.missed += 1
            return
        draw = self._forecast(self._seen_s)
        if self._pool is None:
            yield self._keep(draw())
        else:
            self._drawing = self._pool.submit(draw)

    def _drawn(self, *, wait: bool = False) -> Iterator[Moment]:
        if self._drawing is not None and (wait or self._drawing.done()):
            done, self._drawing = self._drawing, None
            yield self._keep(done.result())

    def _keep(self, moment: Moment) -> Moment:
        self.last = moment
        return moment

    def _forecast(self, now_s: float) -> Callable[[], Moment]:
        """The forecast from what is known now, ready to be made in another thread."""
        plan, forecaster = self.plan, self.forecaster
        since = now_s - plan.memory_s
        seen = None if self.live is None and self._table is None else self._timeline(since)
        skipped, missed = self.skipped, self.missed
        observed: Segments | FeatureTrack | None = seen
        if self._features is not None and forecaster is not None:
            first, values = self._features.values(forecaster.card.sample_rate)
            times = np.array(self._features.times[first - self._features.first :])
            observed = FeatureTrack(values, times, self._made, self._source)

        def draw() -> Moment:
            began = time.monotonic()
            futures: Futures | None = None
            if forecaster is not None:
                assert observed is not None
                futures = forecaster(
                    observed,
                    plan.horizon_s,
                    samples=plan.samples,
                    seed=plan.seed,
                    length_s=plan.length_s,
                )
                if seen is None and isinstance(observed, FeatureTrack):
                    futures = replace(futures, observed=_moved(futures.observed, observed))
            past = seen if seen is not None else futures.observed if futures else None
            assert past is not None
            took = time.monotonic() - began
            delay = None if self.pace is None else self.pace.delay_s(now_s)
            return Moment(now_s, past, futures, took, delay, skipped, missed)

        return draw

    def _finish(self) -> Iterator[Moment]:
        """What is still being drawn, and the futures after the end of what was seen."""
        yield from self._drawn(wait=True)
        known_s = 0.0 if self.last is None else self.last.time_s
        if self._seen_s > known_s + SAME_TIME_S and not (self.stop() and self.last):
            yield from self._ask()
            yield from self._drawn(wait=True)

    def close(self) -> None:
        """End the thread that draws futures; what it is drawing is waited for."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _since(segments: Segments, since_s: float) -> Segments:
    """The part of a timeline that begins at since_s."""
    assert segments.times is not None
    first = min(int(np.searchsorted(segments.times, since_s - SAME_TIME_S)), segments.num_frames - 1)
    return Segments.from_frames(
        segments.frame_labels[first:],
        segments.classes,
        video=segments.video,
        times=segments.times[first:],
    )


def _moved(past: Segments, track: FeatureTrack) -> Segments:
    """The past as a model that observes features labels it, at the time of the vectors that it was shown."""
    assert track.times is not None
    return past if past.times is None else replace(past, times=past.times + track.times[0])
