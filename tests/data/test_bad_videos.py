"""What cannot be read is refused in one line that names the file and the reason; nothing else is printed."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from framecast.data.video import frame_times, iter_clips, probe, read_frames
from framecast.data.video_container import VideoError, VideoWarning
from framecast.data.video_integrity import is_whole, missing_bytes
from video_factory import numbers_of, write_video

NUM_FRAMES = 60
CODECS = {".mp4": "libx264", ".mkv": "libx264", ".ts": "libx264", ".avi": "mpeg4", ".webm": "libvpx-vp9"}
CODECS |= {".flv": "libx264", ".mpg": "mpeg2video"}


def iterate(path: Path, **options) -> torch.Tensor:
    return torch.cat([clip.frames for clip in iter_clips(path, **options)])


READERS: dict[str, Callable] = {
    "probe": probe,
    "times": frame_times,
    "read": lambda path: read_frames(path, [0.0]),
    "iterate": iterate,
    "step": lambda path: list(iter_clips(path, step_s=0.5)),
}


def noisy(frame: np.ndarray) -> np.ndarray:
    """Detail, so that a frame takes more than one packet of a transport stream."""
    noise = np.random.default_rng(int(frame.sum())).integers(0, 60, frame.shape)
    return (frame * 0.75 + noise).astype(np.uint8)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sound")
    shape: dict[str, Any] = {"num_frames": NUM_FRAMES, "size": (96, 128), "gop": 20, "turn": noisy}
    made = {s: write_video(folder / f"sound{s}", codec=codec, **shape) for s, codec in CODECS.items()}
    first = {"movflags": "faststart"}
    made["index first"] = write_video(folder / "first.mp4", container_options=first, **shape)
    return made


def cut(path: Path, target: Path, share: float) -> Path:
    content = path.read_bytes()
    target.write_bytes(content[: int(len(content) * share)])
    return target


def scramble(path: Path, target: Path, at: float = 0.5, share: float = 0.06) -> Path:
    """Random bytes over several frames: within one, decoders do not always notice them."""
    content = bytearray(path.read_bytes())
    start, num_bytes = int(len(content) * at), int(len(content) * share)
    content[start : start + num_bytes] = np.random.default_rng(0).bytes(num_bytes)
    target.write_bytes(content)
    return target


def not_videos(folder: Path) -> dict[str, tuple[Path, str]]:
    """Name -> file, and what is to be said of it."""

    def file(name: str, content: bytes) -> Path:
        path = folder / f"{name}.mp4"
        path.write_bytes(content)
        return path

    with av.open(str(folder / "frame.png"), "w", format="image2") as container:
        stream = container.add_stream("png")
        stream.width, stream.height, stream.pix_fmt = 16, 16, "rgb24"
        blank = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), dtype=np.uint8))
        container.mux(stream.encode(blank))
    (folder / "folder.mp4").mkdir()
    secret = folder / "secret.mp4"
    with av.open(str(folder / "nothing.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        container.start_encoding()
    return {
        "empty": (file("empty", b""), r"empty.mp4: is empty \(0 bytes\)"),
        "text": (file("text", b"not a video at all\n" * 50), "text.mp4: is text, not a video"),
        "accents": (file("accents", "où est la vidéo\n".encode() * 50), "accents.mp4: is text"),
        "playlist": (file("playlist", f"#EXTM3U\n#EXTINF:1,\n{secret}\n".encode()), "is text, not a video"),
        "script": (file("script", f"ffconcat version 1.0\nfile {secret}\n".encode()), "is text, not a video"),
        "picture": (file("picture", (folder / "frame.png").read_bytes()), "is a PNG image, not a video"),
        "noise": (file("noise", np.random.default_rng(0).bytes(9000)), "not a video that FFmpeg can open"),
        "zeros": (file("zeros", bytes(9000)), "is not a video that FFmpeg can open"),
        "folder": (folder / "folder.mp4", r"folder.mp4: is a folder; pass a video in it"),
        "no times": (
            write_video(folder / "still.mp4", 30, pts=[0] * 30),
            "still.mp4: its 30 frames have .* different time",
        ),
        "no frames": (folder / "nothing.mp4", "nothing.mp4: holds no (frames|video)"),
        "sound only": (
            write_video(folder / "music.mp4", 30, video=False, audio=True),
            "holds sound but no picture",
        ),
    }


@pytest.mark.parametrize("reader", READERS)
def test_what_is_not_a_video_is_refused(tmp_path, reader):
    for path, message in not_videos(tmp_path).values():
        with pytest.raises(VideoError, match=message) as caught:
            READERS[reader](path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_file_is_missing(tmp_path, reader):
    with pytest.raises(FileNotFoundError, match=r"gone.mp4: no such file"):
        READERS[reader](tmp_path / "gone.mp4")


def test_a_file_that_may_not_be_read(tmp_path, sound, monkeypatch):
    path = cut(sound[".mp4"], tmp_path / "locked.mp4", 1)
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything

        def refuse(self, *args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match=r"locked.mp4: no permission to read it"):
        probe(path)


def test_names_are_never_taken_for_addresses(tmp_path, sound, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a|b.mp4", "http:x.mp4", "50%.mp4", "spaß $HOME.mp4"):
        Path(name).write_bytes(sound[".mp4"].read_bytes())
        assert probe(name).num_frames == NUM_FRAMES


@pytest.mark.parametrize("kind", ["index first", ".mkv", ".avi", ".webm", ".flv", ".ts", ".mpg"])
@pytest.mark.parametrize("share", [0.4, 0.55, 0.9])
def test_a_cut_off_video_is_refused_with_the_time_at_which_it_breaks(sound, tmp_path, kind, share):
    path = cut(sound[kind], tmp_path / f"cut{sound[kind].suffix}", share)
    with pytest.raises(
        VideoError, match=r"cut.* (breaks|damaged) at \d\.\d\d s \(.*on_error='keep'"
    ) as caught:
        iterate(path)
    assert "\n" not in str(caught.value)
    time_s = float(str(caught.value).split(" s (")[0].rsplit(" ", 1)[1])
    assert 0 < time_s < 6.01


@pytest.mark.parametrize("kind", ["index first", ".mkv", ".avi", ".webm"])
def test_cut_off_bytes_are_noticed_before_decoding(sound, tmp_path, kind):
    whole = sound[kind]
    assert missing_bytes(whole) == 0
    assert is_whole(whole)
    path = cut(whole, tmp_path / f"cut{whole.suffix}", 0.5)
    size = whole.stat().st_size
    assert missing_bytes(path) == size - int(size * 0.5)
    for reader in READERS.values():
        with pytest.raises(
            VideoError, match=r"breaks at \d\.\d\d s \(cut off, [\d,]+ of [\d,]+ bytes are missing\)"
        ):
            reader(path)


def test_a_cut_off_mp4_without_index_cannot_be_kept(sound, tmp_path):
    path = cut(sound[".mp4"], tmp_path / "cut.mp4", 0.5)
    for on_error in ("raise", "keep"):
        with pytest.raises(VideoError, match=r"is cut off: [\d,]+ bytes are there but not the index"):
            read_frames(path, [0.0], on_error=on_error)


@pytest.mark.parametrize("kind", ["index first", ".mkv", ".webm", ".flv", ".ts"])
def test_keeping_what_is_there_of_a_cut_off_video(sound, tmp_path, kind):
    path = cut(sound[kind], tmp_path / f"cut{sound[kind].suffix}", 0.5)
    with pytest.warns(VideoWarning, match=r"cut.* at \d\.\d\d s \("):
        frames = iterate(path, on_error="keep")
    numbers = numbers_of(frames[:-3])  # the last ones may be drawn in part
    assert 10 < len(numbers) < 50
    assert numbers == list(range(len(numbers)))
    if kind != ".ts":  # a transport stream does not say how long it is, so the time is outside of it
        with pytest.warns(VideoWarning, match=r"breaks at"):
            clip = read_frames(path, [0.0, 0.5, 5.9], on_error="keep")
        assert numbers_of(clip.frames) == [0, 5]
        np.testing.assert_allclose(clip.times, [0.0, 0.5])
        with pytest.warns(VideoWarning, match=r"breaks at"):
            assert probe(path, on_error="keep").damage


@pytest.mark.parametrize("kind", sorted(set(CODECS) - {".flv"}))  # FLV can lose frames without a trace
def test_damaged_bytes_in_the_middle_are_noticed(sound, tmp_path, kind):
    path = scramble(sound[kind], tmp_path / f"damaged{kind}")
    with pytest.raises(VideoError, match=r"damaged.* (breaks|damaged) at [1-5]\.\d\d s \(") as caught:
        iterate(path)
    assert "\n" not in str(caught.value)
    with pytest.warns(VideoWarning, match=r"damaged"):
        frames = iterate(path, on_error="keep")
    assert numbers_of(frames[:8]) == list(range(8))
    assert 30 <= len(frames) <= NUM_FRAMES


def test_frames_away_from_the_damage_are_read(sound, tmp_path):
    path = scramble(sound["index first"], tmp_path / "damaged.mp4")  # in the second group of three
    assert numbers_of(read_frames(path, [0.3, 5.5]).frames) == [3, 55]
    with pytest.raises(VideoError, match=r"damaged at [23]\.\d\d s"):
        read_frames(path, np.arange(2.0, 4.0, 0.1))
    with pytest.warns(VideoWarning, match=r"damaged at [23]\.\d\d s"):
        clip = read_frames(path, [0.3, 2.9, 3.9, 5.5], on_error="keep")
    assert len(clip) == 4
    assert clip.times[0] == pytest.approx(0.3)
    assert clip.times[-1] == pytest.approx(5.5)


def test_sound_videos_are_read_without_a_word(sound, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in sound.values():
            assert is_whole(path)
            assert len(iterate(path)) == NUM_FRAMES
            assert probe(path).damage == ""
    assert capfd.readouterr().err == ""


def test_ffmpeg_prints_nothing(sound, tmp_path):
    """In a process of its own: the libraries write to the terminal past Python."""
    paths = [str(path) for path, _ in not_videos(tmp_path).values()]
    for i, path in enumerate(sound.values()):
        paths.append(str(cut(path, tmp_path / f"cut{i}{path.suffix}", 0.5)))
        paths.append(str(scramble(path, tmp_path / f"scrambled{i}{path.suffix}")))
    script = (
        "import sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from framecast.data.video import iter_clips\n"
        "for path in sys.argv[1:]:\n"
        "    for on_error in ('raise', 'keep'):\n"
        "        try:\n"
        "            list(iter_clips(path, on_error=on_error))\n"
        "        except ValueError as error:\n"
        "            print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) >= len(paths)
