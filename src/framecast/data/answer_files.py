"""Predicted answers as files: one JSON object a line with id, question, answer, pred."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from framecast.data.problems import AnnotationError, Problem, refuse
from framecast.data.question_files import read_records
from framecast.metrics.judging import JudgeItem
from framecast.writing import write_file


def write_answers(items: Iterable[JudgeItem], path: str | Path) -> Path:
    """Write predictions as the release writes them, with the type of the question in addition."""
    lines = []
    for item in items:
        line = {"id": item.id, "question": item.question, "answer": item.answer, "pred": item.predicted}
        extra = {"type": item.type, "question2": item.question2, "pred2": item.predicted2}
        lines.append(json.dumps(line | {k: v for k, v in extra.items() if v}, ensure_ascii=False))
    return write_file(path, "".join(f"{line}\n" for line in lines))


def read_answers(paths: str | Path | Sequence[str | Path]) -> list[JudgeItem]:
    """Predictions of one file, or of the shards of several workers, one after the other.

    A question that stands in several shards with the same prediction counts once. Raises AnnotationError for
    lines without id, question, answer or pred, and where predictions of one id differ.
    """
    several = [paths] if isinstance(paths, str | Path) else list(paths)
    found: dict[str, JudgeItem] = {}
    for path in map(Path, several):
        for record in read_records(path):
            values = record.values
            if "pred" not in values or not isinstance(values["pred"], str):
                raise AnnotationError(record.problem("has no pred, the predicted answer"))
            texts = [record.text(key, refuse) for key in ("id", "question", "answer")]
            others = [str(values.get(key, "")) for key in ("type", "question2", "pred2")]
            item = JudgeItem(*texts, values["pred"], *others)
            if found.setdefault(item.id, item) != item:
                raise AnnotationError(
                    Problem(path, record.line, f"question {item.id!r} has another prediction above")
                )
    return list(found.values())
