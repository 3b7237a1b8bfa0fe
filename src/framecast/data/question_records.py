"""Questions about videos, images or nothing but text, with their answers: one record for every data set."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np

from framecast.data.holdout import assign_shares
from framecast.data.images import IMAGE_SUFFIXES
from framecast.data.problems import Problem, Report
from framecast.data.video import SUFFIXES

QuestionKind = Literal["video", "image", "text"]
Turn = tuple[str, str]  # question and answer
MEDIA = (*SUFFIXES, *IMAGE_SUFFIXES)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Question:
    """A question, or a talk of several, about one video, one image or (kind "text") nothing.

    Raises ValueError where the parts do not belong together.
    """

    video: Path | None  # file of the video or image, None for text
    kind: QuestionKind
    turns: tuple[Turn, ...]  # the answer of a multiple-choice question is the text of the right option
    id: str = ""
    type: str = ""  # "what", "count", "TN": as the data set calls it
    options: tuple[str, ...] = ()  # of multiple choice
    answer_index: int | None = None  # of the right option
    start_s: float | None = None  # the part of the video that is asked about, None = from its beginning
    end_s: float | None = None  # None = to its end
    group: str = ""  # what must stay on one side of a split, "" = the file

    def __post_init__(self) -> None:
        if not self.turns or not all(question.strip() and answer.strip() for question, answer in self.turns):
            raise ValueError(f"{self._name}: a question or an answer is empty")
        if (self.video is None) != (self.kind == "text"):
            needs = "needs a" if self.video is None else "has no"
            raise ValueError(f"{self._name}: kind {self.kind!r} {needs} file")
        if (self.answer_index is None) != (not self.options):
            raise ValueError(f"{self._name}: options and answer_index come together")
        if self.answer_index is not None and not 0 <= self.answer_index < len(self.options):
            raise ValueError(
                f"{self._name}: answer_index is {self.answer_index}, "
                f"but the {len(self.options)} options are counted from 0"
            )
        if not 0 <= (self.start_s or 0) < (float("inf") if self.end_s is None else self.end_s):
            raise ValueError(f"{self._name}: it asks about second {self.start_s} to {self.end_s}")

    @property
    def _name(self) -> str:
        return (
            f"question {self.id!r}"
            if self.id
            else f"the question {self.turns[0][0]!r}"
            if self.turns
            else "?"
        )

    @property
    def question(self) -> str:
        """The first question."""
        return self.turns[0][0]

    @property
    def answer(self) -> str:
        """The answer to the first question."""
        return self.turns[0][1]

    @property
    def prompt(self) -> str:
        """The first question as a model is asked it: with lettered options below where there are any."""
        return with_options(self.question, self.options)

    @property
    def source(self) -> str:
        """What must stay on one side of a split."""
        return self.group or (
            str(self.video) if self.video is not None else f"text {self.id or self.question}"
        )


def with_options(question: str, options: Sequence[str]) -> str:
    """A multiple-choice question as text: an option a line, (A), (B), …, and how to answer."""
    if not options:
        return question
    lines = [f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([question, *lines, "Answer with the letter of the right option."])


@dataclass(frozen=True)
class QuestionSet(Sequence[Question]):
    """The questions of a data set in the order of its file."""

    questions: tuple[Question, ...]
    root: Path
    layout: str = ""
    missing: tuple[str, ...] = ()  # names of the files that are not there; their questions were left out
    num_missing: int = 0  # questions that were left out for it

    def __len__(self) -> int:
        return len(self.questions)

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Question, ...]: ...
    def __getitem__(self, index: int | slice) -> Question | tuple[Question, ...]:
        return self.questions[index]

    def __iter__(self) -> Iterator[Question]:
        return iter(self.questions)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every video and image once."""
        return tuple(dict.fromkeys(q.video for q in self.questions if q.video is not None))

    @property
    def types(self) -> Counter[str]:
        """How many questions there are of each type."""
        return Counter(q.type for q in self.questions)


def by_clip(questions: Iterable[Question]) -> list[tuple[Question, ...]]:
    """Questions about the same part of the same file together, so that it is read and seen once.

    Those without a file stay alone.
    """
    groups: defaultdict[object, list[Question]] = defaultdict(list)
    for i, question in enumerate(questions):
        clip = (question.video, question.start_s, question.end_s)
        groups[i if question.video is None else clip].append(question)
    return [tuple(group) for group in groups.values()]


def split_by_source(
    questions: Sequence[Question], holdout: float = 0.25, seed: int = 0
) -> tuple[list[Question], list[Question]]:
    """Questions to learn from and questions held back: never one video, or group, on both sides.

    The same on every machine. Sources are dealt so that every type of question has its part on both sides.
    Raises ValueError where there are fewer than two sources.
    """
    folder = _common_folder(questions)  # the split is the same wherever the data lies
    sources = [question.source.removeprefix(folder) for question in questions]
    if len(set(sources)) < 2:
        raise ValueError(
            f"{len(questions)} questions about {len(set(sources))} source cannot be split; add videos"
        )
    kinds = {kind: i for i, kind in enumerate(sorted({q.type for q in questions}))}
    names = [f"{source} {i}" for i, source in enumerate(sources)]
    shares = assign_shares(names, [kinds[q.type] for q in questions], sources, holdout, seed)
    held = shares == 1
    if not held.any() or held.all():  # too few sources for this share: the smallest one that suffices
        first = min(sorted(set(sources)), key=sources.count)
        held = np.array([source == first for source in sources])
    learn = [question for question, out in zip(questions, held, strict=True) if not out]
    return learn, [question for question, out in zip(questions, held, strict=True) if out]


def _common_folder(questions: Sequence[Question]) -> str:
    parents = {str(q.video.absolute().parent) for q in questions if q.video is not None}
    relative = any(q.video is not None and not q.video.is_absolute() for q in questions)
    return "" if relative or not parents else f"{os.path.commonpath(sorted(parents))}{os.sep}"


# --- Finding the files -------------------------------------------------------------------------------------


class MediaFolder:
    """Videos and images below a folder by the names that question files use.

    known=False: the files are not looked for; every name is taken for a file in the folder.
    """

    def __init__(self, folder: Path, *, prefixes: Sequence[str] = ("",), known: bool = True) -> None:
        self.folder, self.prefixes, self.known = folder, tuple(prefixes), known
        self.missing: dict[str, list[int | None]] = {}  # name -> lines that ask about it
        self._found: dict[str, Path | None] = {}
        self._places: defaultdict[str, list[Path]] | None = None

    def want(self, name: str, line: int | None = None) -> Path | None:
        """The file of that name, with or without its suffix; None, and remembered, where there is none."""
        if name not in self._found:
            self._found[name] = self._find(name) if self.known else self.folder / name
        path = self._found[name]
        if path is None:
            self.missing.setdefault(name, []).append(line)
        return path

    def _find(self, name: str) -> Path | None:
        if Path(name).suffix.lower() in MEDIA and os.path.isfile(self.folder / name):
            return self.folder / name
        places = self._all_places()
        stem = name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in MEDIA else name
        return next((places[p + stem][0] for p in self.prefixes if len(places.get(p + stem, ())) == 1), None)

    def _all_places(self) -> defaultdict[str, list[Path]]:
        """Files by their stems, with and without folders: one look at the disk instead of many a name."""
        if self._places is None:
            self._places = defaultdict(list)
            for path in sorted(self.folder.rglob("*")) if self.folder.is_dir() else ():
                if path.suffix.lower() in MEDIA and not path.name.startswith("."):
                    for stem in {path.relative_to(self.folder).with_suffix("").as_posix(), path.stem}:
                        self._places[stem].append(path)
        return self._places

    def why_missing(self, name: str) -> str:
        """Not there at all, or there more than once."""
        places = self._all_places()
        count = max(len(places.get(prefix + name, ())) for prefix in self.prefixes)
        return f"{name!r} is {'in several places of' if count > 1 else 'not in'} {self.folder}"

    def report_missing(self, listed_in: Path, report: Report) -> None:
        """One problem for every file that is not there, with the number of questions about it."""
        if len(self.missing) == len(self._found) > 1:
            message = (
                f"none of its {len(self._found)} videos is in {self.folder}; add them or name their folder"
            )
            report(Problem(listed_in, None, message))
            return
        for name, lines in self.missing.items():
            asked = f" ({len(lines)} questions ask about it)" if len(lines) > 1 else ""
            report(Problem(listed_in, lines[0], f"{self.why_missing(name)}{asked}"))


def kind_of(path: Path) -> QuestionKind:
    """Image or video by the suffix."""
    return "image" if path.suffix.lower() in IMAGE_SUFFIXES else "video"
