"""Questions of every layout are read as they are meant."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from framecast.data.answer_files import read_answers, write_answers
from framecast.data.check import inspect_folder
from framecast.data.check_questions import QuestionReport, inspect_questions
from framecast.data.question_templates import majority_answers, majority_predictions
from framecast.data.synthetic_questions import write_question_lookalike
from framecast.data.video_questions import (
    QUESTION_LAYOUTS,
    Question,
    by_clip,
    is_question_set,
    open_instructions,
    open_video_qa,
    split_by_source,
    write_questions,
)
from framecast.metrics.answers import AnswerMetrics
from framecast.metrics.judging import JudgeItem

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


# --- Sound sets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", QUESTION_LAYOUTS)
def test_a_sound_set_is_recognised_read_and_passes_the_check(layout: str, sets: Path) -> None:
    data = open_video_qa(sets / layout)
    assert data.layout == layout
    assert is_question_set(sets / layout)
    assert len(data) == len(data.questions) > 0
    assert data.missing == ()
    assert all(path.is_file() for path in data.files)
    report = inspect_folder(sets / layout)
    assert isinstance(report, QuestionReport)
    assert [str(p) for p in report.problems] == []
    summary = report.summary()
    assert summary["questions"] == len(data)
    assert summary["files"] == len(data.files) == 3
    assert summary["layout"] == layout


def test_open_ended_sets_belong_together_by_position(sets: Path) -> None:
    root = sets / "activitynet_qa"
    asked = json.loads((root / "test_q.json").read_text())
    answers = json.loads((root / "test_a.json").read_text())
    for question, q, a in zip(open_video_qa(root), asked, answers, strict=True):
        assert question.video == root / "all_test" / f"v_{q['video_name']}.mp4"
        assert question.turns == ((q["question"], a["answer"]),)
        assert question.id == q["question_id"]


def test_multiple_choice_holds_the_text_of_the_right_option(sets: Path) -> None:
    for question in open_video_qa(sets / "nextqa_mc"):
        assert question.answer_index is not None
        assert question.answer == question.options[question.answer_index]
        lines = question.prompt.split("\n")
        assert lines[0] == question.question
        assert lines[1 + question.answer_index].endswith(question.answer)
        assert len(lines) == 1 + len(question.options) + 1


def test_talks_lose_their_placeholder_and_keep_their_turns(sets: Path) -> None:
    talks = open_instructions(sets / "instructions" / "talks.json")
    assert [talk.id for talk in talks] == [str(i) for i in range(len(talks))]
    assert [talk.kind for talk in talks] == ["video"] * 3 + ["text"]
    assert all(len(talk.turns) > 1 for talk in talks[:3])
    assert not any("<video>" in q for talk in talks for q, _ in talk.turns)
    assert talks[-1].video is None


def test_videos_of_talks_lie_above_train_json(sets: Path, tmp_path: Path) -> None:
    (tmp_path / "train_json").mkdir()
    shutil.copy(sets / "instructions" / "talks.json", tmp_path / "train_json" / "tune.json")
    with pytest.raises(FileNotFoundError, match=r"3 of the files that 3 questions ask about are not in"):
        open_instructions(tmp_path / "train_json" / "tune.json")
    shutil.copytree(sets / "instructions" / "videos", tmp_path / "videos")
    assert len(open_instructions(tmp_path / "train_json" / "tune.json")) == 4
    shutil.copy(sets / "instructions" / "talks.json", tmp_path / "train_json" / "again.json")
    assert [talk.id for talk in open_video_qa(tmp_path)] == [str(i) for i in range(8)]  # of all files


def test_questions_of_consistency_have_two_wordings(sets: Path) -> None:
    data = open_video_qa(sets / "video_chatgpt")
    assert {len(q.turns) for q in data if q.type == "consistency"} == {2}
    assert {len(q.turns) for q in data if q.type != "consistency"} == {1}


def test_users_own_table(tmp_path: Path) -> None:
    text = "video,question,answer,start,end,type,options,answer_index,split\n"
    text += 'a.mp4,Who walks?,a dog,1.5,4,who,,,train\nsub/b,"Where, exactly?",here,,,,,,test\n'
    text += "c.png,Which?,,,,,cat|dog,1,train\n,What is one and one?,two,,,,,,train\n"
    path = own(tmp_path, text, "a.mp4", "sub/b.webm", "c.png", name="questions.csv")
    first, second, third, fourth = open_video_qa(path)
    assert (first.video, first.start_s, first.end_s, first.type) == (tmp_path / "a.mp4", 1.5, 4.0, "who")
    assert (second.video, second.question, second.start_s) == (
        tmp_path / "sub/b.webm",
        "Where, exactly?",
        None,
    )
    assert (third.kind, third.options, third.answer) == ("image", ("cat", "dog"), "dog")
    assert (fourth.kind, fourth.video, fourth.answer) == ("text", None, "two")
    assert [q.id for q in (first, second, third, fourth)] == ["2", "3", "4", "5"]  # the lines
    assert [q.answer for q in open_video_qa(tmp_path, split="test")] == ["here"]
    assert len(open_video_qa(path, split="train")) == 3


def test_a_record_may_hold_several_questions(tmp_path: Path) -> None:
    qa = [{"question": "Who?", "answer": "a dog"}, {"question": "How many?", "answer": 2, "type": "count"}]
    path = own(
        tmp_path, [{"video": "a.mp4", "width": 320, "licence": "CC0", "qa": qa}], "a.mp4", name="qa.json"
    )
    first, second = open_video_qa(path)
    assert (first.id, second.id) == ("a_0", "a_1")
    assert (second.answer, second.type, second.video) == ("2", "count", tmp_path / "a.mp4")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    own(tmp_path, [], "videos/a.mp4", "b.png")
    a, b = tmp_path / "videos" / "a.mp4", tmp_path / "b.png"
    questions = [
        Question(
            a, "video", (("Wer läuft?", "ein Hund"),), "1", "who", start_s=0.5, end_s=2.25, group="home"
        ),
        Question(b, "image", (("Which?", "cat"),), "2", options=("dog", "cat"), answer_index=1),
        Question(a, "video", (("One?", "1"), ("Two?", "2")), "3"),
        Question(None, "text", (("Why?", "because"),), "4"),
    ]
    path = write_questions(questions, tmp_path / "questions.json")
    assert list(open_video_qa(path)) == questions
    moved = tmp_path.parent / f"{tmp_path.name}_moved"
    shutil.copytree(tmp_path, moved)
    assert {q.video for q in open_video_qa(moved)} == {moved / "videos" / "a.mp4", moved / "b.png", None}


def test_questions_of_a_clip_come_together(sets: Path) -> None:
    data = open_video_qa(sets / "questions")
    groups = by_clip(data)
    assert sorted(q.id for group in groups for q in group) == sorted(q.id for q in data)
    assert all(len({(q.video, q.start_s, q.end_s) for q in group}) == 1 for group in groups)
    assert len({(g[0].video, g[0].start_s, g[0].end_s) for g in groups}) == len(groups) < len(data)
    texts = [Question(None, "text", (("a?", "b"),)), Question(None, "text", (("c?", "d"),))]
    assert len(by_clip(texts)) == 2


def test_a_split_keeps_videos_apart_wherever_the_data_lies(tmp_path: Path) -> None:
    def made(root: Path) -> list[Question]:
        return [
            Question(root / f"v{v}.mp4", "video", ((f"q{i}?", "a"),), f"{v}_{i}", "even" if i % 2 else "odd")
            for v in range(12)
            for i in range(2 + v % 3)
        ]

    learn, held = split_by_source(made(tmp_path), 0.25)
    assert not {q.video for q in learn} & {q.video for q in held}
    assert len(learn) + len(held) == len(made(tmp_path))
    assert 0.15 < len(held) / len(made(tmp_path)) < 0.35
    assert [q.id for q in split_by_source(made(tmp_path / "elsewhere"), 0.25)[1]] == [q.id for q in held]
    assert [q.id for q in split_by_source(made(tmp_path), 0.25, seed=1)[1]] != [q.id for q in held]
    two = [Question(tmp_path / f"{v}.mp4", "video", (("q?", "a"),)) for v in range(2)]
    assert [len(side) for side in split_by_source(two, 0.1)] == [1, 1]
    with pytest.raises(ValueError, match="about 1 source"):
        split_by_source(two[:1])


# --- Predictions -------------------------------------------------------------------------------------------


def test_shards_of_predictions_are_put_together(tmp_path: Path) -> None:
    items = [JudgeItem(str(i), f"q{i}?", "yes", "no" if i % 2 else "", "kind" if i else "") for i in range(5)]
    first = write_answers(items[:3], tmp_path / "0.jsonl")
    second = write_answers(items[2:], tmp_path / "1.jsonl")
    assert read_answers([first, second]) == items
    assert json.loads(first.read_text().split("\n")[1]) == {
        "id": "1",
        "question": "q1?",
        "answer": "yes",
        "pred": "no",
        "type": "kind",
    }
    write_answers([JudgeItem("2", "q2?", "yes", "another")], tmp_path / "2.jsonl")
    with pytest.raises(ValueError, match=r"2\.jsonl:1: question '2' has another prediction above"):
        read_answers([first, tmp_path / "2.jsonl"])
    (tmp_path / "3.jsonl").write_text('{"id": "1", "question": "q?", "answer": "a"}\n')
    with pytest.raises(ValueError, match=r"3\.jsonl:1: has no pred"):
        read_answers(tmp_path / "3.jsonl")


# --- Real files --------------------------------------------------------------------------------------------


def real(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"no {name} in {DATA}; set FRAMECAST_DATA to a folder that has it")
    return DATA / name


def test_activitynet_qa_and_the_answer_without_looking() -> None:
    """Most questions of yes or no are balanced by design; nobody who never looks gets far."""
    root = real("videoqa_text")
    learn = open_video_qa(root, "activitynet_qa", split="val", missing="keep")
    test = open_video_qa(root, "activitynet_qa", split="test", missing="keep")
    assert (len(learn), len(test)) == (13_500, 6_000)
    assert sum(test.types.values()) == 6_000
    assert set(test.types) == {
        "motion", "spatial", "temporal", "yes/no", "colour", "object", "location", "number", "other",
    }  # fmt: skip
    assert not {q.video for q in learn} & {q.video for q in test}
    majority = majority_answers(learn)
    assert majority["yes/no"].answer in ("yes", "no")
    assert 0.45 < majority["yes/no"].share < 0.7
    metrics = AnswerMetrics()
    for question, predicted in zip(test, majority_predictions(learn, test), strict=True):
        metrics.update(predicted, question.answer, type=question.type, source=question.id)
    scores, types = metrics.compute(), metrics.per_type()
    assert 15 < scores["exact"] < 40
    assert scores["exact"] <= scores["normalised"] <= scores["contains"]
    assert types["yes/no"]["exact"] > types["object"]["exact"]


def test_nextqa() -> None:
    root = real("videoqa_text")
    data = open_video_qa(root, "nextqa_mc", missing="keep")
    assert len(data) == 4_996
    assert {len(q.options) for q in data} == {5}
    assert len({q.id for q in data}) == 4_996
    assert set(data.types) == set(["CW", "CH", "TN", "TC", "TP", "DC", "DL", "DO"])
    places = Counter(q.answer_index for q in data)
    assert all(0.15 < places[i] / len(data) < 0.25 for i in range(5))  # no place is the usual one
    with pytest.raises(
        ValueError, match="holds several sets of questions; pass layout=activitynet_qa or nextqa_mc"
    ):
        open_video_qa(root)
    expect(problems(root / "nextqa_mc_val.jsonl.gz"), ("none of its 570 videos is in",))


def test_demo_videos() -> None:
    data = open_video_qa(real("demo_videos"))
    assert (len(data), len(data.files)) == (36, 11)
    assert inspect_questions(DATA / "demo_videos").ok
