"""What every verb prints: figures for people, or one JSON object with `--json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:0, … or auto.")]


def show(text: str, as_json: bool = False) -> None:
    """A line for people; with --json it goes to stderr, so that stdout stays one JSON object."""
    print(text, file=sys.stderr if as_json else sys.stdout, flush=True)


def show_json(values: Any) -> None:
    print(json.dumps(values, indent=2, default=str))


def table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Left-aligned columns with a line under the titles."""
    cells = [[str(c) for c in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(titles), *cells]) for i in range(len(titles))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in [titles, *cells]]
    return "\n".join([lines[0], "  ".join("─" * w for w in widths), *lines[1:]])


def pick_device(name: str) -> str:
    """Resolve "auto"; ValueError for a device that is not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} was asked for but torch sees no GPU here; use --device cpu")
    try:
        torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}; use cpu, cuda or cuda:0") from None
    return name
