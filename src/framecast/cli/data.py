"""`check-data`, `features` and `import-weights`: what goes in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from framecast.cli.output import AsJson, Out, pick_device, show, show_json


def check_data(
    root: Annotated[Path, typer.Argument(help="Folder in a standard layout, or a CSV of segments.")],
    layout: Annotated[str, typer.Option(help="breakfast, 50salads, gtea, mstcn, assembly101, csv or auto.")] = "auto",
    features: Annotated[str, typer.Option(help="Folder of the feature tracks, below ROOT or a path.")] = "features",
    as_json: AsJson = False,
) -> None:
    """Find every problem of a data folder at once, with file and line."""
    from framecast.data.check import inspect_data

    report = inspect_data(root, layout, features=features)
    if as_json:
        show_json(report.summary() | {"problems": [vars(p) for p in report.problems]})
    else:
        for problem in report.problems:
            show(str(problem))
        summary = report.summary()
        show(
            f"{root}: layout {report.layout or 'not recognised'}, {summary['videos']} videos, {summary['frames']} frames, "
            f"{summary['segments']} segments, {summary['classes']} classes, "
            + (f"{len(report.problems)} problems" if report.problems else "no problem found")
        )
    if not report.ok:
        raise typer.Exit(1)


def features(
    videos: Annotated[str, typer.Argument(help="A video, a folder of videos, or a quoted pattern.")],
    out: Out,
    backbone: Annotated[str, typer.Option(help="A registered backbone.")] = "vit_small_dinov2",
    weights: Annotated[str | None, typer.Option(help="File, folder, package:… or hub id.")] = None,
    layer: Annotated[int | None, typer.Option(help="Read tokens after this block (0-based).")] = None,
    pooling: Annotated[Literal["cls", "mean", "cls+mean"], typer.Option()] = "cls+mean",
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH of the frames the backbone sees.")] = None,
    step: Annotated[float | None, typer.Option(help="Seconds between features; every frame if left out.")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    devices: Annotated[str, typer.Option(help="One process per device, for example cuda:0,cuda:1.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make existing tracks again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn videos into feature tracks; stopped runs go on where they stopped."""
    from framecast.data.video import find_videos
    from framecast.infer.backbone import backbone_factory, feature_settings
    from framecast.infer.features import extract_folder

    settings = feature_settings(
        backbone,
        weights,
        layer=layer,
        pooling=pooling,
        image_size=parse_size(size),
        step_s=step,
        batch_size=batch_size,
    )
    report = extract_folder(
        find_videos(videos),
        out,
        settings,
        model_factory=backbone_factory,
        devices=[pick_device(d) for d in devices.split(",")],
        overwrite=overwrite,
    )
    if as_json:
        show_json(vars(report))
    else:
        show(str(report))
    if report.failed:
        raise typer.Exit(report.exit_status)


def parse_size(text: str | None) -> tuple[int, int] | None:
    """ "112x154" -> (112, 154)."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise ValueError(f"size {text!r} is not HEIGHTxWIDTH, for example 224x224")
    return int(parts[0]), int(parts[1])


def import_weights(
    system: Annotated[str, typer.Argument(help="ltcontext, mstcn, vit, …")],
    file: Annotated[str, typer.Argument(help="The official checkpoint.")],
    out: Out,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Settings the file cannot tell: window=64.")] = None,
    as_json: AsJson = False,
) -> None:
    """Bring official weights into a framecast model folder; every tensor is accounted for."""
    from framecast.checkpoints import import_checkpoint, save
    from framecast.train.config import parse_value

    config = {}
    for item in set_ or []:
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"--set {item!r} is not of the form key=value, for example window=64")
        config[key] = parse_value(value)
    model = import_checkpoint(system, file, **config)
    report = model.import_report
    model.card.notes["import"] = {"system": system, "layout": report.layout, "sha256": report.sha256}
    save(model, out)
    if as_json:
        show_json(vars(report) | {"out": str(out)})
    else:
        show(f"{report}\nsha256 {report.sha256}\nwrote {out}")
