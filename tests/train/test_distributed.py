"""Two processes (gloo) against one: same weights, exact resume, other numbers of processes, signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from framecast.train import loop
from framecast.train.distributed import World, start_world
from framecast.train.lock import hold_folder
from framecast.train.records import read_metrics, read_summary

from .test_resume import SCRIPT, assert_same_run, wait_for_rows
from .tiny_task import TinyTask, save_tiny, tiny_recipe, weights_of

# Batches of 3, 3, 3 and 1: in the last one the second process has no sample.
EXACT = {"dropout": 0.0, "dtype": "float64"}
CHANGES: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 3,
    "ema_decay": 0.5,
    "clip_norm": 0.5,
    "select": "accuracy",
}


PARALLEL = ("ddp", "fsdp")
VARIANTS: dict[str, dict[str, Any]] = {
    "ddp": {"parallel": "ddp"},
    "ddp-accumulated": {"parallel": "ddp", "accumulate": 2},
    "fsdp": {"parallel": "fsdp"},
    "fsdp-recomputed": {"parallel": "fsdp", "accumulate": 2, "activation_checkpointing": True},
}


def alone(run: Path, **changes: Any) -> None:
    task = TinyTask(dropout=0.0, dtype=torch.float64)
    loop.train(tiny_recipe(**CHANGES | changes), task, run, save_model=save_tiny)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Everything that two processes train here, in one start of torchrun; folder and what was said."""
    folder = tmp_path_factory.mktemp("trained")
    jobs: list[dict[str, Any]] = []

    def job(name: str, *, task: Any = None, trouble: dict[str, Any] | None = None, **changes: Any) -> None:
        run = str(folder / name)
        jobs.append({"run": run, "changes": CHANGES | changes, "task": task or {}} | (trouble or {}))

    for name, variant in VARIANTS.items():
        job(f"exact/{name}", task=EXACT, **variant)
    for parallel in PARALLEL:
        job(f"{parallel}/whole", parallel=parallel, save_every_steps=3)
        job(f"{parallel}/cut", parallel=parallel, save_every_steps=3, trouble={"crash": 8})
        job(f"{parallel}/cut", parallel=parallel, save_every_steps=3)
        job(f"{parallel}/two-one", parallel=parallel, task=EXACT, epochs=2)
        alone(folder / parallel / "one-two", parallel=parallel, epochs=1)
        job(f"{parallel}/one-two", parallel=parallel, task=EXACT)
        job(f"{parallel}/stop", parallel=parallel, task={"bad_video": 3})
        job(f"{parallel}/skip", parallel=parallel, nonfinite="skip", trouble={"nan": [1, 2]})
        job(f"{parallel}/unbuilt", parallel=parallel, trouble={"unbuilt": 1})
    job("idle", batch_size=1, epochs=1)
    job("held")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with hold_folder(folder / "held", World(0, 1, torch.device("cpu"))):
        done = subprocess.run(
            [*command, str(SCRIPT), json.dumps(jobs)], env=env, capture_output=True, text=True, timeout=250
        )
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


def errors(run: Path) -> list[str]:
    """What stopped each process."""
    return [path.read_text() for path in sorted(run.glob("error-*.txt"))]


def assert_close_runs(a: Path, b: Path) -> None:
    """Float64 sums in another order: equal to about 1e-15, Adam's division makes it a little more."""
    torch.testing.assert_close(weights_of(a), weights_of(b), rtol=0, atol=1e-10)
    for row, other in zip(read_metrics(a), read_metrics(b), strict=True):
        assert {k: v for k, v in row.items() if k != "seconds"} == pytest.approx(
            {k: v for k, v in other.items() if k != "seconds"}, abs=1e-10
        )


def test_two_processes_give_the_weights_of_one(trained: tuple[Path, str], tmp_path: Path) -> None:
    alone(tmp_path)
    for name in VARIANTS:
        run = trained[0] / "exact" / name
        assert errors(run) == []
        assert_close_runs(run, tmp_path)
        summary = read_summary(run)
        assert summary is not None
        assert summary["processes"] == 2


@pytest.mark.parametrize("parallel", PARALLEL)
def test_resume_is_exact_on_two_processes(trained: tuple[Path, str], parallel: str) -> None:
    """With dropout: every process gets its own generators back. Crash in step 8, last save in step 6."""
    cut = trained[0] / parallel / "cut"
    assert errors(cut) == ["RuntimeError: crash"] * 2
    sessions = json.loads((cut / "environment.json").read_text())
    assert [session["from_step"] for session in sessions] == [0, 6]
    assert_same_run(cut, trained[0] / parallel / "whole")


@pytest.mark.parametrize("parallel", PARALLEL)
def test_two_processes_save_and_one_goes_on_and_the_other_way_round(
    trained: tuple[Path, str], tmp_path: Path, parallel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, told = trained
    alone(tmp_path)
    assert_close_runs(folder / parallel / "one-two", tmp_path)
    assert told.count("written by 1 processes, now there are 2") == 2  # once each for ddp and fsdp
    capsys.readouterr()
    alone(folder / parallel / "two-one", parallel=parallel)
    assert capsys.readouterr().err.count("written by 2 processes, now there are 1") == 1
    assert_close_runs(folder / parallel / "two-one", tmp_path)


@pytest.mark.parametrize("parallel", PARALLEL)
def test_trouble_on_one_process_is_a_decision_of_all(trained: tuple[Path, str], parallel: str) -> None:
    """A bad sample on one of them: both stop with the same words. NaN on rank 1 in step 2: both skip it."""
    told = errors(trained[0] / parallel / "stop")
    assert len(told) == 2
    assert told[0] == told[1]
    assert told[0].startswith("NonFiniteError: step")
    assert "batch already holds non-finite numbers in 'features'" in told[0]
    assert errors(trained[0] / parallel / "skip") == []
    summary = read_summary(trained[0] / parallel / "skip")
    assert summary is not None
    assert summary["skipped_steps"] == 1


@pytest.mark.parametrize("parallel", PARALLEL)
def test_a_failed_start_of_one_process_is_told_by_all(trained: tuple[Path, str], parallel: str) -> None:
    told = errors(trained[0] / parallel / "unbuilt")
    assert told == [
        "ValueError: process 1 of 2 failed (FileNotFoundError: weights.pth does not exist)",
        "FileNotFoundError: weights.pth does not exist",
    ]


def test_more_processes_than_samples_in_a_batch_are_pointed_out(trained: tuple[Path, str]) -> None:
    assert (
        trained[1].count("batch_size 1 is the whole batch of a step and leaves some of 2 processes idle") == 1
    )
    assert errors(trained[0] / "idle") == []


def test_a_folder_of_another_run_is_refused_by_all_processes(trained: tuple[Path, str]) -> None:
    told = errors(trained[0] / "held")
    assert len(told) == 2
    assert told[0] == told[1]
    assert f"held is in use by another run ({socket.gethostname()}, process {os.getpid()}" in told[0]
    assert sorted(path.name for path in (trained[0] / "held").iterdir()) == ["error-0.txt", "error-1.txt"]


LAST_SUM = """
import torch, torch.distributed as dist
from framecast.train.distributed import World, start_world
from framecast.train.lock import hold_folder
with start_world("cpu"):
    kept = dist.group.WORLD  # as FSDP's caches keep it
    for _ in range(20):
        total = torch.ones(1000)
        work = dist.all_reduce(total, async_op=True)
        del total  # now the work alone holds the tensor
        work.wait()
"""


def test_processes_end_quietly_right_after_their_last_sum() -> None:
    """Gloo's threads freed tensors in an ending interpreter: about one process in four was aborted."""
    started = []
    for _ in range(4):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        for rank in "01":
            env = {**os.environ, **place, "RANK": rank, "OMP_NUM_THREADS": "1"}
            started.append(
                subprocess.Popen([sys.executable, "-c", LAST_SUM], env=env, stderr=subprocess.PIPE, text=True)
            )
    told = [process.communicate(timeout=100)[1] for process in started]
    assert [process.returncode for process in started] == [0] * len(started), told


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code", "by"), [("SIGUSR1", 75, "a signal"), ("SIGINT", 130, "Ctrl-C")])
def test_a_signal_to_one_slurm_task_stops_all_at_the_same_step(
    tmp_path: Path, name: str, code: int, by: str
) -> None:
    jobs = [{"run": str(tmp_path), "changes": CHANGES | {"epochs": 500}, "slow": 0.01}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in "01":
        place = {
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_PROCID": rank,
            "SLURM_LOCALID": rank,
            "MASTER_PORT": port,
        }
        command = [sys.executable, str(SCRIPT), json.dumps(jobs)]
        env = {**os.environ, **place, "OMP_NUM_THREADS": "1"}
        started.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    wait_for_rows(tmp_path, 3)
    started[1].send_signal(getattr(signal, name))
    told = [process.communicate(timeout=100)[1] for process in started]
    assert [process.returncode for process in started] == [code, code]
    step = int((tmp_path / "checkpoints" / "latest").read_text()[5:])
    assert f"stopped by {by} after step {step} of 2000" in told[0]
    assert len(list((tmp_path / "checkpoints" / f"step-{step:06d}").glob("rng-*.pt"))) == 2


def test_slurm_tasks_are_found_and_several_nodes_need_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_NTASKS", "4")  # the batch script itself: one process
    with start_world("cpu") as world:
        assert world.size == 1
    for name, value in {"STEP_NUM_TASKS": "4", "STEP_NUM_NODES": "2", "PROCID": "1", "LOCALID": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with pytest.raises(ValueError, match="need MASTER_ADDR"), start_world("cpu"):
        pass
