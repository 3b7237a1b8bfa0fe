"""`adapt`: a trained model that keeps only as many tokens as a number allows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from framecast.cli.output import AsJson, Device, check_out, pick_device, show, show_json, table

if TYPE_CHECKING:
    from framecast.infer.token_statistics import TokenStatistics

UNITS = {"": 1.0, "%": 0.01, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def adapt(
    model: Annotated[str, typer.Argument(help="A run folder, a saved model folder or a hub id.")],
    images: Annotated[
        list[str] | None,
        typer.Option("--images", help="Your own images or clips: folder, file or pattern; repeatable."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Instead: a data set; by default the run's own.")
    ] = None,
    macs: Annotated[
        str | None, typer.Option(help="Multiply-adds per input: 0.5 or 50% of the model's, or 2.3G.")
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help="Tokens left at the end: 0.5 or 50% of all, or a number such as 60.")
    ] = None,
    ms: Annotated[str | None, typer.Option(help="Milliseconds per input on this machine.")] = None,
    blocks: Annotated[
        str | None, typer.Option(help='Blocks that sample, "3,6,9"; the last three quarters by default.')
    ] = None,
    search_blocks: Annotated[
        bool, typer.Option("--search-blocks", help="Also try other blocks; what changes answers least wins.")
    ] = False,
    tolerance: Annotated[
        str | None, typer.Option(help="Of the target; 1 % by default, for milliseconds 10 %.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the images are looked at.")] = 64,
    batch: Annotated[int | None, typer.Option(min=1, help="Inputs per call; 1 where time is asked.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; torch's own number.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the adaptive model.")] = Path(
        "adapted"
    ),
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Make a trained ViT leave out tokens until it costs what you say, on your own images; no training.

    framecast adapt runs/flowers --macs 50% --out flowers-half
    framecast adapt runs/flowers --images photos --ms 20 --threads 1
    framecast evaluate flowers-half --data flowers
    """
    from framecast.checkpoints import check_replaceable, load, save
    from framecast.infer.calibration_images import run_pixels
    from framecast.infer.token_budget import calibrate
    from framecast.profile.timing import num_threads

    given = {"macs": macs, "tokens": tokens, "ms": ms}
    target = {name: number(text, name) for name, text in given.items() if text is not None}
    if len(target) != 1:
        raise ValueError("say with one of --macs, --tokens and --ms what the model may cost")
    if images and data is not None:
        raise ValueError("--images and --data both say what to calibrate on; pass one of them")
    if blocks is not None and search_blocks:
        raise ValueError("--blocks says which blocks sample and --search-blocks looks for them; pass one")
    check_out(out.parent)
    check_replaceable(out)
    chosen: Any = "search" if search_blocks else None if blocks is None else numbers(blocks)
    allowed = None if tolerance is None else number(tolerance, "tolerance")
    with num_threads(threads):
        loaded = load(model, pick_device(device))
        shown: Any = images or run_pixels(loaded, model, data, limit)
        made, report = calibrate(
            loaded, shown, **target, blocks=chosen, tolerance=allowed, limit=limit, batch=batch
        )
    save(made, out)
    if as_json:
        show_json(report.to_json() | {"written": out})
        return
    show(report.dial())
    show(tokens_table(report.statistics))
    for line in report.notes():
        show(line)
    show(f"wrote {out}, a model like any other: framecast predict FILE --model {out} --show-tokens")


def tokens_table(statistics: TokenStatistics) -> str:
    """A row for each stage: tokens left, and how inputs differ in it."""
    rows = statistics.rows()
    return table(list(rows[0]), [list(row.values()) for row in rows]) if rows else "no block samples patches"


def number(text: str, name: str) -> float:
    """ "0.5", "50%", "2.3G"."""
    found = re.fullmatch(r"\s*(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)\s*([%kKMGT]?)\s*", text)
    if found is None:
        raise ValueError(f"--{name} {text!r} is no number such as 0.5, 50% or 2.3G")
    return float(found[1]) * UNITS[found[2]]


def numbers(text: str) -> list[int]:
    """ "3,6,9" -> [3, 6, 9]."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"--blocks {text!r} are no whole numbers such as 3,6,9")
    return [int(part) for part in parts]
