"""What is wrong with a set of questions is named with file and place, and nothing is left out in silence."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framecast.data.check_questions import inspect_questions
from framecast.data.problems import Problem
from framecast.data.synthetic_questions import write_question_lookalike
from framecast.data.synthetic_recognition import write_recognition_lookalike
from framecast.data.video_questions import (
    QUESTION_LAYOUTS,
    Question,
    is_question_set,
    open_video_qa,
    read_questions,
)

DATA = Path(os.environ.get("FRAMECAST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in every layout."""
    folder = tmp_path_factory.mktemp("sets")
    for layout in QUESTION_LAYOUTS:
        write_question_lookalike(layout, folder / layout, num_videos=3)
    return folder


def own(folder: Path, records: Any, *videos: str, name: str = "questions.json") -> Path:
    """A file of questions beside files that only have the names of videos."""
    folder.mkdir(parents=True, exist_ok=True)
    for video in videos:
        (folder / video).parent.mkdir(parents=True, exist_ok=True)
        (folder / video).touch()
    path = folder / name
    path.write_text(records if isinstance(records, str) else json.dumps(records))
    return path


def problems(root: Path, **options: Any) -> list[str]:
    return [str(problem) for problem in inspect_questions(root, **options).problems]


def expect(found: list[str], *wanted: tuple[str, ...]) -> None:
    for fragments in wanted:
        assert any(all(f in line for f in fragments) for line in found), (fragments, found)
    assert len(found) == len(wanted), found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"turns": ()}, "a question or an answer is empty"),
        ({"turns": (("Who?", " "),)}, "a question or an answer is empty"),
        ({"video": None}, "kind 'video' needs a file"),
        ({"kind": "text"}, "kind 'text' has no file"),
        ({"options": ("a", "b")}, "options and answer_index come together"),
        (
            {"options": ("a", "b"), "answer_index": 2},
            "answer_index is 2, but the 2 options are counted from 0",
        ),
        ({"start_s": 2.0, "end_s": 1.0}, "second 2.0 to 1.0"),
        ({"start_s": float("nan")}, "second nan"),
    ],
)
def test_a_question_holds_together(change: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {"video": Path("a.mp4"), "kind": "video", "turns": (("Who?", "a dog"),)}
    with pytest.raises(ValueError, match=message):
        Question(**(fields | change))


def test_missing_videos_are_never_skipped_in_silence(sets: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(sets / "msvd_qa", tmp_path / "msvd_qa"))
    (root / "videos" / "disc1.mp4").unlink()
    asked = [entry["video_name"] for entry in json.loads((root / "test_q.json").read_text())]
    gone = asked.count("disc1")
    with pytest.raises(FileNotFoundError, match=rf"1 of the files that {gone} questions.*'disc1'.*leave-out"):
        open_video_qa(root)
    data = open_video_qa(root, missing="leave-out")
    assert (data.missing, data.num_missing, len(data)) == (("disc1",), gone, len(asked) - gone)
    assert len(open_video_qa(root, missing="keep")) == len(asked)
    assert any("'disc1' is not in" in line and f"{gone} questions" in line for line in problems(root))
    with pytest.raises(ValueError, match="missing is 'skip'"):
        open_video_qa(root, missing="skip")  # ty: ignore[invalid-argument-type]


def test_answers_at_other_places_are_noticed(sets: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(sets / "msrvtt_qa", tmp_path / "msrvtt_qa"))
    answers = json.loads((root / "test_a.json").read_text())
    answers[1], answers[2] = answers[2], answers[1]
    (root / "test_a.json").write_text(json.dumps(answers))
    expect(
        problems(root),
        ("test_a.json: entry 2: ", "answers question 'q2'", "test_q.json has 'q1'"),
        ("test_a.json: entry 3: ", "answers question 'q1'"),
    )
    (root / "test_a.json").write_text(json.dumps(answers[:-1]))
    with pytest.raises(
        ValueError, match=rf"has {len(answers) - 1} answers, but test_q.json has {len(answers)}"
    ):
        open_video_qa(root)
    (root / "test_a.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"test_a\.json: does not exist"):
        open_video_qa(root)


def test_a_set_that_cannot_be_told_is_asked_for(sets: Path, tmp_path: Path) -> None:
    root = tmp_path / "some"
    root.mkdir()
    for name in ("test_q.json", "test_a.json"):
        shutil.copy(sets / "tgif_qa" / name, root)
    with pytest.raises(ValueError, match=r"pass layout=activitynet_qa or msrvtt_qa or msvd_qa or tgif_qa"):
        open_video_qa(root)
    assert is_question_set(root)
    data = open_video_qa(root, "tgif_qa", videos=sets / "tgif_qa" / "mp4")
    assert len(data) == len(open_video_qa(sets / "tgif_qa"))
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; videos="):
        open_video_qa(root, "tgif_qa", videos=root / "nowhere")
    with pytest.raises(ValueError, match="unknown layout 'tgifqa', did you mean 'tgif_qa'"):
        open_video_qa(root, "tgifqa")


GOOD = {"video": "a.mp4", "question": "Who?", "answer": "a dog"}


def test_all_problems_of_users_own_json_are_reported(tmp_path: Path) -> None:
    records = [
        GOOD,
        {"video": "a.mp4", "question": "Who?", "anwser": "a dog"},
        GOOD | {"answer": ""},
        GOOD | {"question": ["Who?"]},
        GOOD | {"options": ["one"], "answer_index": 0},
        GOOD | {"options": ["cat", "dog"], "answer_index": 2},
        GOOD | {"start_s": 3, "end_s": 2},
        GOOD | {"strat_s": 1},
        GOOD | {"start_s": "soon"},
        "text",
        {"video": "a.mp4", "qa": {"question": "Who?"}},
        {"video": "a.mp4", "turns": [["Who?"]]},
        {"video": "a.mp4", "turns": 5},
        {"question": "Which?", "options": ["a", "b"], "answer_index": 0},
        GOOD | {"width": 320, "frames": 9, "title": "left alone"},
    ]
    path = own(tmp_path, records, "a.mp4")
    found = [line for line in problems(path) if "a.mp4: " not in line]  # which is no video
    expect(
        found,
        ("entry 2: ", "unknown key 'anwser', did you mean 'answer'?"),
        ("entry 2: ", "has no answer; its keys are video, question, anwser"),
        ("entry 3: ", "answer is empty"),
        ("entry 4: ", "question must be text, got ['Who?']"),
        ("entry 5: ", "options must be at least two texts"),
        ("entry 6: ", "answer 2 is none of the options 0 to 1"),
        ("entry 7: ", "second 3.0 to 2.0"),
        ("entry 8: ", "unknown key 'strat_s', did you mean 'start_s'?"),
        ("entry 9: ", "start_s must be a number of seconds, got 'soon'"),
        ("entry 10: ", "must be a record with keys, not text"),
        ("entry 11: ", "qa must be a list of questions"),
        ("entry 12: ", "turns must be a list of [question, answer]"),
        ("entry 13: ", "turns must be a list of [question, answer]"),
        ("entry 14: ", "a question with options needs a video"),
    )
    with pytest.raises(ValueError, match="entry 10: must be a record"):
        open_video_qa(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("questions.json", "", "is empty; it must be a list of records"),
        ("questions.json", '[{"question": "Who?", "answer"', "questions.json:1: is not valid JSON"),
        ("questions.json", '{"question": "Who?"}', "must be a list of records, not a record"),
        ("questions.json", "[" * 100_000, "is no list of records|is not valid JSON"),
        ("questions.json", "[]", "holds no records"),
        ("questions.jsonl", '{"question": "Who?"\n', "questions.jsonl:1: is not valid JSON"),
        ("questions.jsonl", "[1]\n", "questions.jsonl:1: must be a record with keys, not a list"),
        ("questions.csv", "video,question,answer\na.mp4,Who?\n", "questions.csv:2: has 2 of 3 columns"),
        ("questions.csv", "video,question,answer\n", "holds no rows"),
    ],
)
def test_broken_files(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = own(tmp_path, text, name=name)
    with pytest.raises(ValueError, match=message):
        open_video_qa(path, "questions")
    assert not inspect_questions(path, "questions").ok


def test_a_broken_pack_is_named(tmp_path: Path) -> None:
    path = tmp_path / "activitynet_qa_test.jsonl.gz"
    packed = gzip.compress(
        json.dumps({"video": "a", "question": "who", "answer": "dog", "type": 3}).encode() * 50
    )
    path.write_bytes(packed[:-20])
    with pytest.raises(ValueError, match="cannot be unpacked"):
        open_video_qa(path, missing="keep")
    path.write_text("not packed")
    with pytest.raises(ValueError, match="cannot be unpacked"):
        open_video_qa(path, missing="keep")


def test_all_problems_of_talks_are_reported(tmp_path: Path) -> None:
    def talk(*values: str, who: tuple[str, ...] = ("human", "gpt"), **media: Any) -> dict[str, Any]:
        said = [{"from": who[i % 2], "value": value} for i, value in enumerate(values)]
        return {**media, "conversations": said}

    records = [
        talk("Who?\n<video>", "a dog", video="a.mp4"),
        talk("<video>\nWho?", "a dog"),
        talk("Who?", "a dog", video="a.mp4"),
        talk("<video>\nWho?", "a dog", "Why <video>?", "because", video="a.mp4"),
        talk("<video>\nWho?", video="a.mp4"),
        talk("<video>\nWho?", "a dog", who=("gpt", "human"), video="a.mp4"),
        talk("<video>\n", "a dog", video="a.mp4"),
        {"video": "a.mp4", "conversations": []},
        talk("<video>\nWho?", "a dog", video=["a.mp4"]),
        talk("<image>\n<image>\nWho?", "a dog", image="b.png"),
    ]
    path = own(tmp_path, records, "a.mp4", "b.png", name="talks.json")
    found = [line for line in problems(path) if "talks.json" in line]
    expect(
        found,
        ("entry 2: ", "the record has neither"),
        ("entry 3: ", "first question has no <video>"),
        ("entry 4: ", "in the first question only"),
        ("entry 5: ", "human first, gpt last, got human"),
        ("entry 6: ", "must speak in turn"),
        ("entry 7: ", "a question or an answer is empty"),
        ("entry 8: ", "conversations must be a list"),
        ("entry 9: ", "video must be the path of a file"),
    )
    path = own(tmp_path, [records[0], records[-1]], name="talks.json")
    assert [(q.kind, q.question) for q in open_video_qa(path)] == [("video", "Who?"), ("image", "Who?")]


def test_the_check_looks_into_the_videos(sets: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(sets / "questions", tmp_path / "questions"))
    entries = json.loads((root / "questions.json").read_text())
    (root / "videos" / "disc0.mp4").write_bytes(b"no video")
    late = next(entry for entry in entries if "disc1" in entry["video"])
    entries += [late | {"id": "late", "start_s": 2, "end_s": 60}, late | {"id": "again"}]
    entries += [late | {"answer": "something else"}]
    (root / "questions.json").write_text(json.dumps(entries))
    report = inspect_questions(root)
    expect(
        [str(p) for p in report.problems],
        ("disc0.mp4", "video"),
        ("disc1.mp4", "'late'", "second 2 to 60 of"),
    )
    assert report.notes == [
        "1 ids stand there more than once",
        "1 questions stand there twice, with the same answer",
        "1 questions about the same video have several answers",
    ]


def test_nothing_else_is_taken_for_questions(tmp_path: Path) -> None:
    for layout in ("lists", "table", "segments", "ssv2", "kinetics"):
        assert not is_question_set(write_recognition_lookalike(layout, tmp_path / layout, per_class=1))
    assert not is_question_set(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no questions; a folder holds for example test_q\.json"):
        open_video_qa(tmp_path / "lists")
    with pytest.raises(ValueError, match="is no file of questions"):
        open_video_qa(own(tmp_path, "x", name="notes.txt"))


def test_names_that_lie_in_several_folders_are_not_guessed(tmp_path: Path) -> None:
    own(tmp_path, [GOOD | {"video": "a"}, GOOD | {"video": "two/a"}], "one/a.mp4", "two/a.mp4")
    data = open_video_qa(tmp_path, missing="leave-out")
    assert [q.video for q in data] == [tmp_path / "two" / "a.mp4"]
    assert any("'a' is in several places of" in line for line in problems(tmp_path))


RECORDS: dict[str, tuple[str, dict[str, Any]]] = {
    "questions": (
        "questions.jsonl",
        {**GOOD, "options": ["a dog", "a cat"], "start_s": 1, "qa": None, "id": "1"},
    ),
    "instructions": ("talks.jsonl", {"video": "a.mp4", "image": None, "conversations": None}),
    "video_chatgpt": ("generic_qa.jsonl", {"Q": "q", "Q1": "q", "Q2": "q", "A": "a", "video_name": "x"}),
    "nextqa_mc": ("nextqa_mc_val.jsonl", {"video": "a", "question": "q", "options": ["a", "b"], "answer": 0}),
    "activitynet_qa": (
        "activitynet_qa_val.jsonl",
        {"video": "a", "question": "q", "answer": "no", "type": 3},
    ),
}
ODD = (
    None,
    5,
    -1,
    1.5,
    True,
    "",
    "x",
    [],
    [1],
    ["a", "b"],
    {},
    {"a": 1},
    [["a", "b"]],
    [[1, 2]],
    "a|b",
    10**400,
)
ODD += ([{"question": "q", "answer": "a"}], [{}], [{"from": [1], "value": 2}], float("nan"))


@pytest.mark.parametrize("layout", RECORDS)
def test_no_record_is_odd_enough_for_a_traceback(layout: str, tmp_path: Path) -> None:
    """Every pair of keys takes every pair of odd values: a question comes out, or a problem."""
    name, record = RECORDS[layout]
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(400):
        keys = rng.choice(list(record), size=2)
        lines.append(json.dumps(record | {str(key): ODD[rng.integers(len(ODD))] for key in keys}))
    path = own(tmp_path, "\n".join(lines), name=name)
    found: list[Problem] = []
    (reading,) = read_questions(path, layout, look=False, report=found.append)
    assert found
    assert all(isinstance(q.question, str) and isinstance(q.answer, str) for q in reading.questions)
