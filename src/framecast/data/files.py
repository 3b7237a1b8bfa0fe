"""Input files: one by name, all of a kind in a folder, or those that match a pattern."""

from __future__ import annotations

import glob
import os
from pathlib import Path


def find_files(path_or_glob: str | os.PathLike[str], suffixes: tuple[str, ...], noun: str) -> list[Path]:
    """Sorted files: the one named, those in a folder with one of the suffixes, or a pattern's ("a/**/*.mp4").

    Raises FileNotFoundError where there is none; noun: what they are, for the message.
    """
    text = os.fspath(path_or_glob)
    path = Path(text)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in suffixes]
        if not found:
            raise FileNotFoundError(f"{path}: no {noun} in this folder (looked for {', '.join(suffixes)})")
        return sorted(found)
    found = [Path(p) for p in glob.glob(text, recursive=True) if Path(p).is_file()]
    if not found:
        raise FileNotFoundError(f"{text}: no such file, and as a pattern it matches no file")
    return sorted(found)
