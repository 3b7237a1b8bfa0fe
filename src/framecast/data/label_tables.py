"""Classes of images and clips as files: one row per class in CSV, one object per file in JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from framecast.structures import Labels
from framecast.writing import write_file

COLUMNS = ("file", "rank", "label", "probability")


def label_records(labels: Labels, count: int = 5) -> list[dict[str, Any]]:
    """The most probable classes as rows of a table, best first."""
    return [
        {"file": labels.source, "rank": rank, "label": name, "probability": round(probability, 6)}
        for rank, (name, probability) in enumerate(labels.top(count), start=1)
    ]


def write_labels_csv(results: Iterable[Labels], path: Path, count: int = 5) -> Path:
    """Columns file, rank, label, probability; `count` rows per file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for labels in results:
        writer.writerows(label_records(labels, count))
    return write_file(path, text.getvalue())


def write_labels_json(results: Iterable[Labels], path: Path) -> Path:
    """All probabilities of every file, by class name."""
    values = [
        {
            "file": labels.source,
            "label": labels.top(1)[0][0],
            "probabilities": {
                name: round(float(p), 6) for name, p in zip(labels.classes, labels.probabilities, strict=True)
            },
        }
        for labels in results
    ]
    return write_file(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
