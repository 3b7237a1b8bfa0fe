"""A progress bar for people: nothing where stderr is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def track(items: Sequence[Item], title: str, *, quiet: bool = False) -> Iterator[Item] | Iterable[Item]:
    """Iterate with a bar on stderr."""
    if quiet or not sys.stderr.isatty() or len(items) < 2:
        return items
    from rich.console import Console
    from rich.progress import track as rich_track

    return rich_track(items, title, console=Console(stderr=True), transient=True)
