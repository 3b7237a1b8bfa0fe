"""Frames come out by the time at which they are shown, whatever the container, rate, rotation or start."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from framecast.data import video_decoding
from framecast.data.video import (
    choose_backend,
    find_videos,
    frame_times,
    iter_clips,
    probe,
    read_frames,
    sample_times,
)
from framecast.data.video_container import VideoError, scan
from framecast.data.video_decoding import frames_at, pick_forward
from framecast.data.video_torchcodec import why_not_torchcodec
from video_factory import number_of, numbered_frame, numbers_of, remux, write_video

# name, codec, options: with and without B-frames, open groups of pictures, one keyframe, only keyframes
CODINGS = {
    "h264.mp4": ("libx264", {}),
    "h264-pyramid.mkv": ("libx264", {"bf": "4", "b-pyramid": "normal", "refs": "4", "preset": "medium"}),
    "h264-open.mp4": ("libx264", {"x264-params": "open-gop=1:bframes=3:keyint=12"}),
    "h264-open.ts": ("libx264", {"x264-params": "open-gop=1:bframes=3:keyint=12"}),
    "h264-plain.mp4": ("libx264", {"bf": "0", "g": "1000"}),
    "h264-intra.mp4": ("libx264", {"g": "1"}),
    "h264-refresh.mp4": ("libx264", {"x264-params": "intra-refresh=1:keyint=12"}),
    "h264.avi": ("libx264", {}),
    "hevc.mp4": ("libx265", {"x265-params": "log-level=none:keyint=12:bframes=4:open-gop=1"}),
    "mpeg4.avi": ("mpeg4", {"bf": "2"}),
    "mpeg4.mp4": ("mpeg4", {"bf": "2"}),
    "mpeg2.ts": ("mpeg2video", {"bf": "2"}),
    "mpeg2.mpg": ("mpeg2video", {"bf": "2"}),
    "vp8.webm": ("libvpx", {"auto-alt-ref": "1", "lag-in-frames": "10"}),
    "vp9.webm": ("libvpx-vp9", {"auto-alt-ref": "1", "lag-in-frames": "10"}),
    "h264.flv": ("libx264", {}),
}
NUM_FRAMES = 70


def every_frame(path: Path, **options) -> torch.Tensor:
    return torch.cat([clip.frames for clip in iter_clips(path, **options)])


@pytest.fixture(scope="module")
def coded(tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("coded")
    found: dict[str, Any] = {}
    for name, (codec, options) in CODINGS.items():
        try:
            found[name] = write_video(folder / name, NUM_FRAMES, codec=codec, options=options)
        except (ValueError, OSError) as error:
            if codec in ("libx264", "mpeg4", "mpeg2video"):
                raise
            found[name] = pytest.skip.Exception(f"no {codec} encoder here: {error}")
    return found


@pytest.fixture
def short(tmp_path) -> Path:
    return write_video(tmp_path / "short.mp4")


@pytest.mark.parametrize("name", CODINGS)
def test_every_frame_comes_once_and_in_order(coded, name):
    path = coded[name]
    if isinstance(path, BaseException):
        raise path
    assert numbers_of(every_frame(path)) == list(range(NUM_FRAMES))
    times = np.concatenate([clip.times for clip in iter_clips(path)])
    np.testing.assert_allclose(times, np.arange(NUM_FRAMES) / 10, atol=1e-3)
    np.testing.assert_allclose(frame_times(path), times, atol=1e-9)


@pytest.mark.parametrize("name", CODINGS)
def test_frames_read_alone_are_the_frames_of_a_full_decode(coded, name):
    path = coded[name]
    if isinstance(path, BaseException):
        raise path
    full = every_frame(path)
    random = np.random.default_rng(0)
    for _ in range(6):
        wanted = random.integers(0, NUM_FRAMES, size=random.integers(1, 12))
        clip = read_frames(path, wanted / 10 + 0.05)
        assert torch.equal(clip.frames, full[torch.from_numpy(wanted)])
        np.testing.assert_allclose(clip.times, wanted / 10, atol=1e-3)


def timed(table, frame, pts: int) -> int:
    return int(frame.pts) if table.timed else pts


@pytest.mark.parametrize("name", CODINGS)
def test_the_fast_way_is_taken_and_agrees_with_the_slow_way(coded, name):
    path = coded[name]
    if isinstance(path, BaseException):
        raise path
    table = scan(path)
    wanted = table.frame_pts[[0, 5, 13, 40, 41, 69]]
    slow = {i: frame.to_ndarray() for i, frame in pick_forward(path, table, wanted)}
    fast = {i: frame.to_ndarray() for i, frame in frames_at(path, table, wanted)}
    assert list(fast) == list(slow) == list(range(6))
    for i in slow:
        np.testing.assert_array_equal(fast[i], slow[i])
    if table.timed and name != "h264-refresh.mp4":  # its keyframes do not stand alone
        with video_decoding.Decoder(path, "raise", table=table) as decoder:
            assert [i for i, _ in decoder.frames_at(wanted)] == list(range(6))


def test_frames_far_apart_are_reached_by_seeking(tmp_path, monkeypatch):
    path = write_video(tmp_path / "long.mp4", 250, gop=10)
    table = scan(path)
    wanted = table.frame_pts[[3, 120, 121, 247]]
    seeks = []
    seek = video_decoding.Decoder._seek
    monkeypatch.setattr(
        video_decoding.Decoder, "_seek", lambda self, key: seeks.append(key) or seek(self, key)
    )
    frames = [frame.to_ndarray(format="rgb24") for _, frame in frames_at(path, table, wanted)]
    assert [number_of(frame.transpose(2, 0, 1)) for frame in frames] == [3, 120, 121, 247]
    assert seeks == [120, 240]


def test_frames_far_apart_are_reached_without_seeking(tmp_path, monkeypatch):
    path = write_video(tmp_path / "long.mp4", 250, gop=10)
    monkeypatch.setattr(video_decoding.Decoder, "_seek", lambda self, key: False)
    assert numbers_of(read_frames(path, [24.7, 0.3, 12.1]).frames) == [247, 3, 121]


def test_a_time_shows_the_frame_that_started_last(short):
    assert numbers_of(read_frames(short, [0.0, 0.0999, 0.1, 3 * 0.1, 2.95, 3.0]).frames) == [
        0,
        0,
        1,
        3,
        29,
        29,
    ]


def test_times_outside_the_video_are_refused(short):
    for time_s in (-0.1, 3.2):
        with pytest.raises(ValueError, match=r"short.mp4: a frame at .* the video lasts from 0 to 3 s"):
            read_frames(short, [0.0, time_s])


def test_variable_frame_rate(tmp_path):
    ticks = [0, 1, 2, 30, 31, 90, 91, 150]
    path = write_video(tmp_path / "vfr.mp4", len(ticks), pts=ticks, time_base=Fraction(1, 100))
    info = probe(path)
    assert info.variable_frame_rate
    assert info.num_frames == len(ticks)
    np.testing.assert_allclose(frame_times(path), np.array(ticks) / 100)
    assert numbers_of(read_frames(path, [0.29, 0.3, 0.89, 1.0, 1.5]).frames) == [2, 3, 4, 6, 7]
    steps = list(iter_clips(path, step_s=0.25, frames_per_clip=4))
    assert numbers_of(torch.cat([clip.frames for clip in steps])) == [0, 2, 4, 4, 6, 6, 7]
    np.testing.assert_allclose(np.concatenate([clip.times for clip in steps]), np.arange(7) * 0.25)


def test_rounded_time_stamps_are_a_constant_rate(tmp_path):
    path = write_video(tmp_path / "thirds.mkv", 40, rate=30)  # milliseconds: 33, 34, 33, …
    assert not probe(path).variable_frame_rate
    assert probe(path).fps == pytest.approx(30, rel=0.01)


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv"])
def test_a_late_start_is_time_zero(short, tmp_path, suffix):
    path = remux(short, tmp_path / f"late{suffix}", shift_s=7.0)
    assert frame_times(path)[0] == 0
    assert numbers_of(read_frames(path, [0.0, 1.25]).frames) == [0, 12]
    assert next(iter_clips(path)).times[0] == 0


def test_an_edit_list_cuts_frames_away(short, tmp_path):
    path = remux(short, tmp_path / "cut.mp4", shift_s=-0.45, options={"avoid_negative_ts": "disabled"})
    assert probe(path).num_frames == 25
    assert numbers_of(every_frame(path)) == list(range(5, 30))
    assert numbers_of(read_frames(path, [0.0, 1.0]).frames) == [5, 15]


def test_all_readers_agree_on_time_zero_when_the_start_is_lost(tmp_path):
    """A recording that begins in the middle: it starts with the first keyframe."""
    whole = write_video(tmp_path / "whole.ts", 30, gop=10)
    with av.open(str(whole)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.pos]
    path = tmp_path / "late.ts"
    path.write_bytes(whole.read_bytes()[places[2] // 188 * 188 :])
    assert numbers_of(every_frame(path)) == list(range(10, 30))
    np.testing.assert_allclose(frame_times(path), np.arange(20) / 10, atol=1e-4)
    np.testing.assert_allclose(next(iter_clips(path)).times, frame_times(path))
    assert numbers_of(read_frames(path, [0.0, 0.55]).frames) == [10, 15]


@pytest.mark.parametrize(("rotate_ccw", "clockwise"), [(0, 0), (90, 270), (180, 180), (270, 90)])
@pytest.mark.parametrize("mirror", [False, True])
def test_frames_come_upright(tmp_path, rotate_ccw, clockwise, mirror):
    def hold_camera(frame: np.ndarray) -> np.ndarray:
        return np.rot90(frame[:, ::-1] if mirror else frame, -rotate_ccw // 90)

    path = write_video(
        tmp_path / "held.mp4", 3, turn=hold_camera, rotate_ccw=rotate_ccw, mirror=mirror, options={"qp": "4"}
    )
    info = probe(path)
    assert (info.height, info.width) == (48, 64)
    if not mirror:
        assert info.rotation == clockwise
    clip = read_frames(path, [0.0, 0.1])
    assert numbers_of(clip.frames) == [0, 1]
    shown = clip.frames[1].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(shown - numbered_frame(1)).mean() < 8  # chroma is coarse; a wrong turn gives 60
    small = read_frames(path, [0.1], size=(24, 40)).frames
    assert small.shape == (1, 3, 24, 40)
    assert numbers_of(small) == [1]


def test_probe(tmp_path, short):
    info = probe(write_video(tmp_path / "sound.mp4", audio=True))
    assert (info.width, info.height, info.codec, info.has_audio) == (64, 48, "h264", True)
    assert (info.num_frames, info.num_keyframes, info.fps, info.duration_s) == (30, 3, 10.0, 3.0)
    assert not probe(short).has_audio
    assert not info.variable_frame_rate
    assert info.damage == ""


def test_keyframes_only_reports_the_times_it_took(short):
    clip = read_frames(short, [0.1, 0.7, 1.7, 1.9, 2.9], keyframes_only=True)
    assert numbers_of(clip.frames) == [0, 12, 12, 24, 24]
    np.testing.assert_allclose(clip.times, [0, 1.2, 1.2, 2.4, 2.4])


@pytest.mark.parametrize("size", [(24, 32), (31, 47), (37, 200), (112, 112)])
def test_frames_are_resized_with_antialiasing(tmp_path, size):
    path = write_video(tmp_path / "fine.mp4", 4, size=(96, 128), options={"qp": "4"})
    ours = read_frames(path, [0.2], size=size).frames
    assert ours.shape == (1, 3, *size)
    full = read_frames(path, [0.2]).frames
    antialiased = resize(full, list(size), interpolation=InterpolationMode.BICUBIC, antialias=True)
    nearest = resize(full, list(size), interpolation=InterpolationMode.NEAREST)
    near, far = ((ours.float() - other.float()).abs() for other in (antialiased, nearest))
    assert near.mean() < 4 < far.mean()
    assert near[..., -8:].mean() < 5  # the last columns are no worse


@pytest.mark.parametrize("width", [48, 64, 72, 80, 86, 176])
def test_at_its_own_size_a_frame_has_the_pixels_of_pyav(tmp_path, width):
    path = write_video(tmp_path / "own.mp4", 3, size=(48, width))
    with av.open(str(path)) as container:
        reference = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    for ours, theirs in zip(every_frame(path), reference, strict=True):
        np.testing.assert_array_equal(ours.permute(1, 2, 0), theirs)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv444p", "yuv422p", "yuv420p10le"])
def test_colours_are_right_in_every_pixel_format(tmp_path, pix_fmt):
    path = write_video(tmp_path / "colour.mkv", 2, pix_fmt=pix_fmt, options={"qp": "4"})
    for size in (None, (24, 32)):
        frame = read_frames(path, [0.1], size=size).frames[0].numpy().astype(float)
        step = 1 if size is None else 2
        original = numbered_frame(1).reshape(48 // step, step, 64 // step, step, 3).mean(axis=(1, 3))
        difference = frame.transpose(1, 2, 0) - original
        assert np.abs(difference).mean() < 9, pix_fmt
        assert np.abs(difference.mean(axis=(0, 1))).max() < 4, pix_fmt  # no colour is shifted as a whole


def test_changing_frame_sizes_need_a_size(tmp_path):
    path = tmp_path / "changing.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=10)
        for part, (height, width) in enumerate([(48, 64), (96, 128)]):
            encoder = av.CodecContext.create("mpeg2video", "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            encoder.framerate, encoder.time_base = Fraction(10), Fraction(1, 10)
            if not part:
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for i in [*range(10 * part, 10 * part + 10), None]:
                frame = None
                if i is not None:
                    frame = av.VideoFrame.from_ndarray(numbered_frame(i, height, width), format="rgb24")
                    frame.pts, frame.time_base = i, Fraction(1, 10)
                for packet in encoder.encode(frame):
                    packet.stream = stream
                    container.mux(packet)
    numbers = numbers_of(every_frame(path, size=(48, 64)))
    # the decoder itself drops the frame that it holds back when the size changes
    assert numbers == [*range(9), *range(10, 20)]
    with pytest.raises(VideoError, match=r"changing.ts: frames change from 64x48 to 128x96; pass size="):
        every_frame(path)


def test_clips_hold_the_frames_they_were_asked_for(short):
    clips = list(iter_clips(short, frames_per_clip=8))
    assert [len(clip) for clip in clips] == [8, 8, 8, 6]
    assert clips[3].frames.shape == (6, 3, 48, 64)
    assert clips[3].times[0] == pytest.approx(2.4)
    assert clips[0].source == str(short)
    # a clip keeps its frames when the next one is read
    assert numbers_of(torch.cat([clip.frames for clip in clips])) == list(range(30))


@pytest.mark.parametrize("step_s", [None, 0.1])
def test_the_memory_of_a_dropped_clip_serves_the_next(short, step_s):
    places, held = [], []
    for clip in iter_clips(short, frames_per_clip=4, step_s=step_s):
        places.append(clip.frames.data_ptr())
        if len(places) == 3:
            held.append(clip.frames[1:3].numpy())  # a part of it, through another library
        del clip
    assert numbers_of(torch.from_numpy(held[0])) == [9, 10]
    assert places[0] == places[1] == places[2]
    assert places[2] not in places[3:]
    assert len(set(places[3:])) == 1


@pytest.mark.parametrize("step_s", [0.1, 0.25, 0.3, 1.0, 5.0, 0.03])
def test_steps_are_taken_by_time(short, step_s):
    clips = list(iter_clips(short, step_s=step_s, frames_per_clip=7))
    times = np.concatenate([clip.times for clip in clips])
    np.testing.assert_allclose(times, np.arange(len(times)) * step_s)
    assert times[-1] <= 2.9 + 1e-6 < times[-1] + step_s
    expected = np.floor(times * 10 + 1e-4).astype(int).tolist()
    assert numbers_of(torch.cat([clip.frames for clip in clips])) == expected


def test_decoder_threads_change_nothing(short):
    assert torch.equal(every_frame(short), every_frame(short, threads=3))


BAD_READS: list[tuple[dict[str, Any], str]] = [
    ({"times_s": []}, "non-empty vector of seconds"),
    ({"times_s": [[0.0]]}, "non-empty vector of seconds"),
    ({"times_s": [float("nan")]}, "non-empty vector of seconds"),
    ({"times_s": [0.0], "size": (0, 10)}, r"size is \(0, 10\)"),
    ({"times_s": [0.0], "backend": "opencv"}, "unknown video backend 'opencv'"),
    ({"times_s": [0.0], "on_error": "ignore"}, "on_error is 'ignore'"),
]


@pytest.mark.parametrize(("options", "message"), BAD_READS)
def test_bad_arguments_are_refused(short, options, message):
    with pytest.raises(ValueError, match=message):
        read_frames(short, **options)


@pytest.mark.parametrize("options", [{"frames_per_clip": 0}, {"step_s": 0}, {"step_s": -1.0}])
def test_bad_steps_are_refused(short, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        next(iter_clips(short, **options))


MEMORY_PROBE = """
import sys, resource
from framecast.data.video import iter_clips
step = float(sys.argv[2]) or None
frames = 0
for clip in iter_clips(sys.argv[1], frames_per_clip=16, step_s=step, size=(64, 64)):
    frames += len(clip)
    if frames <= 200:
        start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read in the units of Linux")
@pytest.mark.parametrize("step_s", [0, 0.2])
def test_a_long_video_is_read_in_constant_memory(tmp_path, step_s):
    path = write_video(tmp_path / "long.mp4", 4000, options={"preset": "ultrafast"}, gop=10_000)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_PROBE, str(path), str(step_s)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    frames, growth_kib = map(int, done.stdout.split())
    assert frames == (2000 if step_s else 4000)
    assert growth_kib < 6 * 1024  # all frames would be 24 or 48 MB


def test_sample_times():
    np.testing.assert_allclose(sample_times(10, 4), [1.25, 3.75, 6.25, 8.75])
    np.testing.assert_allclose(sample_times(10, 3, stride_s=1), [0, 1, 2])
    np.testing.assert_allclose(sample_times(10, 4, stride_s=1, mode="center"), [3, 4, 5, 6])
    np.testing.assert_allclose(sample_times(2, 4, stride_s=1, mode="center"), [0, 0.5, 1, 1.5])
    for stride_s in (None, 0.5, 9.0):
        for seed in range(20):
            times = sample_times(
                6, 5, stride_s=stride_s, mode="random", generator=np.random.default_rng(seed)
            )
            again = sample_times(
                6, 5, stride_s=stride_s, mode="random", generator=np.random.default_rng(seed)
            )
            assert times.min() >= 0
            assert times.max() < 6
            assert (np.diff(times) > 0).all()
            np.testing.assert_array_equal(times, again)
    with pytest.raises(ValueError, match="both must be positive"):
        sample_times(0, 4)
    with pytest.raises(ValueError, match="unknown sampling mode"):
        sample_times(1, 4, mode="centre")  # ty: ignore[invalid-argument-type]


def test_find_videos(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.mp4", "a.MKV", "sub/c.mov", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    names = ["a.MKV", "b.mp4", "sub/c.mov"]
    assert [p.relative_to(tmp_path).as_posix() for p in find_videos(tmp_path)] == names
    assert find_videos(tmp_path / "b.mp4") == [tmp_path / "b.mp4"]
    assert find_videos(f"{tmp_path}/**/*.mov") == [tmp_path / "sub/c.mov"]
    with pytest.raises(FileNotFoundError, match="no such file, and as a pattern it matches no file"):
        find_videos(tmp_path / "*.webm")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no videos in this folder"):
        find_videos(tmp_path / "empty")


# The second decoder ---------------------------------------------------------------------------------


def test_pyav_is_the_default_and_torchcodec_is_asked_for(monkeypatch):
    monkeypatch.delenv("FRAMECAST_VIDEO_BACKEND", raising=False)
    assert choose_backend() == "pyav"
    monkeypatch.setenv("FRAMECAST_VIDEO_BACKEND", "torchcodec")
    why_not = "framecast.data.video_torchcodec.why_not_torchcodec"
    monkeypatch.setattr(why_not, lambda: "it does not load (no libs)")
    with pytest.raises(OSError, match=r"asked for but it does not load \(no libs\); or use backend='pyav'"):
        choose_backend()


needs_torchcodec = pytest.mark.skipif(
    bool(why_not_torchcodec()), reason=f"torchcodec: {why_not_torchcodec()}"
)


@needs_torchcodec
@pytest.mark.parametrize("name", ["h264.mp4", "h264-pyramid.mkv", "h264-open.mp4", "hevc.mp4", "vp9.webm"])
def test_both_backends_give_the_same_frames(coded, name):
    path = coded[name]
    if isinstance(path, BaseException):
        raise path
    times = [0.0, 0.35, 3.0, 6.9, 1.2]
    ours, theirs = (read_frames(path, times, backend=backend) for backend in ("pyav", "torchcodec"))
    assert numbers_of(theirs.frames) == numbers_of(ours.frames) == [0, 3, 30, 69, 12]
    np.testing.assert_array_equal(ours.times, theirs.times)
    assert (ours.frames.int() - theirs.frames.int()).abs().max() <= 2  # rounding of two FFmpeg versions
    for step_s in (None, 0.25):
        a, b = (list(iter_clips(path, step_s=step_s, backend=backend)) for backend in ("pyav", "torchcodec"))
        assert [len(clip) for clip in a] == [len(clip) for clip in b]
        assert numbers_of(b[-1].frames) == numbers_of(a[-1].frames)
        np.testing.assert_allclose(a[-1].times, b[-1].times)


@needs_torchcodec
@pytest.mark.parametrize("name", CODINGS)
def test_torchcodec_gives_the_same_frames_or_none(coded, name):
    path = coded[name]
    if isinstance(path, BaseException):
        raise path
    try:
        clip = read_frames(path, np.arange(NUM_FRAMES) / 10 + 0.05, backend="torchcodec")
    except VideoError as error:
        assert "use backend='pyav'" in str(error)  # noqa: PT017
    else:
        assert numbers_of(clip.frames) == list(range(NUM_FRAMES))


@needs_torchcodec
@pytest.mark.parametrize("rotate_ccw", [0, 90, 180, 270])
def test_both_backends_turn_and_resize_alike(tmp_path, rotate_ccw):
    held: dict[str, Any] = {
        "turn": lambda frame: np.rot90(frame, -rotate_ccw // 90),
        "rotate_ccw": rotate_ccw,
    }
    path = write_video(tmp_path / "held.mp4", 4, **held)
    for size in (None, (24, 40), (60, 70)):
        ours, theirs = (read_frames(path, [0.2], size=size, backend=b).frames for b in ("pyav", "torchcodec"))
        assert ours.shape == theirs.shape
        assert (ours.float() - theirs.float()).abs().mean() < 3


@needs_torchcodec
def test_torchcodec_refuses_what_it_shows_otherwise(tmp_path):
    path = write_video(tmp_path / "mirror.mp4", 4, mirror=True)
    with pytest.raises(VideoError, match=r"is shown mirrored, unlike by torchcodec; use backend='pyav'"):
        read_frames(path, [0.0], backend="torchcodec")


def test_real_videos(real_videos):
    """Sparse and dense reading agree on videos from cameras and several encoders."""
    for path in real_videos:
        info = probe(path)
        full = every_frame(path, size=(48, 64))
        assert len(full) == info.num_frames
        wanted = np.random.default_rng(0).integers(0, info.num_frames, size=5)
        clip = read_frames(path, frame_times(path)[wanted], size=(48, 64))
        assert torch.equal(clip.frames, full[torch.from_numpy(wanted)]), path


@pytest.fixture
def real_videos() -> list[Path]:
    root = Path(os.environ.get("FRAMECAST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    found = sorted((root / "demo_videos").glob("*.mp4"))
    if not found:
        pytest.skip(f"no real videos in {root / 'demo_videos'}; set FRAMECAST_DATA to the data folder")
    return found
