"""Finds every problem of a set of questions in one pass: in its files, its videos and the parts asked about.

The readers that training uses are run with a list instead of an exception at their end.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from framecast.data.images import read_image
from framecast.data.problems import AnnotationError, Problem
from framecast.data.question_records import Question, kind_of
from framecast.data.video import probe
from framecast.data.video_questions import read_questions

SLACK_S = 0.5  # a part may end so much later than its video, since ends are rounded


@dataclass
class QuestionReport:
    """What a set of questions holds and what is wrong with it."""

    root: Path
    layout: str = ""
    problems: list[Problem] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=dict)  # file -> questions about it
    notes: list[str] = field(default_factory=list)

    figures = ("questions", "files", "types", "missing_questions")  # of the summary, for one line

    @property
    def ok(self) -> bool:
        return not self.problems

    def summary(self) -> dict[str, Any]:
        """Figures for a person or for JSON; length of answers in words."""
        kinds = Counter(question.type for question in self.questions)
        files = {question.video for question in self.questions if question.video is not None}
        words = [len(answer.split()) for question in self.questions for _, answer in question.turns]
        return {
            "root": str(self.root),
            "layout": self.layout,
            "problems": len(self.problems),
            "questions": len(self.questions),
            "turns": len(words),
            "multiple_choice": sum(bool(question.options) for question in self.questions),
            "files": len(files),
            "kinds": dict(Counter(question.kind for question in self.questions)),
            "types": len(kinds),
            "questions_per_type": dict(sorted(kinds.items())),
            "answers": len({a for question in self.questions for _, a in question.turns}),
            "words_per_answer": round(sum(words) / len(words), 2) if words else None,
            "missing_files": len(self.missing),
            "missing_questions": sum(self.missing.values()),
            "notes": self.notes,
        }


def inspect_questions(
    root: str | Path, layout: str = "auto", *, videos: str | Path | None = None, split: str | None = None
) -> QuestionReport:
    """Read every question and every video or image that is asked about.

    Arguments as for `open_video_qa`. Nothing but a bug raises; a set that cannot be opened is a problem too.
    """
    report = QuestionReport(Path(root))
    found: list[Problem] = []
    try:
        readings = read_questions(root, layout, videos=videos, split=split, report=found.append)
    except (ValueError, OSError) as error:
        report.problems = [*found, _problem(error, Path(root))]
        return report
    for reading in readings:
        report.layout = reading.layout
        report.questions += reading.questions
        report.missing |= {name: len(lines) for name, lines in reading.media.missing.items()}
        reading.media.report_missing(reading.listed_in, found.append)
    if not (report.questions or found):
        found.append(Problem(Path(root), None, "holds no questions"))
    _check_files(report.questions, found)
    _note_repeats(report)
    report.problems = list(dict.fromkeys(found))
    return report


def _check_files(questions: list[Question], problems: list[Problem]) -> None:
    """Decode every image, read the packets of every video, place every part in its video."""

    def look(path: Path) -> float | Exception:
        """Length of the video; 0 for an image."""
        try:
            if kind_of(path) == "video":
                return probe(path).duration_s
            read_image(path)
            return 0.0
        except (ValueError, OSError) as error:
            return error

    paths = list(dict.fromkeys(question.video for question in questions if question.video is not None))
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        seen = dict(zip(paths, pool.map(look, paths), strict=True))
    problems += [_problem(error, path) for path, error in seen.items() if isinstance(error, Exception)]
    for question in questions:
        length = seen.get(question.video) if question.video is not None else None
        if not isinstance(length, float) or (question.start_s is None and question.end_s is None):
            continue
        assert question.video is not None
        name = f"question {question.id or question.question!r}"
        if question.kind == "image":
            problems.append(Problem(question.video, None, f"{name} asks about a part of an image"))
        elif (question.start_s or 0) >= length or (question.end_s or 0) > length + SLACK_S:
            part = f"second {question.start_s or 0:g} to {question.end_s or length:g}"
            problems.append(Problem(question.video, None, f"{name} asks about {part} of {length:.2f} s"))


def _note_repeats(report: QuestionReport) -> None:
    """Equal questions about the same thing: with equal answers they count twice, with others one is wrong."""
    answers: defaultdict[tuple[Any, ...], list[str]] = defaultdict(list)
    for q in report.questions:
        answers[q.video, q.start_s, q.end_s, q.type, q.question.casefold(), q.options].append(
            q.answer.casefold()
        )
    twice = sum(len(found) - len(set(found)) for found in answers.values())
    several = sum(len(set(found)) > 1 for found in answers.values())
    ids = Counter(q.id for q in report.questions if q.id)
    if again := sum(count > 1 for count in ids.values()):
        report.notes.append(f"{again} ids stand there more than once")
    if twice:
        report.notes.append(f"{twice} questions stand there twice, with the same answer")
    if several:
        report.notes.append(f"{several} questions about the same video have several answers")


def _problem(error: Exception, path: Path) -> Problem:
    if isinstance(error, AnnotationError):
        return error.problem
    return Problem(path, None, str(error).removeprefix(f"{path}: "))
