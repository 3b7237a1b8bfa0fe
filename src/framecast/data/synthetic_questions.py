"""Writes tiny sets of questions in every layout, with videos and true answers, to run everything offline.

Videos show a disc that moves to the left or to the right, grows or shrinks, two or three times in a row; what
is asked can only be answered by who sees the order of time.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from framecast.data.question_clips import Action, Cutting, LabelledClip, Timeline
from framecast.data.question_layouts import PREFIXES, VIDEO_FOLDERS
from framecast.data.question_records import Question
from framecast.data.question_templates import ask_about, clips_of
from framecast.data.question_wordings import Phrasing
from framecast.data.synthetic_recognition import MOTIONS, RATE, synthetic_clip
from framecast.data.video_questions import QUESTION_LAYOUTS, write_questions
from framecast.data.video_writing import write_clip
from framecast.registry import did_you_mean
from framecast.writing import write_file

PHRASING = Phrasing({"to_left": "go left", "to_right": "go right"}, "verbs", who="disc")
FRAMES = 12  # of a motion
CUTTING = Cutting(max_actions=3, clips_per_action=1, longest_s=4, shortest_s=0.5)


def write_question_lookalike(
    layout: str, folder: str | Path, seed: int = 0, *, num_videos: int = 4, size: int = 32
) -> Path:
    """Write a tiny set of questions and its videos and return its folder, which must not exist or be empty.

    layout: one of QUESTION_LAYOUTS, or "segments": recordings with a segments.csv to make questions from. The
    same seed writes the same pixels and words.
    """
    layouts = (*QUESTION_LAYOUTS, "segments")
    if layout not in layouts:
        raise ValueError(
            f"unknown layout {layout!r}{did_you_mean(layout, layouts)}; there are {', '.join(layouts)}"
        )
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not an empty folder; choose another one")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        videos = partial / VIDEO_FOLDERS.get(layout, "videos")
        timelines = _write_videos(videos, PREFIXES.get(layout, ("",))[0], seed, num_videos, size)
        _write_list(layout, partial, timelines, seed)
        if folder.exists():
            folder.rmdir()
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write_videos(folder: Path, prefix: str, seed: int, count: int, size: int) -> list[Timeline]:
    rng = np.random.default_rng(seed)
    timelines = []
    for i in range(count):
        motions = rng.choice(MOTIONS, size=int(rng.integers(2, 4)), replace=False)
        images = [image for motion in motions for image in synthetic_clip(motion, rng, size, FRAMES)]
        path = write_clip(images, folder / f"{prefix}disc{i}.mp4", RATE)
        limits = [FRAMES * k / RATE for k in range(len(motions) + 1)]
        actions = [Action(str(m), *limits[k : k + 2]) for k, m in enumerate(motions)]
        timelines.append(Timeline(path, tuple(actions)))
    return timelines


def _write_list(layout: str, root: Path, timelines: Sequence[Timeline], seed: int) -> None:
    if layout == "segments":
        rows = [f"{t.video.stem},{a.start_s:g},{a.end_s:g},{a.label}" for t in timelines for a in t.actions]
        write_file(root / "segments.csv", "\n".join(["video,start_s,end_s,label", *rows]) + "\n")
        return
    if layout == "questions":
        clips = clips_of(timelines, CUTTING, seed)
        write_questions(ask_about(clips, PHRASING, max_share=1, seed=seed), root / "questions.json")
        return
    clips = [LabelledClip(t.video, None, None, t.actions) for t in timelines]  # these ask about whole videos
    questions = ask_about(clips, PHRASING, types=("first", "last", "yes-no"), max_share=1, seed=seed)
    if layout in VIDEO_FOLDERS:
        _write_parallel(root, layout, questions)
    elif layout == "nextqa_mc":
        _write_nextqa(root, questions)
    elif layout == "video_chatgpt":
        _write_benchmark(root, questions)
    else:
        _write_talks(root, questions)


def _write_parallel(root: Path, layout: str, questions: Sequence[Question]) -> None:
    prefix = PREFIXES.get(layout, ("",))[0]
    asked = [
        {"video_name": _stem(q).removeprefix(prefix), "question": q.question, "question_id": f"q{i}"}
        for i, q in enumerate(questions)
    ]
    answers = [{"answer": q.answer, "type": q.type, "question_id": f"q{i}"} for i, q in enumerate(questions)]
    _write_json(root / "test_q.json", asked)
    _write_json(root / "test_a.json", answers)


def _write_nextqa(root: Path, questions: Sequence[Question]) -> None:
    names = [PHRASING.name(motion) for motion in MOTIONS]
    lines = ["video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4"]
    for i, q in enumerate(q for q in questions if q.type != "yes-no"):
        options = [*names, "stand still"]
        place = options.index(q.answer)
        cells = [_stem(q), 36, 32, 32, q.question, place, i, "TN", *options]
        lines.append(",".join(f'"{cell}"' for cell in cells))
    write_file(root / "val.csv", "\n".join(lines) + "\n")


def _write_benchmark(root: Path, questions: Sequence[Question]) -> None:
    open_ended = [q for q in questions if q.type != "yes-no"]
    one = [{"Q": q.question, "A": q.answer, "video_name": _stem(q)} for q in open_ended]
    two = [
        {"Q1": q.question, "Q2": f"{q.question} Look closely.", "A": q.answer, "video_name": _stem(q)}
        for q in open_ended
    ]
    _write_json(root / "generic_qa.json", one)
    _write_json(root / "temporal_qa.json", one)
    _write_json(root / "consistency_qa.json", two)


def _write_talks(root: Path, questions: Sequence[Question]) -> None:
    records: list[dict[str, Any]] = []
    for video in dict.fromkeys(q.video for q in questions):
        said: list[dict[str, str]] = []
        for q in questions:
            if q.video == video:
                place = "" if said else "<video>\n"
                said += [{"from": "human", "value": place + q.question}, {"from": "gpt", "value": q.answer}]
        assert video is not None
        records.append({"id": video.stem, "video": f"videos/{video.name}", "conversations": said})
    text = [{"from": "human", "value": "How many sides has a disc?"}, {"from": "gpt", "value": "none"}]
    _write_json(root / "talks.json", [*records, {"id": "text", "conversations": text}])


def _stem(question: Question) -> str:
    assert question.video is not None
    return question.video.stem


def _write_json(path: Path, values: object) -> None:
    write_file(path, json.dumps(values, indent=1) + "\n")
