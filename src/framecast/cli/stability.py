"""`stability`: how a training run went, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from framecast.cli.output import AsJson, check_out, show, show_json, table


def stability(
    run: Annotated[Path, typer.Argument(help="Run folder of a training with watch_every, also unfinished.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Picture, .png or .svg; RUN/stability.png.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw loss, activations and gradients of every layer over a run, and name what broke."""
    from framecast.train.stability import read_stability
    from framecast.viz.stability import draw_stability

    path = out or run / "stability.png"
    check_out(path.parent)
    if not run.is_dir():
        raise FileNotFoundError(f"{run} is no run folder; pass what `framecast train` wrote")
    rows = read_stability(run)
    if not rows:
        raise ValueError(f"{run} was not watched; train with --set watch_every=20, for example")
    draw_stability(rows, path, title=f"{run.resolve().name}: loss, and every layer over the steps")
    watched = [row for row in rows if row.get("layers")]
    found: dict[str, Any] = {
        "steps": rows[-1]["step"],
        "watched_steps": len(watched),
        "jumps": [step for row in rows for step in row.get("spikes", ())],
        "nonfinite": [{"step": row["step"], "cause": row["nonfinite"]} for row in rows if "nonfinite" in row],
        "layers": watched[-1]["layers"],
        "written": path,
    }
    if as_json:
        show_json(found)
        return
    first, last = watched[0]["layers"], watched[-1]["layers"]
    keys = ("activation", "largest", "gradient")
    body = [[name, *(_change(first.get(name, {}), last[name], key) for key in keys)] for name in last]
    show(table((f"step {watched[0]['step']} → {watched[-1]['step']}", *keys), body))
    if found["jumps"]:
        show(f"the loss jumped in {len(found['jumps'])} steps, first in step {found['jumps'][0]}")
    for broken in found["nonfinite"]:
        show(f"step {broken['step']} was not finite: {broken['cause']}")
    show(f"wrote {path}")


def _change(before: dict[str, float | None], after: dict[str, float | None], key: str) -> str:
    """ "0.31 → 0.52", "∞" for what was not finite, nothing for what was not there."""
    texts = ["∞" if layer[key] is None else f"{layer[key]:.3g}" for layer in (before, after) if key in layer]
    return " → ".join(texts)
