"""Files and folders that are there completely or not at all.

Everything is written under a temporary name beside its place, flushed to the disk and renamed.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

Content = str | bytes | Callable[[BinaryIO], object]  # text becomes UTF-8; a function writes the open file


def write_file(path: str | Path, content: Content) -> Path:
    """Replace the file's content in one go; missing folders are made.

    Raises OSError that names the file, also when the disk is full; an older file then stays as it was.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        flush_folder(path.parent)
    except OSError as error:
        raise type(error)(error.errno, f"cannot write {path} ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


def write_by_name(path: str | Path, write: Callable[[Path], object]) -> Path:
    """As `write_file`, for libraries that open a file by its name: `write(a name beside the place)`."""
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        flush_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(error.errno or 0, f"cannot write {path} ({reason})") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


def json_text(values: object) -> str:
    """JSON as every program reads it: numbers that are not finite become null, anything unknown its text."""
    return json.dumps(_plain(values), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def flush_folder(folder: Path) -> None:
    """Make renames inside the folder survive a power cut."""
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish_folder(temporary: Path, final: Path) -> None:
    """Rename a finished folder to its place; an older folder there is replaced."""
    flush_folder(temporary)
    old = final.with_name(final.name + ".old")
    if old.exists():
        shutil.rmtree(old)
    if final.exists():
        os.rename(final, old)
    os.rename(temporary, final)
    flush_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(final: Path) -> None:
    """Undo a `publish_folder` that was cut between its two renames."""
    old = final.with_name(final.name + ".old")
    if old.exists() and not final.exists():
        os.rename(old, final)
    shutil.rmtree(old, ignore_errors=True)


def fill_folder(final: Path, write: Callable[[Path], object]) -> None:
    """Call `write(an empty folder)` and publish what it wrote as `final`."""
    temporary = final.with_name(final.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    publish_folder(temporary, final)


def fill_section(path: str | Path, name: str, text: str) -> Path:
    """Replace what a text file has between `<!-- name:start -->` and `<!-- name:end -->`.

    Raises ValueError where the file has no such section.
    """
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before, opened, rest = Path(path).read_text(encoding="utf-8").partition(start)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise ValueError(f"{path} has no section for the text; put {start} and {end} where it belongs")
    return write_file(path, f"{before}{start}\n{text.rstrip()}\n{end}{after}")
