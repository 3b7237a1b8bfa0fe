"""What is streamed is what is found offline, and what comes too late is skipped by a rule."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_backbone import TinyBackbone

import framecast as fc
from framecast.checkpoints import ModelCard
from framecast.data.features import save_track
from framecast.data.timelines import read_timelines
from framecast.data.video import iter_clips
from framecast.data.video_container import VideoError
from framecast.infer import stream as streams
from framecast.infer.forecaster import Forecaster
from framecast.infer.frame_features import FeatureSettings, extract_features, provenance_of
from framecast.infer.live_segmentation import Hysteresis, LiveTimeline, is_causal
from framecast.infer.predictor import Predictor
from framecast.infer.stream import Stream, StreamPlan
from framecast.infer.stream_moments import Moment, came_true, next_actions
from framecast.infer.stream_sources import Pace, camera_frames, file_frames, table_rows, video_steps
from framecast.structures import FeatureTrack, Futures, Segments
from framecast.tasks.forecasting import Sampling
from framecast.tasks.segmentation import predict_frames, segment_track
from video_factory import write_video

CLASSES = ("pour", "stir", "drink", "wash")
SETTINGS = FeatureSettings(
    "tiny", weights="0", pooling="cls+mean", image_size=(16, 24), step_s=0.25, batch_size=1
)
PLAN = StreamPlan(horizon_s=10, every_s=1.0, samples=4, hold_s=0.0)


def steady(labels: np.ndarray, hold: int) -> np.ndarray:
    """Hysteresis over the labels (T,) of a whole video: what a stream says of it in the end."""
    state, held = Hysteresis(hold), np.empty_like(labels)
    for i, label in enumerate(labels):
        held[i], back = state.step(int(label))
        held[i - back : i] = held[i]
    return held


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "tea.mp4", 63, rate=10)


def shaken(model: Any) -> Any:
    """Random weights far from any special value."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def predictor(name: str = "frame_linear", *, sample_rate: int = 1, **config: Any) -> Predictor:
    """A segmentation model of the tiny backbone's features, which stands at hand."""
    torch.manual_seed(0)
    model = shaken(fc.create_model(name, num_classes=4, feature_dim=12, **config))
    backbone = TinyBackbone(0)
    made = provenance_of(backbone, SETTINGS)
    model.card = ModelCard(task="segmentation", classes=CLASSES, features=made, sample_rate=sample_rate)
    found = Predictor(model)
    found._backbone = backbone
    return found


def forecaster(observe: str = "labels", segmenter: Predictor | None = None, **card: Any) -> Forecaster:
    torch.manual_seed(0)
    channels = {"labels": 4, "features": 12, "both": 16}[observe]
    model = shaken(
        fc.create_model(
            "manta", num_classes=4, feature_dim=channels, num_layers=1, width=8, diffusion_steps=10
        )
    )
    made = provenance_of(TinyBackbone(0), SETTINGS)
    given: dict[str, Any] = {
        "classes": CLASSES,
        "sample_rate": 2,
        "features": None if observe == "labels" else made,
    }
    notes = {"observe": observe} | ({"frames_per_second": 4.0} if observe == "labels" else {})
    model.card = ModelCard(task="anticipation", notes=notes, **(given | card))
    return Forecaster(model, segmenter=segmenter, sampling=Sampling(samples=4, steps=2))


def same_segments(a: Segments, b: Segments) -> bool:
    assert a.times is not None
    assert b.times is not None
    limits = np.array_equal(a.starts, b.starts) and np.array_equal(a.ends, b.ends)
    return limits and np.array_equal(a.labels, b.labels) and np.array_equal(a.times, b.times)


def probabilities(segments: Segments) -> np.ndarray:
    assert segments.frame_probs is not None
    return segments.frame_probs


def same_futures(a: Futures | None, b: Futures | None) -> bool:
    assert a is not None
    assert b is not None
    return np.array_equal(a.samples, b.samples) and a.step_s == b.step_s and a.start_s == b.start_s


def beginning(track: FeatureTrack, steps: int) -> FeatureTrack:
    assert track.times is not None
    return replace(track, values=track.values[:, :steps], times=track.times[:steps])


# Streamed = offline ------------------------------------------------------------------------------------


@pytest.mark.parametrize("step_s", [None, 0.1, 0.07, 0.25, 1 / 3, 2.0])
@pytest.mark.parametrize("kind", ["constant", "variable", "avi"])
def test_frames_are_those_of_the_offline_reader(tmp_path: Path, kind: str, step_s: float | None) -> None:
    path = tmp_path / ("k.avi" if kind == "avi" else "k.mp4")
    pts = list(itertools.accumulate([0, *[1, 3, 2, 7, 1, 1, 4, 2, 2] * 4])) if kind == "variable" else None
    write_video(path, 37, pts=pts, codec="mpeg4" if kind == "avi" else "libx264")
    clips = list(iter_clips(path, frames_per_clip=1, step_s=step_s, size=(24, 32)))
    steps = list(video_steps(file_frames(path), step_s, (24, 32)))
    assert [step.time_s for step in steps] == [float(clip.times[0]) for clip in clips]
    last = None
    for step, clip in zip(steps, clips, strict=True):
        last = last if step.frames is None else step.frames
        assert last is not None
        assert torch.equal(last, clip.frames)


def test_features_timeline_and_futures_are_those_of_the_whole_video(video: Path) -> None:
    segmenter = predictor()
    ahead = forecaster(segmenter=segmenter)
    track = extract_features(segmenter.backbone, video, SETTINGS)
    vectors: list[np.ndarray] = []
    stream = Stream(PLAN, ahead)
    see = stream._see

    def record(step: Any) -> None:
        vectors.append(vectors[-1] if step.vector is None else step.vector)
        see(step)

    stream._see = record
    moments = list(stream.watch(video))
    streamed = np.stack(vectors, axis=1)
    assert streamed.dtype == track.values.dtype
    assert np.array_equal(streamed, track.values)

    seen, offline = stream.seen(), segment_track(segmenter.model, track, "tea")
    assert seen is not None
    assert same_segments(seen, offline)
    assert np.allclose(probabilities(seen), probabilities(offline), atol=1e-6)
    assert len(offline) > 2

    assert [m.time_s for m in moments] == pytest.approx([1, 2, 3, 4, 5, 6, 6.25])
    for moment in moments:
        part = segment_track(segmenter.model, beginning(track, round(moment.time_s / 0.25)), "tea")
        assert same_segments(moment.seen, part)
        assert same_futures(moment.futures, ahead(part, 10, samples=4, seed=0))


def test_features_are_close_whatever_the_batch_of_the_offline_extractor(video: Path) -> None:
    """Matrix products of other sizes may round in another way; on a GPU and some CPUs they do."""
    torch.manual_seed(0)
    config = {"width": 24, "depth": 2, "num_heads": 3, "patch_size": 8, "image_size": 32}
    vit = fc.create_model("vit_tiny", num_classes=0, **config)
    settings = replace(SETTINGS, backbone="vit_tiny", image_size=(32, 32))
    alone = extract_features(vit, video, settings).values.astype(np.float32)
    together = extract_features(vit, video, replace(settings, batch_size=32)).values.astype(np.float32)
    assert np.allclose(alone, together, atol=2e-3)


@pytest.mark.parametrize("name", ["mstcn", "ltcontext"])
def test_a_window_that_holds_the_video_gives_what_the_whole_video_gives(video: Path, name: str) -> None:
    more = {"window": 4, "stride": 2} if name == "ltcontext" else {}
    segmenter = predictor(name, sample_rate=2, num_stages=2, num_layers=2, width=8, **more)
    assert not is_causal(segmenter.model)
    stream = Stream(PLAN, forecaster(segmenter=segmenter))
    moments = list(stream.watch(video))
    track = extract_features(segmenter.backbone, video, SETTINGS)
    seen, offline = stream.seen(), segment_track(segmenter.model, track, "tea")
    assert seen is not None
    assert same_segments(seen, offline)
    assert np.array_equal(probabilities(seen), probabilities(offline))
    for moment in moments:
        part = segment_track(segmenter.model, beginning(track, round(moment.time_s / 0.25)), "tea")
        assert same_segments(moment.seen, part)


def test_a_short_window_labels_only_its_end_again() -> None:
    segmenter = predictor("mstcn", sample_rate=2, num_stages=1, num_layers=2, width=8)
    values = np.random.default_rng(0).standard_normal((12, 203)).astype(np.float32)
    live = LiveTimeline(segmenter.model, look_back_s=16.0)
    held, before = 0, np.empty(0)
    for i in range(203):
        live.see(float(i), values[:, i])
        held = max(held, len(live.window.vectors))
        if i % 7 == 6:
            live.settle()
            now = np.array(live.labels)
            first = live.window.values(2)[0]
            assert first % 2 == 0
            kept = max(0, min(len(before), first))
            assert np.array_equal(now[:kept], before[:kept])  # what has left the window stays
            before = now
    assert held < 50  # of 203 steps
    segments = live.segments()
    assert segments.num_frames == 203
    # these layers reach 3 steps to either side: far from both ends of a window they see all they need
    offline, _ = predict_frames(segmenter.model, values[:, ::2])
    assert np.mean(segments.frame_labels == offline[np.arange(203) // 2]) > 0.9


@pytest.mark.parametrize("observe", ["features", "both"])
def test_models_that_observe_features_are_shown_all_that_was_seen(video: Path, observe: str) -> None:
    segmenter = predictor() if observe == "both" else None
    ahead = forecaster(observe, segmenter)
    ahead._backbone = TinyBackbone(0)
    track = replace(extract_features(TinyBackbone(0), video, SETTINGS), source="tea")
    moments = list(Stream(PLAN, ahead).watch(track))
    assert [m.time_s for m in moments] == pytest.approx([1, 2, 3, 4, 5, 6, 6.25])
    for moment in moments:
        part = beginning(track, round(moment.time_s / 0.25))
        assert same_futures(moment.futures, ahead(part, 10, samples=4, seed=0))
    short = list(Stream(replace(PLAN, memory_s=1.0), ahead).watch(track))
    assert short[-1].futures is not None
    assert short[-1].futures.start_s == pytest.approx(6.25, abs=0.5)


def test_a_feature_file_is_streamed_like_its_video(video: Path, tmp_path: Path) -> None:
    segmenter = predictor()
    save_track(extract_features(segmenter.backbone, video, SETTINGS), tmp_path / "tea.npy")
    ahead = forecaster(segmenter=segmenter)
    from_video, from_file = Stream(PLAN, ahead), Stream(PLAN, ahead)
    for a, b in zip(from_video.watch(video), from_file.watch(tmp_path / "tea.npy"), strict=True):
        assert same_futures(a.futures, b.futures)
    one, other = from_video.seen(), from_file.seen()
    assert one is not None
    assert other is not None
    assert same_segments(one, other)


def test_a_table_is_forecast_as_if_it_ended_now(tmp_path: Path) -> None:
    rows = ["k,0,4,pour", "k,4,12,stir", "k,14,15.5,drink"]
    (tmp_path / "seen.csv").write_text("\n".join(["video,start_s,end_s,label", *rows]) + "\n")
    ahead = forecaster()
    stream = Stream(replace(PLAN, every_s=5.0), ahead)
    moments = list(stream.watch_table(str(tmp_path / "seen.csv")))
    assert [m.time_s for m in moments] == pytest.approx([5, 10, 15, 15.5])
    assert [m.now for m in moments] == ["stir", "stir", "drink", "drink"]
    cuts = [[rows[0], "k,4,5,stir"], [rows[0], "k,4,10,stir"], [*rows[:2], "k,14,15,drink"], rows]
    for moment, cut in zip(moments, cuts, strict=True):
        (tmp_path / "cut.csv").write_text("\n".join(["video,start_s,end_s,label", *cut]) + "\n")
        offline = read_timelines(tmp_path / "cut.csv", CLASSES)[0]
        assert same_segments(moment.seen, offline)
        assert same_futures(moment.futures, ahead(offline, 10, samples=4, seed=0))


# Hysteresis, memory, length ---------------------------------------------------------------------------


def test_a_class_takes_over_when_it_has_led_long_enough() -> None:
    labels = np.array([0, 0, 1, 0, 1, 1, 1, 2, 1, 2, 2, 0, 2, 2, 2, 3])
    assert steady(labels, 1).tolist() == labels.tolist()
    assert steady(labels, 3).tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2]
    state = Hysteresis(3)
    assert [state.step(int(k)) for k in labels[:7]][-1] == (1, 2)  # this step and the two before


@pytest.mark.parametrize("sample_rate", [1, 3])
def test_hysteresis_while_streaming_is_that_over_the_whole_video(video: Path, sample_rate: int) -> None:
    segmenter = predictor(sample_rate=sample_rate)
    stream = Stream(replace(PLAN, hold_s=1.5), segmenter=segmenter)
    list(stream.watch(video))
    track = extract_features(segmenter.backbone, video, SETTINGS)
    raw, _ = predict_frames(segmenter.model, track.values[:, ::sample_rate])
    hold = round(1.5 / (0.25 * sample_rate))
    assert hold > 1
    seen = stream.seen()
    assert seen is not None
    assert np.array_equal(seen.frame_labels, steady(raw, hold)[np.arange(len(track)) // sample_rate])


def test_only_the_memory_is_shown_and_the_length_is_told(video: Path) -> None:
    ahead = forecaster(segmenter=predictor())
    *_, last = Stream(replace(PLAN, memory_s=2.0), ahead).watch(video)
    assert last.seen.times is not None
    assert last.seen.times[0] == pytest.approx(4.25)
    assert last.seen.num_frames == 8
    *_, told = Stream(replace(PLAN, length_s=60.0), ahead).watch(video)
    *_, untold = Stream(PLAN, ahead).watch(video)
    assert told.futures is not None
    assert untold.futures is not None
    assert told.futures.num_steps == untold.futures.num_steps == 20
    assert same_futures(told.futures, ahead(told.seen, 10, samples=4, seed=0, length_s=60.0))
    assert not np.array_equal(told.futures.samples, untold.futures.samples)


class Repeating(torch.nn.Module):
    """A network of 2018 as the forecaster sees it; writes down how long it is told that a video is."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[int] = []
        self.card = ModelCard(task="anticipation", classes=CLASSES, notes={"frames_per_second": 4.0})

    def forecast(
        self, observed: np.ndarray, num_future: int, total_length: int, samples: int = 1, rng: Any = None
    ) -> np.ndarray:
        self.told.append(total_length)
        return np.full((samples, num_future), observed[-1])


def test_networks_that_are_told_the_length_get_the_expected_one(tmp_path: Path) -> None:
    (tmp_path / "seen.csv").write_text("video,start_s,end_s,label\nk,0,4,pour\nk,4,12,stir\n")
    for length_s, told in ((None, [60, 80, 88]), (20.0, [80, 80, 88])):
        model = Repeating()
        stream = Stream(replace(PLAN, every_s=5.0, length_s=length_s), Forecaster(model))
        moments = list(stream.watch_table(str(tmp_path / "seen.csv")))
        assert model.told == told
        assert [m.next()[0].label for m in moments] == [None] * 3


# Streams that do not wait -------------------------------------------------------------------------------


class Clock:
    """Time passes where somebody sleeps or works."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def watch_slowly(video: Path, work_s: float, **plan: Any) -> tuple[Stream, list[Moment], list[float]]:
    """A backbone that takes work_s for a frame; also the delays with which vectors were ready."""
    clock, delays = Clock(), []
    pace = Pace(1.0, clock=clock, sleep=clock.sleep)
    segmenter = predictor()
    stream = Stream(replace(PLAN, **plan), segmenter=segmenter, pace=pace)
    backbone: Any = segmenter.backbone
    see, forward = stream._see, backbone.forward_features

    def slow(*arguments: Any) -> Any:
        clock.now += work_s
        return forward(*arguments)

    def watch(step: Any) -> None:
        see(step)
        if not step.skipped:
            delays.append(pace.delay_s(step.time_s))

    backbone.forward_features = slow
    stream._see = watch
    return stream, list(stream.watch(video)), delays


def test_nothing_is_skipped_where_the_machine_keeps_up(video: Path) -> None:
    stream, moments, delays = watch_slowly(video, 0.2)
    assert stream.skipped == 0
    assert max(delays) <= 0.1 + 0.2 + 1e-6  # a frame to be certain which one is shown, and the work
    assert all(m.delay_s is not None for m in moments)
    unpaced = Stream(PLAN, segmenter=predictor())
    list(unpaced.watch(video))
    one, other = stream.seen(), unpaced.seen()
    assert one is not None
    assert other is not None
    assert same_segments(one, other)


@pytest.mark.parametrize("work_s", [0.4, 0.9, 3.0])
def test_what_is_too_late_is_skipped_and_the_delay_stays_bounded(video: Path, work_s: float) -> None:
    stream, moments, delays = watch_slowly(video, work_s)
    assert stream.skipped > 0
    assert moments[-1].skipped == stream.skipped
    assert max(delays) <= 1.0 + work_s + 1e-6
    seen = stream.seen()
    assert seen is not None
    assert seen.num_frames == 25  # every step has its place, looked at or not
    assert stream.skipped + len(delays) == 25
    again, _, _ = watch_slowly(video, work_s)
    assert again.skipped == stream.skipped


def test_a_camera_is_read_like_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg's test pictures stand for a camera; those of a real one differ only in what opens them."""
    try:
        frames = list(camera_frames("testsrc=duration=2:size=64x48:rate=10", demuxer="lavfi"))
    except VideoError as error:
        pytest.skip(f"no virtual camera in this build of PyAV: {error}")
    assert [time_s for time_s, _ in frames] == pytest.approx(0.1 * np.arange(20))
    monkeypatch.setattr(streams, "camera_frames", partial(camera_frames, demuxer="lavfi"))
    monkeypatch.setattr(streams, "is_camera", lambda name: True)
    stream = Stream(PLAN, segmenter=predictor(), pace=Pace(5.0, paced=False))
    moments = list(stream.watch("testsrc=duration=2:size=64x48:rate=10"))
    assert stream.skipped == 0
    assert [m.time_s for m in moments] == pytest.approx([1, 2])


def test_a_stream_that_is_stopped_keeps_what_was_seen(video: Path) -> None:
    seen_steps = itertools.count()
    stream = Stream(PLAN, segmenter=predictor(), stop=lambda: next(seen_steps) > 9)
    moments = list(stream.watch(video))
    assert len(moments) < 4
    seen = stream.seen()
    assert seen is not None
    assert 0 < seen.num_frames < 25


# What is said -------------------------------------------------------------------------------------------


def futures_of(samples: list[list[int]], **more: Any) -> Futures:
    seen = Segments.from_frames(np.array([0, 1, 1]), CLASSES, times=np.arange(3.0))
    return Futures(seen, np.array(samples), step_s=1.0, **more)


def test_the_next_action_is_the_first_other_one() -> None:
    found = next_actions(futures_of([[1, 1, 2, 2], [1, 2, 2, 3], [2, 2, 2, 2], [1, 1, 1, 1]]), 1)
    assert [(one.label, one.probability, one.in_s) for one in found] == [(2, 0.75, 1.0), (None, 0.25, 4.0)]
    flicker = [[1] * 50 + [3] + [1] * 49 + [2] * 101]
    assert next_actions(futures_of(flicker), 1)[0].label == 2
    own = np.full((4, 4), 0.1)
    own[2] = [0.1, 0.2, 0.6, 0.7]
    single = next_actions(futures_of([[1, 1, 2, 2]], step_probs=own), 1)
    assert single[0].probability == pytest.approx(0.7)


def test_a_moment_is_a_line_and_a_record() -> None:
    moment = Moment(3.0, futures_of([[1]]).observed, futures_of([[1, 1, 2, 2], [1, 2, 2, 2]]), 0.1, None)
    assert moment.line() == "0:03.0  now stir for 2 s  next drink 100% in 2 s  entropy 0.25 bits"
    record = json.loads(json.dumps(moment.record(), allow_nan=False))
    assert record["next"][0]["label"] == "drink"
    assert record["no_change"] == 0
    assert record["most_probable"][0] == {"label": "stir", "start_s": 3.0, "end_s": 5.0}
    late = replace(moment, delay_s=0.4, skipped=3, missed=1)
    assert late.line().endswith("delay 0.4 s  3 steps skipped  1 forecasts missed")


def test_forecasts_are_compared_with_what_came() -> None:
    seen = Segments.from_frames(np.array([0, 0, 1, 1, 2, 2]), CLASSES, times=np.arange(6.0))
    records = [
        {"time_s": 1.0, "now": "pour", "next": [{"label": "stir"}]},
        {"time_s": 3.0, "now": "stir", "next": [{"label": "wash"}]},
        {"time_s": 5.0, "now": "drink", "next": [{"label": "wash"}]},  # nothing came after
    ]
    assert came_true(records, seen, 10) == (1, 2)
    assert came_true(records, seen, 0.5) == (0, 0)


# What cannot be streamed --------------------------------------------------------------------------------


def refused(found: Iterator[Any], message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        list(found)


def test_what_cannot_be_watched_is_said(tmp_path: Path, video: Path) -> None:
    ahead = forecaster(segmenter=predictor())
    refused(Stream(PLAN, ahead).watch(tmp_path / "none.mp4"), "no such file")
    sound = write_video(tmp_path / "sound.mp4", 5, video=False, audio=True)
    refused(Stream(PLAN, ahead).watch(sound), "sound but no picture")
    refused(Stream(PLAN, ahead).watch("/dev/video99"), "/dev/video99: no such camera")
    refused(Stream(PLAN, ahead).watch("/dev/null"), "is not a camera that can be read")
    refused(Stream(PLAN, forecaster()).watch(video), "observes labels; give it a timeline")
    refused(Stream(PLAN, forecaster("features")).watch_table("x.csv"), "observes features")
    track = FeatureTrack(np.zeros((12, 4), dtype=np.float32), source="k.npy")
    unknown = predictor()
    unknown.model.card = unknown.card = replace(unknown.card, features=None)
    refused(Stream(PLAN, segmenter=unknown).watch(track), "does not say when its vectors are")
    refused(Stream(PLAN, segmenter=unknown).watch(video), "do not say how they were made")
    narrow = FeatureTrack(np.zeros((3, 4), dtype=np.float32), source="k.npy")
    refused(Stream(PLAN, ahead).watch(narrow), "3 channels, the model reads 12")
    with pytest.raises(ValueError, match="every_s is 0"):
        StreamPlan(every_s=0)


def test_damage_ends_the_stream_but_not_what_was_seen(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", 60, container_options={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: round(whole.stat().st_size * 0.6)])
    stream = Stream(PLAN, segmenter=predictor())
    refused(stream.watch(cut), r"cut\.mp4")
    seen = stream.seen()
    assert seen is not None
    assert 3 < seen.num_frames < 24


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "is empty; the first line must be"),
        ("video,start,end,label\nk,0,4,pour", ":1: the columns are"),
        ("video,start_s,end_s,label\nk,0,soon,pour", ":2: start and end must be numbers"),
        ("video,start_s,end_s,label\nk,0,4,pour\nk,3,5,stir", ":3: 'stir' starts at 3 s"),
        ("video,start_s,end_s,label\nk,0,4,pour\nl,4,5,stir", ":3: is of 'l'"),
        ("video,start_s,end_s,label\nk,0,4", ":2: has 3 of 4 columns"),
    ],
)
def test_a_table_that_cannot_be_followed_is_said(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "seen.csv").write_text(lines)
    refused(table_rows(str(tmp_path / "seen.csv")), message)


def test_a_growing_table_gives_whole_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "seen.csv"
    path.write_text("video,start_s,end_s,label\nk,0,4,pour\nk,4,5")
    polls = itertools.count()

    def stop() -> bool:
        """Asked between two looks at the file."""
        if next(polls) == 2:
            with path.open("a") as file:
                file.write("0,stir\nk,50,60,drink\n")
        return next(polls) > 12

    grown = table_rows(str(path), follow=True, stop=stop)
    found = [[(row.start, row.end, row.label) for row in rows] for _, rows in grown]
    assert found == [[(0, 4, "pour")], [(4, 50, "stir"), (50, 60, "drink")]]
