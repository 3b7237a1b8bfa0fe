"""`predict` with a recognition model: which class an image or a clip shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from framecast.cli.output import each_file, no_empty_folder, show, show_failures, show_json
from framecast.structures import KeptTokens, Labels

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
    show_tokens: bool = False,
    pages: bool,
    as_json: bool,
) -> None:
    """Print the top classes of every file; write labels.csv, labels.json and a page with pictures."""
    from framecast.data.label_tables import label_records
    from framecast.infer.classifier import Classifier
    from framecast.infer.kept_tokens import check_adaptive

    if show_tokens and not pages:
        raise ValueError("--show-tokens draws pictures and --no-pages draws none; leave one of them out")
    classify = Classifier(model, protocol=protocol, device=device)
    if show_tokens:
        check_adaptive(classify.model, model)
    sources = find_inputs(inputs, classify.protocol.kind)

    def look(path: Path) -> Prediction:
        return Prediction(*classify.with_tokens(path)) if show_tokens else Prediction(classify(path))

    results, failed = each_file(sources, look, "classifying", quiet=as_json)
    facts = {
        "command": command,
        "model": f"{classify.model.registered_name} from {model}",
        "views": f"{classify.protocol.name}: {classify.protocol.description}",
    }
    with no_empty_folder(out):
        written = write_labels(results, out, facts, classify.protocol.kind, pages) if results else []
    if as_json:
        rows = [row for result in results for row in label_records(result.labels)]
        kept = {"tokens": [result.record() for result in results]} if show_tokens else {}
        show_json({"labels": rows, **kept, "failed": failed, "written": written})
    else:
        for result in results:
            show(result.line())
        names = [path.name for path in written if path.parent == out]
        if drawings := len(written) - len(names):
            names.append(f"tokens/ ({drawings} {'pictures' if drawings > 1 else 'picture'})")
        show(f"wrote {', '.join(names)} into {out}" if written else "nothing was written")
    show_failures(failed)
    if failed:
        raise typer.Exit(1)


@dataclass
class Prediction:
    """What a model says of a file, and which patches it kept of it."""

    labels: Labels
    kept: KeptTokens | None = None

    def line(self) -> str:
        shown = ", ".join(f"{name} {probability:.0%}" for name, probability in self.labels.top(3))
        if self.kept is None:
            return f"{self.labels.source}: {shown}"
        left = f"{self.kept.counts[-1]} of {self.kept.num_patches} patches left"
        return f"{self.labels.source}: {shown}; {left}, {self.kept.macs_share:.0%} of the multiply-adds"

    def record(self) -> dict[str, Any]:
        """Patches after each stage, as `--json` prints them."""
        assert self.kept is not None
        return {
            "file": self.labels.source,
            "patches": self.kept.num_patches,
            "blocks": self.kept.blocks,
            "left": self.kept.counts,
            "macs_share": self.kept.macs_share,
        }


def find_inputs(inputs: Sequence[str], kind: str) -> list[Path]:
    """Images or videos of files, folders and patterns, each once."""
    from framecast.data.files import find_files
    from framecast.data.images import IMAGE_SUFFIXES
    from framecast.data.video import SUFFIXES

    suffixes = IMAGE_SUFFIXES if kind == "image" else SUFFIXES
    found = [path for text in inputs for path in find_files(text, suffixes, f"{kind}s")]
    return list(dict.fromkeys(found))


def write_labels(
    results: Sequence[Prediction], out: Path, facts: dict[str, str], kind: str, pages: bool
) -> list[Path]:
    from framecast.data.label_tables import write_labels_csv, write_labels_json

    out.mkdir(parents=True, exist_ok=True)
    labels = [result.labels for result in results]
    written = [write_labels_csv(labels, out / "labels.csv"), write_labels_json(labels, out / "labels.json")]
    if pages:
        from framecast.viz.labels import LabelsEntry, write_labels_page

        drawn = draw_kept(results, out / "tokens", facts["model"].split(" from ")[0])
        entries = [
            LabelsEntry(r.labels, thumbnail(Path(r.labels.source), kind), kept=r.kept, drawings=drawings)
            for r, drawings in zip(results, drawn, strict=True)
        ]
        written += [path for drawings in drawn for path in drawings.values()]
        written.append(write_labels_page(out / "index.html", entries, facts=facts))
    return written


def draw_kept(results: Sequence[Prediction], folder: Path, model: str) -> list[dict[str, Path]]:
    """Draw which patches were kept of every file, where that is known; files by what they are."""
    from framecast.progress import track
    from framecast.viz.tokens import draw_tokens

    drawn: list[dict[str, Path]] = [{} for _ in results]
    names = distinct_names([Path(result.labels.source).stem for result in results])
    for i, result in enumerate(track(results, "drawing")):
        if result.kept is None:
            continue
        moving = {"as GIF": ".gif", "as MP4": ".mp4"} if result.kept.left.shape[1] > 1 else {}
        title = f"Which patches {model} keeps of {Path(result.labels.source).name}"
        for kind, suffix in ({"All stages as PNG": ".png"} | moving).items():
            drawn[i][kind] = draw_tokens(result.kept, folder / f"{names[i]}{suffix}", title=title)
    return drawn


def distinct_names(names: Sequence[str]) -> list[str]:
    """The names, with " (2)", " (3)", … where one comes again."""
    taken: dict[str, None] = {}
    for name in names:
        free = (name if n == 1 else f"{name} ({n})" for n in range(1, len(names) + 1))
        taken[next(new for new in free if new not in taken)] = None
    return list(taken)


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
