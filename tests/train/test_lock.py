"""One run at a time in a run folder, whatever became of the run before."""

from __future__ import annotations

import errno
import os
import signal
import socket
from pathlib import Path

import pytest
import torch

from framecast.train import lock, loop
from framecast.train.distributed import World
from framecast.train.lock import hold_folder

from .test_resume import CHANGES, assert_same_run, start, wait_for_file, wait_for_rows
from .tiny_task import TinyTask, save_tiny, tiny_recipe

ALONE = World(0, 1, torch.device("cpu"))


@pytest.mark.slow
def test_of_two_processes_the_second_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = start(run, slow=1.5)  # a minute in all, were it not stopped below
    wait_for_file(run / "metrics.jsonl")
    note = (run / "run.lock").read_text()
    (run / "checkpoints" / "step-000019.tmp").mkdir()  # as if the first one were just saving
    second = start(run)
    second.communicate(timeout=100)
    error = (run / "error-0.txt").read_text()
    assert error.startswith("BlockingIOError")
    assert f"run is in use by another run ({socket.gethostname()}, process {first.pid}, since 20" in error
    assert "\n" not in error
    assert (run / "checkpoints" / "step-000019.tmp").exists()
    assert (run / "run.lock").read_text() == note
    first.send_signal(signal.SIGTERM)
    _, told = first.communicate(timeout=100)
    assert first.returncode == 75, told
    assert not (run / "run.lock").exists()
    loop.train(tiny_recipe(**CHANGES), TinyTask(), run, save_model=save_tiny)
    loop.train(tiny_recipe(**CHANGES), TinyTask(), tmp_path / "undisturbed", save_model=save_tiny)
    assert_same_run(run, tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_killed_run_blocks_nobody(tmp_path: Path) -> None:
    """Not even while its data-loading process, which was started with the lock in its hands, lives on."""
    process = start(tmp_path, num_workers=1)
    wait_for_rows(tmp_path, 1)
    (worker,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    assert (tmp_path / "run.lock").exists()
    with hold_folder(tmp_path, ALONE):
        assert Path(f"/proc/{worker}").exists()  # it notices after some seconds that it is alone
    process.communicate()
    loop.train(tiny_recipe(**CHANGES), TinyTask(), tmp_path, save_model=save_tiny)
    assert not (tmp_path / "run.lock").exists()


def test_the_folder_is_free_after_the_run_and_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with hold_folder(tmp_path / "run", ALONE):
            assert socket.gethostname() in (tmp_path / "run" / "run.lock").read_text()
            with pytest.raises(BlockingIOError, match="in use"), hold_folder(tmp_path / "run", ALONE):
                pass
    with pytest.raises(KeyError), hold_folder(tmp_path / "run", ALONE):
        raise KeyError
    assert list((tmp_path / "run").iterdir()) == []


def test_a_lock_of_a_dead_machine_can_be_deleted(tmp_path: Path) -> None:
    with hold_folder(tmp_path, ALONE):
        (tmp_path / "run.lock").unlink()
        with hold_folder(tmp_path, ALONE):
            note = (tmp_path / "run.lock").read_text()
            assert note
    assert not (tmp_path / "run.lock").exists()


def test_a_lock_that_is_just_being_removed_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former holder removes the file after we have opened it: our lock on it would protect nothing."""
    try_lock, removed = lock._try_lock, []

    def too_late(descriptor: int, path: Path) -> bool:
        if not removed:
            path.unlink()
            removed.append(path)
        return try_lock(descriptor, path)

    monkeypatch.setattr(lock, "_try_lock", too_late)
    with hold_folder(tmp_path, ALONE):
        assert removed == [tmp_path / "run.lock"]
        with pytest.raises(BlockingIOError), hold_folder(tmp_path, ALONE):
            pass


def test_a_requeued_job_waits_for_the_lock_of_its_former_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = hold_folder(tmp_path, ALONE)
    former.__enter__()
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            former.__exit__(None, None, None)

    monkeypatch.setattr(lock.time, "sleep", sleep)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with hold_folder(tmp_path, ALONE):
        assert len(waited) == 3


def test_a_file_system_without_locks_costs_the_protection_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="takes no locks"), hold_folder(tmp_path, ALONE):
        assert (tmp_path / "run.lock").exists()


def test_a_full_disk_leaves_no_lock_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match=r"cannot write into .*No space left"), hold_folder(tmp_path, ALONE):
            pass
    assert list(tmp_path.iterdir()) == []
    with hold_folder(tmp_path, ALONE):
        pass
