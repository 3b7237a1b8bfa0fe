"""A run that is killed and started again gives the bits of a run that never stopped."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from framecast.train import checkpoint, loop, signals
from framecast.train.checkpoint import load_tensors, stored_tensors
from framecast.train.distributed import World
from framecast.train.records import read_metrics, read_summary
from framecast.train.signals import Interrupted, Requeue, StopRequests

from .tiny_task import TinyTask, save_tiny, tiny_recipe, weights_of

SCRIPT = Path(__file__).with_name("run_tiny.py")
ALONE = World(0, 1, torch.device("cpu"))
# Dropout, augmentation, averages, an uneven last batch and selection: everything that has state.
CHANGES: dict[str, Any] = {"steps": 20, "epochs": None, "save_every_steps": 3, "eval_every_steps": 4}
CHANGES |= {"log_every": 2, "ema_decay": 0.9, "accumulate": 2, "select": "accuracy", "clip_norm": 1.0}


def contents(run: Path) -> tuple[dict[str, Tensor], list[dict[str, Any]], dict[str, Any]]:
    """Tensors of the last checkpoint, metrics and summary without times."""
    step = run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()
    tensors = {name: torch.zeros(entry.size) for name, entry in stored_tensors(step).items()}
    load_tensors(tensors, step, ALONE)
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in read_metrics(run)]
    summary = read_summary(run) or {}
    return tensors, rows, {k: v for k, v in summary.items() if k != "seconds"}


def assert_same_run(a: Path, b: Path) -> None:
    (tensors, rows, summary), (others, other_rows, other_summary) = contents(a), contents(b)
    assert {name.split(".")[0] for name in tensors} == {"model", "optim", "ema", "updates"}
    torch.testing.assert_close(tensors, others, rtol=0, atol=0)
    torch.testing.assert_close(weights_of(a), weights_of(b), rtol=0, atol=0)
    assert rows == other_rows
    assert summary == other_summary


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("uninterrupted")
    loop.train(tiny_recipe(**CHANGES), TinyTask(), run, save_model=save_tiny)
    return run


class Crash(Exception):
    pass


class CrashingTask(TinyTask):
    """Raises in the second micro-batch of a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.calls_left = 2 * step

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        self.calls_left -= 1
        if self.calls_left == 0:
            raise Crash
        return super().loss(model, batch)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 7, 12, 13, 20])
def test_crash_in_any_step(tmp_path: Path, uninterrupted: Path, step: int) -> None:
    with pytest.raises(Crash):
        loop.train(tiny_recipe(**CHANGES), CrashingTask(step), tmp_path, save_model=save_tiny)
    loop.train(tiny_recipe(**CHANGES), TinyTask(), tmp_path, save_model=save_tiny)
    assert_same_run(tmp_path, uninterrupted)


def start(run: Path, *, slow: float = 0.02, **changes: Any) -> subprocess.Popen[str]:
    """Train in another process that leads a process group, as one started from a terminal does."""
    jobs = json.dumps([{"run": str(run), "changes": CHANGES | changes, "slow": slow}])
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), jobs]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_rows(run: Path, count: int) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if len(read_metrics(run)) >= count:
            return
        time.sleep(0.005)
    raise AssertionError("the run wrote no metrics")


def wait_for_file(path: Path) -> None:
    until = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.02)


@pytest.mark.slow
def test_sigkill_at_random_moments(tmp_path: Path, uninterrupted: Path) -> None:
    rng = random.Random()
    for _ in range(2):
        process = start(tmp_path)
        wait_for_rows(tmp_path, len(read_metrics(tmp_path)) + 1)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.communicate()
    loop.train(tiny_recipe(**CHANGES), TinyTask(), tmp_path, save_model=save_tiny)
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_signal_saves_at_the_step_boundary_and_leaves(
    tmp_path: Path, uninterrupted: Path, name: str
) -> None:
    """Sent to the whole group, data-loading process included, as terminals and schedulers do."""
    process = start(tmp_path, num_workers=1)
    wait_for_rows(tmp_path, 2)
    os.killpg(process.pid, getattr(signal, name))
    _, told = process.communicate(timeout=60)
    assert process.returncode == (130 if name == "SIGINT" else 75)
    assert told.count(f"{name} received") == 1
    assert "start the same command again" in told
    stopped = int((tmp_path / "checkpoints" / "latest").read_text()[5:])
    assert 0 < stopped < 20
    assert read_metrics(tmp_path)[-1]["step"] <= stopped  # nothing was done after the save
    loop.train(tiny_recipe(**CHANGES), TinyTask(), tmp_path, save_model=save_tiny)
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.slow
def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path) -> None:
    process = start(tmp_path, slow=60)
    wait_for_file(tmp_path / "metrics.jsonl")  # the first step begins
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(1.2)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert not (tmp_path / "run.lock").exists()


def test_what_counts_as_ctrl_c(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(signals.time, "monotonic", iter([10.0, 10.1, 11.2]).__next__)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with StopRequests() as stop:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)  # the same one, from the terminal and from torchrun
            assert stop.received == "SIGINT"
            assert capfd.readouterr().err.count("again to leave at once") == 1
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a background job: Ctrl-C is for another one
        with StopRequests() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.received == ""
    finally:
        signal.signal(signal.SIGINT, before)
    assert (Requeue("").code, Interrupted("").code) == (75, 130)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_handlers_are_put_back(tmp_path: Path, name: str, request: pytest.FixtureRequest) -> None:
    number = getattr(signal, name)
    # A job in the background may have been started with the signal ignored, and then leaves it so.
    request.addfinalizer(partial(signal.signal, number, signal.signal(number, signal.default_int_handler)))
    before = signal.getsignal(number)
    seen = []

    class Task(TinyTask):
        def build_model(self) -> Any:
            seen.append(signal.getsignal(number))
            return super().build_model()

    loop.train(tiny_recipe(epochs=1), Task(), tmp_path, save_model=save_tiny)
    assert seen != [before]
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_checkpoint_is_set_aside(tmp_path: Path, uninterrupted: Path, damage: str) -> None:
    shutil.copytree(uninterrupted, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    file = tmp_path / "run" / "checkpoints" / "step-000020" / "__0_0.distcp"
    content = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    elif damage == "truncate":
        file.write_bytes(content[:-100])
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with pytest.warns(
        UserWarning, match="step-000020 is damaged.*goes on from the one before it, step-000018"
    ):
        loop.train(tiny_recipe(**CHANGES), TinyTask(), tmp_path / "run", save_model=save_tiny)
    assert (tmp_path / "run" / "checkpoints" / "step-000020.damaged").is_dir()
    assert_same_run(tmp_path / "run", uninterrupted)


def test_only_damaged_checkpoints(tmp_path: Path, uninterrupted: Path) -> None:
    shutil.copytree(uninterrupted, tmp_path / "run")
    for manifest in (tmp_path / "run").glob("checkpoints/*/manifest.json"):
        manifest.unlink()
    with pytest.raises(
        ValueError, match=r"no checkpoint .* can be read .*step-000020: manifest\.json is missing"
    ):
        loop.train(tiny_recipe(**CHANGES), TinyTask(), tmp_path / "run", save_model=save_tiny)


@pytest.mark.parametrize("where", ["tensors", "state"])
def test_a_full_disk_costs_only_the_new_checkpoint(
    tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(Crash):
        loop.train(tiny_recipe(**CHANGES), CrashingTask(5), tmp_path, save_model=save_tiny)
    with monkeypatch.context() as patch:
        if where == "tensors":  # inside torch's writer
            patch.setattr("torch.distributed.checkpoint.filesystem._write_item", no_space)
        else:
            patch.setattr(checkpoint, "write_file", no_space)
        with pytest.raises(OSError, match=r"No space left.*step 3 is intact; free space") as caught:
            loop.train(tiny_recipe(**CHANGES), TinyTask(), tmp_path, save_model=save_tiny)
        assert caught.value.errno == errno.ENOSPC
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("checkpoints/*.tmp"))
    loop.train(tiny_recipe(**CHANGES), TinyTask(), tmp_path, save_model=save_tiny)
    assert_same_run(tmp_path, uninterrupted)


def test_leftovers_of_a_crash_are_removed(tmp_path: Path) -> None:
    leftover = tmp_path / "checkpoints" / "step-000001.tmp"
    leftover.mkdir(parents=True)
    (leftover / "half").touch()
    loop.train(tiny_recipe(epochs=1), TinyTask(), tmp_path, save_model=save_tiny)
    assert not leftover.exists()


def test_metadata_that_would_execute_something_is_refused(tmp_path: Path) -> None:
    import pickle

    (tmp_path / ".metadata").write_bytes(pickle.dumps(os.system))
    with pytest.raises(ValueError, match=r"asks for posix.system"):
        stored_tensors(tmp_path)


def test_a_changed_model_is_named(tmp_path: Path) -> None:
    loop.train(tiny_recipe(epochs=1), TinyTask(), tmp_path, save_model=save_tiny)
    with pytest.raises(ValueError, match=r"no tensor 'model.norm.weight'"):
        loop.train(tiny_recipe(epochs=2), TinyTask(batch_norm=True), tmp_path, save_model=save_tiny)
