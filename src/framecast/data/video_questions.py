"""Questions about videos from the public data sets and from users' own files.

    data = open_video_qa("Activitynet_Zero_Shot_QA")                       # a layout of question_layouts.py
    data = open_video_qa("questions.csv")                                  # video,question,answer
    data = open_instructions("train_json/videochatgpt_tune_.json", "train")
    data[0].prompt, data[0].answer

Sources: Video-ChatGPT (Maaz et al., ACL 2024, https://arxiv.org/abs/2306.05424) for the folders of the four
open-ended sets, ActivityNet-QA (Yu et al., AAAI 2019, https://arxiv.org/abs/1906.02467), NExT-QA (Xiao et
al., CVPR 2021, https://arxiv.org/abs/2105.08276), Valley (https://arxiv.org/abs/2306.07207).
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from framecast.data.problems import Report, refuse
from framecast.data.question_files import beginning, read_records
from framecast.data.question_layouts import (
    ASPECTS,
    PREFIXES,
    SUFFIXES,
    TABLE_NAMES,
    VIDEO_FOLDERS,
    Reader,
    Reading,
    read_instructions,
    read_lines_of_questions,
    read_nextqa_csv,
    read_own,
    read_parallel,
    read_video_chatgpt,
)
from framecast.data.question_records import (
    MediaFolder,
    Question,
    QuestionKind,
    QuestionSet,
    by_clip,
    split_by_source,
    with_options,
)
from framecast.registry import did_you_mean
from framecast.writing import write_file

__all__ = [
    "QUESTION_LAYOUTS",
    "Question",
    "QuestionKind",
    "QuestionSet",
    "by_clip",
    "is_question_set",
    "open_instructions",
    "open_video_qa",
    "read_questions",
    "split_by_source",
    "with_options",
    "write_questions",
]

Missing = Literal["raise", "leave-out", "keep"]
QUESTION_LAYOUTS = (*sorted(VIDEO_FOLDERS), "nextqa_mc", "video_chatgpt", "instructions", "questions")
SPLITS = ("test", "val", "validation", "train")


def open_video_qa(
    root: str | Path,
    layout: str = "auto",
    *,
    videos: str | Path | None = None,
    split: str | None = None,
    missing: Missing = "raise",
) -> QuestionSet:
    """Questions of a data set from its folder or file.

    layout: a name from question_layouts.py, "auto" looks at what is there. videos: folder of the videos where
    it is not the usual one. split: "test", "val" or "train"; None = the first of them that is there (users'
    own files: all). missing: what to do about videos that are not there: "raise", "leave-out" their questions
    (and list them in `.missing`), or "keep" the texts without looking for any video.

    Raises FileNotFoundError for missing files, ValueError for what is wrong, with file and line.
    """
    if missing not in ("raise", "leave-out", "keep"):
        raise ValueError(f"missing is {missing!r}; it must be raise, leave-out or keep")
    readings = read_questions(root, layout, videos=videos, split=split, look=missing != "keep")
    if missing == "raise":
        for reading in readings:
            _refuse_missing(reading)
    absent = {name: len(lines) for reading in readings for name, lines in reading.media.missing.items()}
    questions = tuple(question for reading in readings for question in reading.questions)
    return QuestionSet(questions, Path(root), readings[0].layout, tuple(absent), sum(absent.values()))


def open_instructions(
    path: str | Path, root: str | Path | None = None, *, missing: Missing = "raise"
) -> QuestionSet:
    """Talks about videos, images or nothing in the format of Valley and Video-ChatGPT.

    root: folder below which the records' paths lie, None = that of the file, or above it where the file lies
    in `train_json`. missing: as for `open_video_qa`.
    """
    return open_video_qa(path, "instructions", videos=root, missing=missing)


def _refuse_missing(reading: Reading) -> None:
    absent = reading.media.missing
    if absent:
        some = ", ".join(map(repr, list(absent)[:5])) + (", …" if len(absent) > 5 else "")
        count = sum(map(len, absent.values()))
        raise FileNotFoundError(
            f"{reading.listed_in}: {len(absent)} of the files that {count} questions ask about are not in "
            f"{reading.media.folder} "
            f'or there twice: {some}; add them, name their folder with videos=, or pass missing="leave-out"'
        )


def read_questions(
    root: str | Path,
    layout: str = "auto",
    *,
    videos: str | Path | None = None,
    split: str | None = None,
    look: bool = True,
    report: Report = refuse,
) -> list[Reading]:
    """What the files hold, a reading per file; missing videos are in `reading.media.missing`.

    look=False: videos are not looked for.
    """
    root = Path(root)
    place = _find(root, layout, split, report)
    readings, count = [], 0
    for path in place.files:
        folder = Path(videos) if videos is not None else _video_folder(place.layout, path)
        if videos is not None and look and not folder.is_dir():
            raise FileNotFoundError(f"{folder} does not exist; videos= names the folder of the videos")
        media = MediaFolder(folder, prefixes=PREFIXES.get(place.layout, ("",)), known=look)
        reading = Reading(place.layout, path, media, first=count)
        records = [] if place.read is read_parallel else read_records(path, report)
        place.read(reading, records, place.split, report)
        count += len(records)
        readings.append(reading)
    return readings


def is_question_set(root: str | Path) -> bool:
    """Whether a folder or file holds questions, as far as names and the beginnings of files tell."""
    try:
        _find(Path(root), "auto", None, refuse)
    except AmbiguousQuestions:
        return True
    except (ValueError, OSError):
        return False
    return True


# --- What lies where ---------------------------------------------------------------------------------------


class AmbiguousQuestions(ValueError):
    """A folder holds several sets of questions."""


@dataclass(frozen=True)
class _Place:
    """Which files of a folder are read how."""

    layout: str
    files: tuple[Path, ...]
    read: Reader
    split: str = ""  # rows of it are picked, "" = all


def _find(root: Path, layout: str, split: str | None, report: Report) -> _Place:
    if layout not in ("auto", *QUESTION_LAYOUTS):
        near = did_you_mean(layout, QUESTION_LAYOUTS)
        raise ValueError(f"unknown layout {layout!r}{near}; there are {', '.join(QUESTION_LAYOUTS)}")
    if not root.exists():
        raise FileNotFoundError(
            f"{root} does not exist; give a file of questions or the folder that holds it"
        )
    if root.is_file():
        return _place_of_file(root, layout, split)
    found = [place for place in _places(root, layout, split) if layout in ("auto", place.layout)]
    if not found:
        what = f"questions in layout {layout!r}" if layout != "auto" else "questions"
        raise FileNotFoundError(
            f"{root}: no {what}{f' of split {split!r}' if split else ''}; a folder holds "
            "for example test_q.json "
            "and test_a.json, or questions.csv with the columns video,question,answer"
        )
    layouts = {place.layout for place in found}
    if len(layouts) > 1:
        raise AmbiguousQuestions(
            f"{root} holds several sets of questions; pass layout={' or '.join(sorted(layouts))}"
        )
    return found[0]


def _places(root: Path, layout: str, split: str | None) -> list[_Place]:
    """Every set in a folder, the wanted or first split of each."""
    splits = (split,) if split else SPLITS
    found: list[_Place] = []
    if first := _first(root / f"{name}_q.json" for name in splits):
        own_layout = layout if layout in VIDEO_FOLDERS else _layout_by_videos(root)
        found.append(_Place(own_layout, (first,), read_parallel))
    for name_of_set in ("activitynet_qa", "nextqa_mc"):
        names = [f"{name_of_set}_{name}.jsonl{packed}" for name in splits for packed in ("", ".gz")]
        if first := _first(root / name for name in names):
            found.append(_Place(name_of_set, (first,), read_lines_of_questions))
    if (first := _first(root / f"{name}.csv" for name in splits)) and _is_nextqa(first):
        found.append(_Place("nextqa_mc", (first,), read_nextqa_csv))
    aspects = tuple(p for aspect in ASPECTS if (p := root / f"{aspect}_qa.json").is_file())
    if aspects:
        found.append(_Place("video_chatgpt", aspects, read_video_chatgpt))
    own = [f"{name}{suffix}" for name in TABLE_NAMES for suffix in SUFFIXES]
    by_split = [f"{name}{suffix}" for name in splits for suffix in SUFFIXES]
    for names, picked in ((by_split, ""), (own, split or "")):
        first = _first(p for name in names if _kind_of_file(p := root / name) == "questions")
        if first and not any(first in place.files for place in found):
            found.append(_Place("questions", (first,), read_own, picked))
            break
    talks = [p for folder in (root, root / "train_json") for p in sorted(folder.glob("*.json"))]
    talks = tuple(p for p in talks if _kind_of_file(p) == "instructions")
    if talks:
        found.append(_Place("instructions", talks, read_instructions))
    return found


def _first(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _place_of_file(path: Path, layout: str, split: str | None) -> _Place:
    if not path.name.lower().endswith(SUFFIXES):
        raise ValueError(f"{path} is no file of questions; it must end in {', '.join(SUFFIXES)}")
    if path.name.endswith("_q.json") and layout in ("auto", *VIDEO_FOLDERS):
        return _Place(layout if layout != "auto" else _layout_by_videos(path.parent), (path,), read_parallel)
    lines = next((name for name in ("activitynet_qa", "nextqa_mc") if path.name.startswith(name)), "")
    if (layout == "auto" and lines) or (layout in ("activitynet_qa", "nextqa_mc") and ".jsonl" in path.name):
        return _Place(layout if layout != "auto" else lines, (path,), read_lines_of_questions)
    if layout in ("auto", "nextqa_mc") and _is_nextqa(path):
        return _Place("nextqa_mc", (path,), read_nextqa_csv)
    kind = _kind_of_file(path) if layout == "auto" else layout
    readers = {"instructions": read_instructions, "video_chatgpt": read_video_chatgpt, "questions": read_own}
    if kind not in readers:
        wanted = (
            "records with video, question and answer"
            if layout == "auto"
            else f"questions in layout {layout!r}"
        )
        raise ValueError(f"{path}: holds no {wanted}")
    return _Place(kind, (path,), readers[kind], (split or "") if kind == "questions" else "")


def _kind_of_file(path: Path) -> str:
    """Layout of a single file by its beginning, "" where it holds no questions."""
    text = beginning(path) if path.is_file() else ""
    if path.suffix.lower() == ".csv":
        header = next(csv.reader([text.lstrip("\ufeff").split("\n", 1)[0]]), [])
        return "questions" if "question" in [cell.strip().lower() for cell in header] else ""
    if '"conversations"' in text:
        return "instructions"
    if '"video_name"' in text and ('"Q"' in text or '"Q1"' in text):
        return "video_chatgpt"
    return "questions" if '"question"' in text or '"turns"' in text else ""


def _is_nextqa(path: Path) -> bool:
    if path.suffix.lower() != ".csv":
        return False
    header = beginning(path).split("\n", 1)[0].strip().lstrip("\ufeff").lower().split(",")
    return {"video", "question", "answer", "a0", "a4"} <= set(header)


def _layout_by_videos(root: Path) -> str:
    """Which of the four sets with parallel lists: by the folder of its videos, or by its own name."""
    for layout in ("activitynet_qa", "msrvtt_qa", "tgif_qa", "msvd_qa"):
        if (
            layout.removesuffix("_qa") in root.resolve().name.lower()
            or (root / VIDEO_FOLDERS[layout]).is_dir()
        ):
            return layout
    raise AmbiguousQuestions(
        f"{root} has none of the folders {', '.join(VIDEO_FOLDERS.values())}, so its set cannot be told; "
        f"pass layout={' or '.join(sorted(VIDEO_FOLDERS))}, and videos= for another folder"
    )


def _video_folder(layout: str, path: Path) -> Path:
    """Where the videos of a file of questions lie."""
    folder = path.parent
    if layout in VIDEO_FOLDERS and not path.name.startswith("activitynet_qa"):
        return folder / VIDEO_FOLDERS[layout]
    if layout == "instructions":
        return folder.parent if folder.name == "train_json" else folder
    usual = {"nextqa_mc": ("videos", "NExTVideo"), "video_chatgpt": ("Test_Videos", "videos")}
    names = usual.get(layout, ("all_test", "videos") if layout == "activitynet_qa" else ())
    return next((folder / name for name in names if (folder / name).is_dir()), folder)


# --- Writing -----------------------------------------------------------------------------------------------


def write_questions(questions: Iterable[Question], path: str | Path, root: str | Path | None = None) -> Path:
    """Write questions as JSON that `open_video_qa` reads back.

    root: folder from which the paths of the videos are counted, None = that of the file.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise ValueError(f"{path}: questions are written as .json")
    base = Path(root) if root is not None else path.parent
    entries = [_entry(question, base) for question in questions]
    text = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    return write_file(path, f"[\n{text}\n]\n")


def _entry(question: Question, base: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    if question.video is not None:
        entry["video"] = Path(os.path.relpath(question.video, base)).as_posix()
    if len(question.turns) == 1:
        entry |= {"question": question.question, "answer": question.answer}
    else:
        entry["turns"] = [list(turn) for turn in question.turns]
    if question.options:
        entry |= {"options": list(question.options), "answer_index": question.answer_index}
    for key in ("id", "type", "group", "start_s", "end_s"):
        if getattr(question, key) not in ("", None):
            entry[key] = getattr(question, key)
    return entry
