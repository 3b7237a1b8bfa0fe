"""Folders of videos to feature tracks, resumable, one process per device.

Finished tracks are found again after an interruption, and a video that cannot be read is reported at the end
while the others go on. What is done with one video is in frame_features.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

import torch

from framecast.data.features import load_track, read_provenance, save_track
from framecast.data.video import find_videos
from framecast.infer.frame_features import (
    Backbone,
    FeatureSettings,
    extract_features,
    provenance_of,
    video_hash,
    weights_hash,
)
from framecast.structures import Provenance

__all__ = [
    "ExtractionReport",
    "FeatureSettings",
    "extract_features",
    "extract_folder",
    "provenance_of",
    "video_hash",
    "weights_hash",
]


@dataclass
class ExtractionReport:
    """What became of every video of a folder."""

    out: Path
    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # there already
    failed: dict[str, str] = field(default_factory=dict)  # video -> why
    num_steps: int = 0
    seconds: float = 0.0

    @property
    def exit_status(self) -> int:
        return 1 if self.failed else 0

    def __str__(self) -> str:
        rate = f", {self.num_steps / self.seconds:.1f} per second" if self.seconds and self.num_steps else ""
        lines = [
            f"{len(self.done)} videos extracted to {self.out} ({self.num_steps} feature vectors{rate}), "
            f"{len(self.skipped)} were there already, {len(self.failed)} failed"
        ]
        return "\n".join(lines + [f"  {reason}" for reason in self.failed.values()])


def extract_folder(
    videos: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    settings: FeatureSettings,
    *,
    model_factory: Callable[[FeatureSettings], Backbone],
    devices: Sequence[str] = ("cpu",),
    resume: bool = True,
    overwrite: bool = False,
    suffix: Literal[".npy", ".safetensors"] = ".npy",
) -> ExtractionReport:
    """Write a feature track for every video, `out/<video><suffix>`.

    videos: files, or a folder or pattern as in `find_videos`; below a folder, sub-folders are kept.
    model_factory: builds the backbone with its weights, called once in every process, so a module-level
    function. devices: one process each; several "cpu" divide the threads among them.
    resume: leave tracks alone that exist with the same provenance for the same video. A track made in
    another way is refused, with what differs, before any work starts; overwrite=True makes all anew.
    Raises ValueError or FileNotFoundError for what concerns all videos; what concerns one is in the report.
    """
    out = Path(out)
    jobs = _jobs(videos, out, suffix)
    if not devices:
        raise ValueError("devices is empty; pass at least one, for example ['cpu']")
    report = ExtractionReport(out)
    started = time.monotonic()
    model = model_factory(settings)
    wanted = provenance_of(model, settings)
    if not overwrite:
        _check_existing(jobs, wanted, resume)
    out.mkdir(parents=True, exist_ok=True)
    if len(devices) == 1:
        outcomes = _run_here(model, jobs, settings, wanted, devices[0], overwrite)
    else:
        del model
        outcomes = _run_processes(jobs, settings, wanted, devices, overwrite, model_factory)
    with _progress() as bar:
        task = bar.add_task("features", total=len(jobs))
        for name, outcome, detail in outcomes:
            if outcome == "done":
                report.done.append(name)
                report.num_steps += int(detail)
            elif outcome == "skipped":
                report.skipped.append(name)
            else:
                report.failed[name] = detail
            bar.advance(task)
    report.seconds = time.monotonic() - started
    return report


@dataclass(frozen=True)
class _Job:
    video: Path
    track: Path

    @property
    def name(self) -> str:
        return str(self.video)


Outcome = tuple[str, Literal["done", "skipped", "failed"], str]


def _jobs(
    videos: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], out: Path, suffix: str
) -> list[_Job]:
    root: Path | None = None
    if isinstance(videos, (str, os.PathLike)):
        root = Path(videos) if Path(videos).is_dir() else None
        paths = find_videos(videos)
    else:
        paths = [Path(video) for video in videos]
    if not paths:
        raise ValueError("no videos were given; pass files, a folder or a pattern such as 'clips/*.mp4'")
    jobs, owner = [], {}
    for path in paths:
        name = path.relative_to(root) if root else Path(path.name)
        track = out / name.parent / f"{name.stem}{suffix}"
        if track in owner:
            raise ValueError(f"{owner[track]} and {path} both make {track}; rename one of them")
        owner[track] = path
        jobs.append(_Job(path, track))
    return jobs


def _check_existing(jobs: list[_Job], wanted: Provenance, resume: bool) -> None:
    for job in jobs:
        if not job.track.is_file():
            continue
        if not resume:
            raise ValueError(f"{job.track}: is there already; pass resume=True or overwrite=True")
        found = read_provenance(job.track)
        differences = found.differences(wanted) if found else ["it does not say how it was made"]
        if differences:
            raise ValueError(
                f"{job.track}: was made in another way ({'; '.join(differences)}); "
                "write to another folder, or pass overwrite=True (--overwrite) to make it anew"
            )


def _extract_one(
    model: Backbone, job: _Job, settings: FeatureSettings, wanted: Provenance, device: str, overwrite: bool
) -> Outcome:
    try:
        if job.track.is_file() and not overwrite:
            found = load_track(job.track).provenance
            if found and found.video_hash == video_hash(job.video):
                return job.name, "skipped", ""
            return (
                job.name,
                "failed",
                (f"{job.video}: has changed since {job.track} was made; pass --overwrite"),
            )
        track = extract_features(model, job.video, settings, device, provenance=wanted)
        job.track.parent.mkdir(parents=True, exist_ok=True)
        save_track(track, job.track)
        return job.name, "done", str(len(track))
    except (ValueError, OSError, MemoryError, torch.OutOfMemoryError) as error:
        message = str(error) or type(error).__name__
        return job.name, "failed", message if str(job.video) in message else f"{job.video}: {message}"


def _run_here(
    model: Backbone,
    jobs: list[_Job],
    settings: FeatureSettings,
    wanted: Provenance,
    device: str,
    overwrite: bool,
) -> Iterator[Outcome]:
    for job in jobs:
        yield _extract_one(model, job, settings, wanted, device, overwrite)


def _run_processes(
    jobs: list[_Job],
    settings: FeatureSettings,
    wanted: Provenance,
    devices: Sequence[str],
    overwrite: bool,
    model_factory: Callable[[FeatureSettings], Backbone],
) -> Iterator[Outcome]:
    """Hand videos to one process per device as they become free; a process that dies costs its video."""
    context = torch.multiprocessing.get_context("spawn")
    on_cpu = sum(device == "cpu" for device in devices)
    threads = max(1, torch.get_num_threads() // max(1, on_cpu))
    waiting = list(reversed(jobs))
    busy: dict[Connection, _Job] = {}
    processes: dict[Connection, Any] = {}
    try:
        for device in devices[: len(jobs)]:
            mine, theirs = context.Pipe()
            arguments = (theirs, settings, wanted, device, overwrite, model_factory, threads)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()  # so that the end of the process is the end of the pipe
            processes[mine] = process
            busy[mine] = waiting.pop()
            mine.send(busy[mine])
        while busy:
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                job = busy.pop(connection)
                try:
                    outcome = connection.recv()
                except (EOFError, ConnectionError):
                    processes[connection].join()
                    code = processes[connection].exitcode
                    yield (
                        job.name,
                        "failed",
                        f"{job.video}: its process ended with status {code}; out of memory?",
                    )
                    continue
                if isinstance(outcome, BaseException):
                    raise outcome
                yield outcome
                if waiting:
                    busy[connection] = waiting.pop()
                    connection.send(busy[connection])
                else:
                    connection.send(None)
        for job in reversed(waiting):
            yield job.name, "failed", f"{job.video}: not tried, all processes have ended"
    finally:
        for connection, process in processes.items():
            connection.close()
            process.join(timeout=5)
            if process.is_alive():
                process.terminate()


def _serve(
    connection: Connection,
    settings: FeatureSettings,
    wanted: Provenance,
    device: str,
    overwrite: bool,
    model_factory: Callable[[FeatureSettings], Backbone],
    threads: int,
) -> None:
    """Body of a worker process: a job in, an outcome out, None = go home."""
    torch.set_num_threads(threads)
    try:
        model = model_factory(settings)
        found = weights_hash(model)
        if found != wanted.weights:
            raise ValueError(
                f"the model factory gives other weights in each process ({wanted.weights}, then {found}); "
                "load them from a file or seed it"
            )
        while (job := connection.recv()) is not None:
            connection.send(_extract_one(model, job, settings, wanted, device, overwrite))
    except (EOFError, KeyboardInterrupt):
        return
    except Exception as error:
        connection.send(error)


def _progress() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    quiet = os.environ.get("RANK", "0") != "0"
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("videos"),
        TimeRemainingColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
    )
