"""What every verb prints: figures for people, one JSON object with `--json`, failures on standard error."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from framecast.writing import json_text

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")]
Found = TypeVar("Found")
Source = TypeVar("Source")  # a path, or what is shown like one
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:0, … or auto.")]


def show(text: str) -> None:
    """A line for people."""
    if is_main_process():
        print(text, flush=True)


def show_json(values: Any) -> None:
    if is_main_process():
        print(json_text(values))


def show_error(text: str) -> None:
    """A failure that does not stop the rest."""
    print(f"error: {text}", file=sys.stderr, flush=True)


def show_failures(failed: dict[str, str]) -> None:
    """Why files could not be read, by file; what holds for several is said once."""
    files: dict[str, list[str]] = {}
    for path, reason in failed.items():
        files.setdefault(reason.removeprefix(f"{path}: "), []).append(path)
    for reason, paths in files.items():
        if len(paths) == 1:
            show_error(failed[paths[0]])
        else:
            show_error(f"{len(paths)} files, {paths[0]} the first of them: {reason}")


def each_file(
    paths: Sequence[Source], work: Callable[[Source], Found], title: str, *, quiet: bool
) -> tuple[list[Found], dict[str, str]]:
    """What `work` finds in every file, and why one could not be read; a bad one does not stop the others."""
    from framecast.cli import explain
    from framecast.progress import track

    found, failed = [], {}
    for path in track(paths, title, quiet=quiet):
        try:
            found.append(work(path))
        except (ValueError, OSError) as error:
            if len(paths) == 1:
                raise
            reason = explain(error)
            failed[str(path)] = reason if str(path) in reason else f"{path}: {reason}"
    return found, failed


def is_main_process() -> bool:
    """Whether this is the one of several training processes that talks."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Left-aligned columns with a line under the titles."""
    cells = [[str(c) for c in row] for row in [titles, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(titles))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("─" * w for w in widths), *lines[1:]])


def pick_device(name: str) -> str:
    """Resolve "auto"; ValueError for a device that is not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}; use cpu, cuda or cuda:0") from None
    if device.type not in ("cpu", "cuda", "mps", "xpu"):
        raise ValueError(f"device {name!r} cannot compute; use cpu, cuda or cuda:0")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        seen = f"{torch.cuda.device_count()} GPUs" if torch.cuda.is_available() else "no GPU"
        raise ValueError(f"device {name!r} was asked for but torch sees {seen} here; use --device cpu")
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"device {name!r} does not work here ({reason}); use --device cpu") from None
    return name


def check_out(folder: Path) -> None:
    """OSError where results cannot be written there; said before the work, not after it."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"{existing} is a file; choose a folder for the results")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"{existing} cannot be written; choose another folder for the results")


@contextmanager
def no_empty_folder(folder: Path) -> Generator[None]:
    """After an error, remove the folder and its parents where they were made meanwhile and hold no file."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]  # innermost first
    try:
        yield
    except BaseException:
        if made and made[-1].is_dir() and not any(path.is_file() for path in made[-1].rglob("*")):
            shutil.rmtree(made[-1])
        raise
