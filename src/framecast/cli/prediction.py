"""`predict` and `demo`: from videos to timelines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from framecast.cli.output import AsJson, Device, pick_device, show, show_json
from framecast.cli.results import Result, write_results

Features = Annotated[str | None, typer.Option(help="HEIGHTxWIDTH of the frames the backbone sees.")]


def predict(
    inputs: Annotated[list[str], typer.Argument(help="Videos, folders, quoted patterns or feature files.")],
    model: Annotated[str | None, typer.Option(help="Run folder, saved model or hub id.")] = None,
    unsupervised: Annotated[bool, typer.Option("--unsupervised", help="Label-free segments, no model.")] = False,
    segments: Annotated[int | None, typer.Option(help="Label-free: how many different segments.", min=1)] = None,
    min_segment: Annotated[float, typer.Option(help="Label-free: shortest segment in seconds.", min=0)] = 1.0,
    backbone: Annotated[str, typer.Option(help="Label-free: backbone of the features.")] = "vit_small_dinov2",
    weights: Annotated[str | None, typer.Option(help="Where the backbone's weights are.")] = None,
    size: Features = None,
    step: Annotated[float, typer.Option(help="Label-free: seconds between features.", min=1e-3)] = 0.2,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("predictions"),
    pages: Annotated[bool, typer.Option(help="Draw pictures and write HTML pages.")] = True,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say which action runs from when to when: CSV, JSON, timeline picture, HTML report.

    framecast predict cooking.mp4 --model runs/kitchen
    framecast predict "holiday/*.mp4" --unsupervised
    """
    if (model is None) == (not unsupervised):
        raise ValueError("pass either --model RUN for a trained model or --unsupervised for label-free segments")
    sources = find_sources(inputs)
    where = pick_device(device)
    if unsupervised:
        segment, facts = label_free(backbone, weights, size, step, segments, min_segment, where)
    else:
        assert model is not None
        segment, facts = trained(model, weights, where)
    facts["command"] = "framecast predict " + " ".join(inputs) + (f" --model {model}" if model else " --unsupervised")
    results, failed = segment_all(sources, segment, as_json)
    written = write_results(results, out, facts, pages=pages) if results else []
    if as_json:
        from framecast.data.tables import segment_records

        rows = [row for result in results for row in segment_records(result.segments)]
        show_json({"segments": rows, "failed": failed, "written": [str(p) for p in written]})
    else:
        for result in results:
            show(f"{result.segments.video}: {describe(result.segments)}")
        show(f"wrote {', '.join(p.name for p in written)} into {out}" if written else "nothing was written")
        for name, reason in failed.items():
            show(f"failed: {name}: {reason}")
    if failed:
        raise typer.Exit(1)


Segmenter = Callable[[Path], Result]


def find_sources(inputs: Iterable[str]) -> list[Path]:
    """Videos and feature files of files, folders and patterns; a folder without videos may hold features."""
    from framecast.data.video import find_videos
    from framecast.infer.predictor import FEATURE_SUFFIXES

    found: list[Path] = []
    for text in inputs:
        path = Path(text)
        if path.suffix in FEATURE_SUFFIXES:
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such feature file")
            found.append(path)
            continue
        tracks = sorted(p for p in path.glob("*") if p.suffix in FEATURE_SUFFIXES) if path.is_dir() else []
        try:
            found += find_videos(text)
        except (FileNotFoundError, ValueError):
            if not tracks:
                raise
            found += tracks
    names = [p.stem for p in found]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f"several inputs are called {twice[0]!r}, their results would overwrite each other; rename one")
    return found


def label_free(
    backbone: str,
    weights: str | None,
    size: str | None,
    step_s: float,
    num_segments: int | None,
    min_segment_s: float,
    device: str,
) -> tuple[Segmenter, dict[str, str]]:
    """Temporally weighted clustering of backbone features; nothing is trained."""
    from framecast.cli.data import parse_size
    from framecast.data.features import load_track
    from framecast.infer.backbone import feature_settings, open_backbone
    from framecast.infer.frame_features import extract_features, provenance_of
    from framecast.infer.predictor import FEATURE_SUFFIXES
    from framecast.infer.unsupervised import segment_unsupervised

    settings = feature_settings(backbone, weights, image_size=parse_size(size), step_s=step_s)
    opened: list[Any] = []

    def segment(path: Path) -> Result:
        if path.suffix in FEATURE_SUFFIXES:
            track = load_track(path)
        else:
            if not opened:
                model = open_backbone(backbone, weights)[0]
                opened.extend([model, provenance_of(model, settings)])
            track = extract_features(opened[0], path, settings, device, provenance=opened[1])
        found = segment_unsupervised(track, num_segments, min_segment_s=min_segment_s)
        named = type(found)(**{**vars(found), "video": path.stem})
        return Result(path, named, track.provenance)

    facts = {
        "method": "label-free: temporally weighted clustering of frame features (TW-FINCH)",
        "backbone": f"{backbone}, weights from {settings.weights}",
    }
    return segment, facts


def trained(model: str, weights: str | None, device: str) -> tuple[Segmenter, dict[str, str]]:
    from framecast.infer.predictor import Predictor

    predictor = Predictor(model, weights=weights, device=device)

    def segment(path: Path) -> Result:
        return Result(path, predictor(path), predictor.model.card.features)  # ty: ignore[unresolved-attribute]

    return segment, {"model": f"{predictor.model.registered_name} from {model}"}  # ty: ignore[unresolved-attribute]


def segment_all(sources: list[Path], segment: Segmenter, quiet: bool) -> tuple[list[Result], dict[str, str]]:
    """Results, and the reason for every video that could not be read; one bad video does not stop the others."""
    from framecast.cli.progress import track

    results, failed = [], {}
    for path in track(sources, "segmenting", quiet=quiet):
        try:
            results.append(segment(path))
        except (ValueError, OSError) as error:
            if len(sources) == 1:
                raise
            failed[str(path)] = str(error)
    return results, failed


def describe(segments: Any) -> str:
    """ "0:00 pour, 0:12 stir, …" """
    limits = segments.limits_s
    parts = []
    for i, name in enumerate(segments.names):
        when = f"{int(limits[i, 0]) // 60}:{int(limits[i, 0]) % 60:02d}" if limits is not None else f"frame {segments.starts[i]}"
        parts.append(f"{when} {name}")
    return ", ".join(parts[:12]) + (f", … ({len(parts)} segments)" if len(parts) > 12 else "")


def demo(
    data: Annotated[Path | None, typer.Option("--data", help="Folder with videos/ and labels: train and show.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("demo"),
    epochs: Annotated[int, typer.Option(help="With --data: passes over the training videos.", min=1)] = 40,
    device: Device = "auto",
) -> None:
    """Real video to a timeline picture and an HTML report; with --data, train on that folder and show it."""
    from framecast.cli import demonstration

    if data is None:
        demonstration.label_free_demo(out, pick_device(device))
    else:
        demonstration.supervised_demo(data, out, epochs, pick_device(device))
