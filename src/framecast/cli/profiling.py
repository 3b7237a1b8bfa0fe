"""`profile`: what models cost, and what they give for it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from framecast.cli.output import (
    AsJson,
    Device,
    check_out,
    no_empty_folder,
    pick_device,
    show,
    show_error,
    show_json,
    table,
)

if TYPE_CHECKING:
    from framecast.profile.profiler import Settings
    from framecast.profile.report import ModelProfile
    from framecast.profile.subjects import Subject


LOOKED_AT = 64  # inputs of a model that samples tokens


def profile(
    names: Annotated[
        list[str] | None, typer.Argument(help="Registered models, run folders or studies.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="One more of them; repeatable, as in `predict`.")
    ] = None,
    input_: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="224 or 224x320 (images), 8x224 (clips), 2048x5000 (features); else the model's own.",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of the runs' data, where it has moved.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Inputs per call.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; torch's own number.")] = None,
    seconds: Annotated[float, typer.Option(min=0, help="How long each model is timed.")] = 2.0,
    count_run: Annotated[
        bool,
        typer.Option("--count-run", help="Count what really ran on the input, not its size alone."),
    ] = False,
    counts_only: Annotated[
        bool, typer.Option("--counts-only", help="Parameters, MACs and FLOPs only; nothing is run.")
    ] = False,
    metric: Annotated[str | None, typer.Option(help="Score of the runs to set beside the cost.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for tables and plot.")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say what models cost: parameters, MACs and FLOPs by part, latency, memory, energy, beside their scores.

    framecast profile vit_small vit_base --input 224
    framecast profile runs/a runs/b --out cost
    """
    from framecast.profile.profiler import Settings
    from framecast.profile.report import to_json
    from framecast.profile.runs import choose_metric, scores_of
    from framecast.profile.subjects import find_subject

    wanted = [*(names or []), *(model or [])]
    if not wanted:
        raise ValueError("nothing to profile; name registered models (`framecast list`) or run folders")
    if len(set(wanted)) < len(wanted):
        raise ValueError(f"{max(wanted, key=wanted.count)} is named twice")
    if out is not None:
        check_out(out)
    subjects = [find_subject(name, input_) for name in wanted]
    scores = [scores_of(subject.name) if subject.folder else {} for subject in subjects]
    chosen = choose_metric(scores, metric)
    settings = Settings(batch, threads, pick_device(device), seconds, counts_only, count_run)
    profiles = []
    for subject, found in zip(subjects, scores, strict=True):
        profiles.append(profile_one(subject, found, settings, data, own_size=input_ is None))
        if len(subjects) > 1 and sys.stderr.isatty():
            print(f"{len(profiles)} of {len(subjects)}: {subject.name}", file=sys.stderr)
    text = as_text(profiles, chosen)
    written: list[Path] = []
    if out is not None:
        with no_empty_folder(out):
            written = write(profiles, out, text, chosen)
    if as_json:
        show_json(to_json(profiles) | {"metric": chosen, "written": written})
        return
    show(text)
    if out is not None:
        show(f"wrote {', '.join(path.name for path in written)} into {out}")


def profile_one(
    subject: Subject, scores: dict[str, float], settings: Settings, data: Path | None, *, own_size: bool
) -> ModelProfile:
    """The profile of one model; a trained run reads its own data where no other size is asked."""
    from dataclasses import replace

    from framecast.profile.profiler import profile_subject
    from framecast.profile.runs import own_input

    own = None
    if subject.folder and own_size:
        try:
            own = own_input(subject, data, max(settings.batch, LOOKED_AT if subject.samples else 1))
        except (ValueError, OSError) as problem:
            if data is not None:
                raise
            show_error(f"{subject.name}: a random input is taken, since its data are not at hand ({problem})")
    x, name = own or (None, "")
    settings = replace(settings, count_run=True) if own else settings
    return profile_subject(subject, settings, x=x, data=name, scores=scores)


def as_text(profiles: list[ModelProfile], metric: str | None) -> str:
    """The table of models, the parts of a single one or the MACs by part of several, and how it was done."""
    from framecast.profile.counting import PARTS
    from framecast.profile.report import method, part_rows, quantity, summary_rows

    blocks = [_table(summary_rows(profiles, metric))]
    if len(profiles) == 1:
        blocks.append(_table(part_rows(profiles[0])))
    else:
        known = {name for p in profiles for name, cost in p.counts.parts.items() if cost.flops}
        parts = [*(name for name in PARTS if name in known), *sorted(known.difference(PARTS))]
        rows = [
            {"MACs": name}
            | {p.name: quantity(p.counts.parts[name].macs) for p in profiles if name in p.counts.parts}
            for name in parts
        ]
        blocks.append(_table(rows))
    for title, rows in token_tables(profiles).items():
        blocks.append(f"{title}\n{_table(rows)}")
    blocks.append("\n".join(method(profiles)))
    return "\n\n".join(blocks)


def token_tables(profiles: list[ModelProfile]) -> dict[str, list[dict[str, str]]]:
    """Tokens left after each stage of the models that sample them."""
    return {f"Tokens left in {p.name}": p.tokens.rows() for p in profiles if p.tokens and p.tokens.blocks}


def _table(rows: list[dict[str, str]]) -> str:
    titles = list(dict.fromkeys(key for row in rows for key in row))
    return table(titles, [[row.get(title, "") for title in titles] for row in rows])


def write(profiles: list[ModelProfile], out: Path, text: str, metric: str | None) -> list[Path]:
    """Tables and page; a plot too where two models or more have a score."""
    from framecast.profile.report import method, summary_rows, write_profiles
    from framecast.viz.cost import CostPoint, draw_cost, write_cost_page

    written = write_profiles(profiles, out, text)
    points = [
        CostPoint(Path(p.name).name or p.name, p.scores[metric], costs_of(p))
        for p in profiles
        if metric in p.scores
    ]
    if len(points) > 1 and metric is not None:
        kinds = [out / "cost.png", out / "cost.svg"]
        written += [draw_cost(points, path, metric=metric, title="Accuracy against cost") for path in kinds]
    facts = {"command": shlex.join(["framecast", *sys.argv[1:]])}
    facts |= {f"note {i}": line for i, line in enumerate(method(profiles), start=1)}
    rows = summary_rows(profiles, metric)
    shown = points if len(points) > 1 else []
    title = "Accuracy against cost" if shown else "What it costs"
    page = out / "cost.html"
    more = token_tables(profiles)
    page = write_cost_page(page, shown, rows, metric=metric or "", title=title, facts=facts, more=more)
    return [*written, page]


def costs_of(profile: ModelProfile) -> dict[str, float]:
    """What the plot knows of a model; batch size and threads stand in the axis title."""
    costs = {"GMACs per input": profile.total.macs / 1e9}
    if timing := profile.timing:
        threads = f"{timing.threads} thread{'s' * (timing.threads != 1)}"
        where = threads if timing.device == "cpu" else timing.device
        costs[f"latency in ms, batch {timing.batch}, {where}"] = timing.wall_ms
    return costs
