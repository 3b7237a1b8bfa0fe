"""`framecast stream`: lines while a video plays, whole files in the end, whoever ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_world import LABELS, World, framecast

import framecast as fc
from framecast.checkpoints import ModelCard, card_of
from framecast.data.tables import read_segments_csv
from video_factory import write_video

AHEAD = ("--anticipate", "6s", "--samples", "3", "--every", "1s")


@pytest.fixture(scope="module")
def ahead(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An anticipation model of the kitchen's classes."""
    torch.manual_seed(0)
    classes = card_of(fc.load(world.kitchen_run)).classes
    config = {"num_layers": 1, "width": 8, "diffusion_steps": 4}
    model: Any = fc.create_model("manta", num_classes=len(classes), feature_dim=len(classes), **config)
    notes = {"observe": "labels", "frames_per_second": 10.0, "sampling": {"steps": 2}}
    model.card = ModelCard(task="anticipation", classes=classes, sample_rate=5, notes=notes)
    folder = tmp_path_factory.mktemp("ahead") / "model"
    fc.save(model, folder)
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "stream.jsonl").read_text().splitlines()]


def table(path: Path) -> Path:
    lines = [f"tea,0,3,{LABELS[0]}", f"tea,3,4.5,{LABELS[1]}"]
    path.write_text("\n".join(["video,start_s,end_s,label", *lines]) + "\n")
    return path


def test_a_video_is_streamed_as_it_is_predicted(world: World, ahead: Path, here: Path) -> None:
    models = ("--segmenter", world.kitchen_run, "--model", ahead, *AHEAD)
    done = framecast("stream", world.video, *models, "--out", "seen")
    assert done.code == 0, done.err
    first, *_, last = done.out.splitlines()
    assert first.startswith("0:01.0  now ")
    assert "next " in first
    assert last == "wrote timeline.csv, stream.jsonl, monday.png, monday.html into seen"
    assert [row["time_s"] for row in rows(here / "seen")] == pytest.approx([1.0, 2.0, 2.3], abs=0.11)
    words = ("predict", world.video, "--model", world.kitchen_run, "--no-pages", "--out", "offline")
    offline = framecast(*words)
    assert offline.code == 0, offline.err
    files = (here / "seen" / "timeline.csv", here / "offline" / "segments.csv")
    streamed, whole = (read_segments_csv(path).rows["monday"] for path in files)
    assert [(r.start, r.end, r.label) for r in streamed] == [(r.start, r.end, r.label) for r in whole]
    again = framecast("stream", world.video, *models, "--out", "again", "--no-pages", "--json")
    told = [json.loads(line) for line in again.out.splitlines()]
    assert [row["next"] for row in told] == [row["next"] for row in rows(here / "seen")]
    assert {path.name for path in (here / "again").iterdir()} == {"timeline.csv", "stream.jsonl"}


def test_what_is_seen_is_told_without_looking_ahead(world: World, here: Path) -> None:
    done = framecast("stream", world.video, "--segmenter", world.kitchen_run, "--every", "1s")
    assert done.code == 0, done.err
    assert "next" not in done.out
    assert (here / "stream" / "monday.html").is_file()


def test_a_video_given_out_like_by_a_camera_says_its_delay(world: World, ahead: Path, here: Path) -> None:
    models = ("--segmenter", world.kitchen_run, "--model", ahead, *AHEAD, "--no-pages")
    began = time.monotonic()
    done = framecast("stream", world.video, *models, "--realtime", "--max-delay", "60s")
    assert done.code == 0, done.err
    assert time.monotonic() - began > 2.2  # 24 frames, 10 a second
    assert " delay " in done.out
    assert "0 steps skipped" in done.out
    assert all(row["delay_s"] is not None for row in rows(here / "stream"))


def test_a_table_on_disk_and_one_from_a_pipe(ahead: Path, here: Path) -> None:
    seen = table(here / "seen.csv")
    done = framecast("stream", "--timeline", seen, "--model", ahead, *AHEAD, "--out", "file", "--no-pages")
    assert done.code == 0, done.err
    assert [row["time_s"] for row in rows(here / "file")] == pytest.approx([1, 2, 3, 4, 4.5])
    words = ("stream", "--timeline", "-", "--model", ahead, *AHEAD, "--out", "pipe", "--no-pages")
    command = [sys.executable, "-m", "framecast", *map(str, words)]
    piped = subprocess.run(
        command, input=seen.read_text(), capture_output=True, text=True, check=False, timeout=100
    )
    assert piped.returncode == 0, piped.stderr
    *_, newest = rows(here / "pipe")
    (*_, offline) = rows(here / "file")
    assert newest["next"] == offline["next"]
    assert newest["missed_forecasts"] == 3
    assert (here / "pipe" / "timeline.csv").read_text() == (here / "file" / "timeline.csv").read_text()


@pytest.fixture
def listens() -> Iterator[None]:
    """Programs started here hear Ctrl-C, also where the tests run in the background of a shell."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("listens")
def test_ctrl_c_leaves_whole_files(ahead: Path, here: Path) -> None:
    seen = table(here / "seen.csv")
    words = ("stream", "--timeline", seen, "--follow", "--model", ahead, *AHEAD)
    with subprocess.Popen(
        [sys.executable, "-m", "framecast", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdout is not None
        assert "now stir" in process.stdout.readline()
        with seen.open("a") as file:
            file.write(f"tea,4.5,9,{LABELS[0]}\n")
        assert "now pour" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "wrote timeline.csv, stream.jsonl, tea.png, tea.html into stream" in out
    assert [row["time_s"] for row in rows(here / "stream")] == [4.5, 9.0]
    assert len(read_segments_csv(here / "stream" / "timeline.csv").rows["tea"]) == 3
    assert not list(here.rglob("*.tmp"))


def test_damage_is_an_error_and_what_was_seen_is_kept(world: World, here: Path) -> None:
    whole = write_video(here / "whole.mp4", 60, container_options={"movflags": "faststart"})
    (here / "cut.mp4").write_bytes(whole.read_bytes()[: round(whole.stat().st_size * 0.6)])
    done = framecast("stream", "cut.mp4", "--segmenter", world.kitchen_run, "--every", "1s", "--no-pages")
    assert done.code == 1
    assert "cut.mp4" in done.err
    assert rows(here / "stream")[0]["time_s"] == pytest.approx(1.0, abs=0.11)
    assert (here / "stream" / "timeline.csv").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("x.mp4",), "say who labels what is seen, --segmenter RUN"),
        (("x.mp4", "--segmenter", "run", "--anticipate", "5s"), "say by which model, --model RUN"),
        (("x.mp4", "--segmenter", "run", "--samples", "5"), "--samples is for looking ahead"),
        (("x.mp4", "--segmenter", "run", "--model", "run"), "say how far, for example --anticipate 60s"),
        (("--segmenter", "run"), "pass a video, a feature file or a camera"),
        (("x.mp4", "--timeline", "x.csv"), "and one of them"),
        (("rtsp://x/y", "--segmenter", "run"), "not fetched from the network"),
        (("x.mp4", "--segmenter", "run", "--max-delay", "1s"), "--max-delay is for cameras and --realtime"),
        (("x.mp4", "--segmenter", "run", "--follow"), "--follow is for --timeline"),
        (("--timeline", "-", "--model", "m", "--anticipate", "5s", "--realtime"), "has its own pace"),
        (("--timeline", "-", "--model", "m", "--anticipate", "5s", "--hold", "2"), "--hold is for videos"),
        (("--timeline", "x.csv",), "say by which model"),
        (("x.mp4", "--segmenter", "run", "--every", "often"), "'often' is no time span"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_said(words: tuple[str, ...], message: str, here: Path) -> None:
    done = framecast("stream", *words)
    assert done.code == 1
    assert message in done.err
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("source", "message"),
    [("none.mp4", "no such file"), ("/dev/video99", "no such camera"), ("sound.mp4", "sound but no picture")],
)
def test_what_cannot_be_watched_is_said(world: World, here: Path, source: str, message: str) -> None:
    write_video(here / "sound.mp4", 5, video=False, audio=True)
    done = framecast("stream", source, "--segmenter", world.kitchen_run)
    assert done.code == 1
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not (here / "stream").exists()
