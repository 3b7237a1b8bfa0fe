"""`check-data`, `prepare`, `features` and `import-weights`: what goes in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from framecast.cli.output import (
    AsJson,
    Out,
    check_out,
    no_empty_folder,
    pick_device,
    show,
    show_error,
    show_json,
)

Layout = Annotated[
    str,
    typer.Option(help="breakfast, 50salads, gtea, mstcn, csv, questions, … or auto."),
]
TrackFolder = Annotated[str, typer.Option(help="Folder of the feature tracks, below ROOT or a path.")]
Size = Annotated[str | None, typer.Option(help="HEIGHTxWIDTH of the frames the backbone sees.")]
Weights = Annotated[
    str | None, typer.Option(help="The backbone's weights: file, folder, package:… or hub id.")
]


def check_data(
    root: Annotated[
        Path,
        typer.Argument(help="Folder in a standard layout, CSV of segments, questions, or a cube."),
    ],
    layout: Layout = "auto",
    features: TrackFolder = "features",
    as_json: AsJson = False,
) -> None:
    """Find every problem of a data folder or of a cube at once, with file and line."""
    from framecast.data.check import inspect_folder
    from framecast.data.cube_check import inspect_cube, is_cube

    if layout == "auto" and is_cube(root):
        report = inspect_cube(root)
    else:
        report = inspect_folder(root, layout, features=features)
    summary = report.summary()
    if as_json:
        show_json(summary | {"problems": [vars(problem) for problem in report.problems]})
    else:
        for problem in report.problems:
            show(str(problem))
        for note in summary.get("notes", []):
            show(f"note: {note}")
        count = len(report.problems)
        found = f"{count} problem{'s' if count > 1 else ''}" if count else "no problem found"
        figures = ", ".join(f"{summary[key]} {key}" for key in report.figures)
        show(f"{root}: layout {report.layout or 'not recognised'}, {figures}, {found}")
    if not report.ok:
        raise typer.Exit(1)


def prepare(
    cube: Annotated[Path, typer.Argument(help="A cube: its YAML, or a store with a YAML beside it.")],
    out: Out,
    memory_mb: Annotated[
        int, typer.Option(min=16, help="Megabytes of values that may be in memory at a time.")
    ] = 512,
    as_json: AsJson = False,
) -> None:
    """Rewrite a cube of any size in chunks that training reads fast, with statistics for scaling."""
    from framecast.data.cube import open_cube
    from framecast.data.cube_prepare import prepare_cube

    report = prepare_cube(open_cube(cube), out, memory_mb=memory_mb)
    if as_json:
        show_json(report.summary())
        return
    for note in report.notes:
        show(f"note: {note}")
    show(
        f"wrote {report.variables} variables, {report.steps} steps of {report.rows} x {report.columns} "
        f"cells, to {out} in {report.seconds:.1f} s; use it as {out / 'cube.yaml'}"
    )


def features(
    videos: Annotated[str, typer.Argument(help="A video, a folder of videos, or a quoted pattern.")],
    out: Out,
    backbone: Annotated[str, typer.Option(help="A registered backbone.")] = "vit_small_dinov2",
    weights: Weights = None,
    layer: Annotated[int | None, typer.Option(help="Read tokens after this block (0-based).")] = None,
    pooling: Annotated[
        Literal["cls", "mean", "cls+mean"], typer.Option(help="Which tokens make the vector of a frame.")
    ] = "cls+mean",
    size: Size = None,
    step: Annotated[
        float | None, typer.Option(help="Seconds between features; every frame if left out.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Frames that go through the backbone at once.")] = 32,
    devices: Annotated[str, typer.Option(help="One process per device, for example cuda:0,cuda:1.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make existing tracks again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn videos into feature tracks; stopped runs go on where they stopped."""
    from framecast.infer.backbone import backbone_factory, feature_settings
    from framecast.infer.features import extract_folder

    check_out(out)
    settings = feature_settings(
        backbone,
        weights,
        layer=layer,
        pooling=pooling,
        image_size=parse_size(size),
        step_s=step,
        batch_size=batch_size,
    )
    chosen = [pick_device(device.strip()) for device in devices.split(",")]
    with no_empty_folder(out):
        report = extract_folder(
            videos, out, settings, model_factory=backbone_factory, devices=chosen, overwrite=overwrite
        )
        if as_json:
            show_json(vars(report))
        else:
            show(str(report).split("\n")[0])
        for reason in report.failed.values():
            show_error(reason)
        if report.failed:
            raise typer.Exit(1)


def parse_size(text: str | None) -> tuple[int, int] | None:
    """ "112x154" -> (112, 154)."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"size {text!r} is not HEIGHTxWIDTH, for example 224x224")
    return int(parts[0]), int(parts[1])


def import_weights(
    system: Annotated[str, typer.Argument(help="ltcontext, mstcn, vit, …")],
    file: Annotated[str, typer.Argument(help="The official checkpoint: a file, package:… or a hub id.")],
    out: Out,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Settings the file cannot tell: window=64.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring official weights into a framecast model folder; every tensor is accounted for."""
    from yaml import YAMLError

    from framecast.checkpoints import card_of, check_replaceable, save
    from framecast.importing import ImportReport, import_checkpoint
    from framecast.settings import parse_value

    check_out(out)
    check_replaceable(out)
    config = {}
    for item in set_ or []:
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"--set {item!r} is not of the form key=value, for example window=64")
        try:
            config[key.strip()] = parse_value(value)
        except YAMLError:
            raise ValueError(f"--set {item!r}: {value!r} is not a YAML value; quote it") from None
    model = import_checkpoint(system, file, **config)
    report = model.import_report
    assert isinstance(report, ImportReport)
    card = card_of(model)
    card.notes["import"] = {"system": system, "layout": report.layout, "sha256": report.sha256}
    save(model, out, card)
    if as_json:
        show_json(vars(report) | {"model": model.registered_name, "out": out})
    else:
        show(f"{report}\nsha256 {report.sha256}\nwrote {model.registered_name} to {out}")
