"""`predict` with a recognition model: which class an image or a clip shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from framecast.cli.output import each_file, no_empty_folder, show, show_failures, show_json
from framecast.structures import Labels

THUMBNAIL = 240  # pixels, longest side


def task_of(model: str) -> str:
    """The task that a saved model was trained for, without building it; "" for a bare backbone."""
    from framecast.checkpoints import model_folder, read_about

    return read_about(model_folder(model)).get("card", {}).get("task", "")


def predict_labels(
    inputs: Sequence[str],
    model: str,
    protocol: str | None,
    out: Path,
    device: str,
    command: str,
    *,
    pages: bool,
    as_json: bool,
) -> None:
    """Print the top classes of every file; write labels.csv, labels.json and a page with pictures."""
    from framecast.data.label_tables import label_records
    from framecast.infer.classifier import Classifier

    classify = Classifier(model, protocol=protocol, device=device)
    sources = find_inputs(inputs, classify.protocol.kind)
    results, failed = each_file(sources, classify, "classifying", quiet=as_json)
    facts = {
        "command": command,
        "model": f"{classify.model.registered_name} from {model}",
        "views": f"{classify.protocol.name}: {classify.protocol.description}",
    }
    with no_empty_folder(out):
        written = write_labels(results, out, facts, classify.protocol.kind, pages) if results else []
    if as_json:
        rows = [row for labels in results for row in label_records(labels)]
        show_json({"labels": rows, "failed": failed, "written": written})
    else:
        for labels in results:
            shown = ", ".join(f"{name} {probability:.0%}" for name, probability in labels.top(3))
            show(f"{labels.source}: {shown}")
        show(f"wrote {', '.join(p.name for p in written)} into {out}" if written else "nothing was written")
    show_failures(failed)
    if failed:
        raise typer.Exit(1)


def find_inputs(inputs: Sequence[str], kind: str) -> list[Path]:
    """Images or videos of files, folders and patterns, each once."""
    from framecast.data.files import find_files
    from framecast.data.images import IMAGE_SUFFIXES
    from framecast.data.video import SUFFIXES

    suffixes = IMAGE_SUFFIXES if kind == "image" else SUFFIXES
    found = [path for text in inputs for path in find_files(text, suffixes, f"{kind}s")]
    return list(dict.fromkeys(found))


def write_labels(
    results: Sequence[Labels], out: Path, facts: dict[str, str], kind: str, pages: bool
) -> list[Path]:
    from framecast.data.label_tables import write_labels_csv, write_labels_json

    out.mkdir(parents=True, exist_ok=True)
    written = [write_labels_csv(results, out / "labels.csv"), write_labels_json(results, out / "labels.json")]
    if pages:
        from framecast.viz.labels import LabelsEntry, write_labels_page

        entries = [LabelsEntry(labels, thumbnail(Path(labels.source), kind)) for labels in results]
        written.append(write_labels_page(out / "index.html", entries, facts=facts))
    return written


def thumbnail(path: Path, kind: str) -> Any:
    """(H, W, 3) uint8: the image, or the middle frame of the clip."""
    if kind == "image":
        from framecast.data.images import read_image

        picture = read_image(path)
    else:
        from framecast.data.video import probe, read_frames

        info = probe(path)
        scale = THUMBNAIL / max(info.width, info.height)
        size = (max(2, round(info.height * scale / 2) * 2), max(2, round(info.width * scale / 2) * 2))
        picture = read_frames(path, [info.duration_s / 2], size=size).frames[0]
    return picture.permute(1, 2, 0).numpy()
