"""The command as a process: exit codes, signals, pipes, and what becomes of errors that nobody expected."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_world import TINY_RUN, World, framecast

from framecast.cli import explain, run
from framecast.train.signals import Interrupted, Requeue

COMMAND = [sys.executable, "-m", "framecast"]


def start(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = [*COMMAND, *(str(argument) for argument in arguments)]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def test_version_help_and_exit_codes(here: Path) -> None:
    assert start("--version", cwd=here).stdout.startswith("framecast 0.")
    text = framecast("--help").out
    assert "Exit codes: 0 done; 1 failed" in " ".join(text.split())
    assert "75 stopped by a signal" in " ".join(text.split())
    assert "130 stopped by Ctrl-C" in " ".join(text.split())
    bare = framecast()
    assert bare.code == 2
    assert "Usage" in bare.out + bare.err


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_where_an_error_comes_from(here: Path, place: str) -> None:
    command = ["info", "ltcontxt"]
    words = ["--debug", *command] if place == "before" else [*command, "--debug"]
    done = start(*words, cwd=here)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "in info" in done.stderr


def test_an_error_is_one_line(here: Path) -> None:
    done = start("info", "ltcontxt", cwd=here)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "error: nothing is called 'ltcontxt', did you mean 'ltcontext'?; `framecast list` shows all models\n"
    )


def test_a_reader_that_has_seen_enough_is_no_error(here: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "list", "--kind", "protocols"], cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_signal_saves_and_asks_to_be_started_again(world: World, here: Path) -> None:
    command = ("train", "segmentation", "--data", world.data, *TINY_RUN, "--out", "run")
    many = ("--set", "epochs=2000", "--set", "log_every=1", "--set", "eval_every=2000")
    with subprocess.Popen(
        [*COMMAND, *(str(word) for word in (*command, *many))], cwd=here, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 100
        metrics = here / "run" / "metrics.jsonl"
        while not (metrics.is_file() and metrics.read_text().count("\n") > 3):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert err.count("start the same command again to go on") == 1
    assert "Traceback" not in err
    assert not list(here.rglob("*.tmp"))
    step = int((here / "run" / "checkpoints" / "latest").read_text().strip().removeprefix("step-"))
    again = framecast(*command, *many[2:], "--set", f"steps={step + 1}")
    assert again.code == 0, again.err
    assert f"going on with run after step {step} of {step + 1}" in again.err


def test_data_that_one_process_lacks_stop_all_with_one_line_each(world: World, here: Path) -> None:
    (here / "first").mkdir()
    (here / "second").mkdir()
    (here / "first" / "data").symlink_to(world.data)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    words = ("train", "segmentation", "--data", "data", *TINY_RUN, "--seeds", "0,1")
    started = [
        subprocess.Popen(
            [*COMMAND, *(str(word) for word in words)],
            cwd=here / folder,
            env={**os.environ, **place, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, folder in enumerate(("first", "second"))
    ]
    told = [process.communicate(timeout=100)[1] for process in started]
    assert [process.returncode for process in started] == [1, 1]
    assert told[0].startswith("error: process 1 of 2 failed (FileNotFoundError: data does not exist")
    assert told[1].startswith("error: data does not exist")
    assert not list(here.rglob("runs"))


# Whatever is raised -----------------------------------------------------------------------------------


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("framecast.doctor.examine", fail)


def test_requeue_ends_with_75(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silently: the training loop has said it, once for all processes."""
    raising(monkeypatch, Requeue("stopped by a signal after step 3, saved"))
    done = framecast("doctor")
    assert (done.code, done.err) == (75, "")


def test_a_saved_run_that_was_interrupted_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, Interrupted("stopped by Ctrl-C after step 3, saved"))
    done = framecast("doctor")
    assert (done.code, done.err) == (130, "")


def test_the_keyboard_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    assert framecast("doctor").code == 130


def test_a_bug_is_called_a_bug_and_debug_passes_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, KeyError("gamma"))
    done = framecast("doctor")
    assert done.code == 1
    assert done.err == "error: unexpected KeyError: 'gamma' (a bug; --debug shows where, please report it)\n"
    with pytest.raises(KeyError):
        run(["doctor"], debug=True)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("two\nlines"), "two lines"),
        (ValueError(), "ValueError"),
        (OSError(28, "No space left on device", "a/b"), "a/b: No space left on device"),
        (OSError(28, "cannot write a/b (disk full)"), "cannot write a/b (disk full)"),
        (FileNotFoundError("x does not exist; pass another"), "x does not exist; pass another"),
        (MemoryError(), "not enough memory (asked for too much at once)"),
        (
            ValueError(
                "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback "
                "(most recent call last):\n  File ...\nValueError: x.npy: nan at step 3\n"
            ),
            "x.npy: nan at step 3",
        ),
    ],
)
def test_every_error_fits_into_one_line(error: Exception, text: str) -> None:
    assert explain(error) == text


def test_errors_of_data_loading_processes_are_told_as_others(world: World, here: Path) -> None:
    shutil.copytree(world.data, "data")
    for path in Path("data/features").glob("*.npy"):
        values = np.load(path)
        values[0, 3] = np.inf
        np.save(path, values)
    options = (*TINY_RUN, "--set", "epochs=1", "--set", "num_workers=1", "--out", "run")
    done = framecast("train", "segmentation", "--data", "data", *options)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "inf at channel 0, step 3" in done.err
