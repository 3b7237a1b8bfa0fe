"""Questions made from annotations are true of their clips, in balance, and the same for the same seed."""

from __future__ import annotations

import os
import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from framecast.data.question_clips import Action, Cutting, LabelledClip, Timeline, cut, timeline_of
from framecast.data.question_templates import (
    ask_about,
    clips_of,
    majority_answers,
    majority_predictions,
    make_questions,
)
from framecast.data.question_wordings import TYPES, WORDINGS, Phrasing
from framecast.data.synthetic_questions import write_question_lookalike
from framecast.data.synthetic_recognition import write_recognition_lookalike
from framecast.data.video_questions import Question, by_clip, open_video_qa, split_by_source
from framecast.structures import Segments

DATA = Path(os.environ.get("FRAMECAST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
LABELS = ("walk", "sit_down", "stand_up", "fall", "drink")
ONE = {kind: (texts[0],) for kind, texts in WORDINGS["labels"].items()}


def recordings(seed: int = 0, videos: int = 6, actions: int = 12) -> list[Timeline]:
    rng = np.random.default_rng(seed)
    found = []
    for v in range(videos):
        start, made = 0.0, []
        for _ in range(actions):
            start += float(rng.choice([0.0, 0.2, 3.0]))
            end = start + float(rng.uniform(0.9, 15))
            made.append(Action(str(rng.choice(LABELS)), start, end))
            start = end
        found.append(Timeline(Path(f"/data/v{v}.mp4"), tuple(made)))
    return found


# --- Cutting -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_clip_shows_what_its_list_says_and_nothing_else(seed: int) -> None:
    cutting = Cutting()
    for timeline in recordings(seed):
        clips = cut(timeline, cutting, seed)
        assert {len(clip.actions) for clip in clips} >= {1, 2}
        assert len({(clip.start_s, clip.end_s) for clip in clips}) == len(clips)
        for clip in clips:
            assert clip.start_s is not None
            assert clip.end_s is not None
            assert 1 <= len(clip.actions) <= cutting.max_actions
            assert 0 < clip.end_s - clip.start_s <= cutting.max_clip_s
            shown: list[str] = []
            for action in timeline.actions:
                visible = min(action.end_s, clip.end_s) - max(action.start_s, clip.start_s)
                goes_on = bool(shown) and shown[-1] == action.label and touching(timeline, action)
                if visible > 0.01 and not goes_on:
                    shown.append(action.label)
            assert tuple(shown) == clip.labels
            assert all(action.seconds >= cutting.shortest_s for action in clip.actions)


def touching(timeline: Timeline, action: Action) -> bool:
    before = timeline.actions[timeline.actions.index(action) - 1]
    return abs(action.start_s - before.end_s) <= 0.3


def test_overlaps_of_a_frame_are_shared_and_large_ones_left_out() -> None:
    def labels(*actions: Action) -> set[tuple[str, ...]]:
        cutting = Cutting(clips_per_action=4)
        return {clip.labels for clip in cut(Timeline(Path("v.mp4"), actions), cutting)}

    walk, sit = Action("walk", 0, 3.1), Action("sit", 3, 6)
    assert labels(walk, sit) == {("walk",), ("walk", "sit"), ("sit",)}
    assert labels(walk, Action("sit", 1, 6)) == set()
    assert labels(walk, Action("walk", 3, 6)) == {("walk",)}
    assert labels(walk, Action("background", 3.1, 5), Action("sit", 5, 8)) == {("walk",), ("sit",)}
    assert labels(Action("walk", 0, 0.1), sit) == {("sit",)}


def test_segments_with_times_become_a_timeline() -> None:
    labels = np.array([0, 0, 0, 1, 1, -100, -100, 0])
    segments = Segments.from_frames(labels, ("walk", "sit"), times=np.arange(8) / 2)
    timeline = timeline_of(segments, "v.mp4")
    assert timeline.actions == (Action("walk", 0, 1.5), Action("sit", 1.5, 2.5), Action("walk", 3.5, 4))
    with pytest.raises(ValueError, match=r"the segments of v\.mp4 have no times"):
        timeline_of(replace(segments, times=None), "v.mp4")


def test_lengths_must_be_in_order() -> None:
    with pytest.raises(ValueError, match="must be above 0 and in this order"):
        Cutting(longest_s=40)
    with pytest.raises(ValueError, match="must be at least 1"):
        Cutting(max_actions=0)


# --- Truth -------------------------------------------------------------------------------------------------


def truth(kind: str, question: str, clip: LabelledClip) -> set[str]:
    """Every right answer, found anew from the words of the question."""
    labels = [label.replace("_", " ") for label in clip.labels]
    quoted = [part for i, part in enumerate(question.split("'")) if i % 2]
    x = quoted[0] if quoted else ""
    numbers = ["zero", "one", "two", "three", "four"]
    if kind in ("what", "first"):
        return {labels[0]}
    if kind == "last":
        return {labels[-1]}
    if kind == "before":
        return {labels[i - 1] for i in range(1, len(labels)) if labels[i] == x}
    if kind == "after":
        return {labels[i + 1] for i in range(len(labels) - 1) if labels[i] == x}
    if kind == "count":
        return {numbers[labels.count(x)]}
    if kind == "actions":
        return {numbers[len(labels)]}
    if kind == "tell":
        return {", then ".join(labels)}
    if kind == "yes-no":
        return {"yes" if x in labels else "no"}
    if kind == "order":
        return {"yes" if labels.index(x) < labels.index(quoted[1]) else "no"}
    assert kind == "when"
    assert clip.start_s is not None
    assert clip.end_s is not None
    action = clip.actions[labels.index(x)]
    place = (0.5 * (action.start_s + action.end_s) - clip.start_s) / (clip.end_s - clip.start_s)
    return {("beginning", "middle", "end")[int(3 * place)]}


def test_every_answer_is_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORDINGS, "labels", ONE)
    clips = clips_of(recordings())
    by_limits = {(clip.video, clip.start_s, clip.end_s): clip for clip in clips}
    questions = ask_about(clips, max_share=1)
    assert {question.type for question in questions} == set(TYPES)
    for question in questions:
        assert question.video is not None
        clip = by_limits[question.video, question.start_s, question.end_s]
        assert truth(question.type, question.question, clip) == {question.answer}, question
    assert len({question.id for question in questions}) == len(questions)


@pytest.mark.parametrize("style", WORDINGS)
def test_wordings_vary_and_have_no_gaps(style: str) -> None:
    phrasing = Phrasing({"drink": "have a drink"}, style)  # ty: ignore[invalid-argument-type]
    questions = ask_about(clips_of(recordings()), phrasing, max_share=1)
    for kind in TYPES:
        own = {q.question for q in questions if q.type == kind}
        assert len(own) > 1, kind
        assert not any("{" in text or "_" in text for text in own)
    assert "have a drink" in {q.answer for q in questions}
    assert not any("drink" in q.question.replace("have a drink", "") for q in questions)
    assert all(set(kinds) == set(TYPES) for kinds in WORDINGS.values())


def test_yes_and_no_are_as_frequent_for_every_action(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORDINGS, "labels", ONE)
    questions = ask_about(clips_of(recordings(videos=20)))
    total = Counter(q.answer for q in questions if q.type == "yes-no")
    assert total["yes"] == total["no"]
    each: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for q in questions:
        if q.type == "yes-no":
            each[q.question][q.answer] += 1
    assert len(each) == len(LABELS)
    assert all(abs(counts["yes"] - counts["no"]) <= 3 for counts in each.values()), each


def test_what_the_question_gives_away_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who falls always stands up: what comes after a fall is no question about the video."""
    monkeypatch.setitem(WORDINGS, "labels", ONE)
    cycle = ("walk", "fall", "stand_up", "walk", "sit_down", "stand_up")
    timelines = [
        Timeline(
            Path(f"v{v}.mp4"), tuple(Action(cycle[(i + v) % 6], 4.0 * i, 4.0 * i + 4) for i in range(12))
        )
        for v in range(8)
    ]
    clips = clips_of(timelines)
    all_of_them, kept = ask_about(clips, max_share=1), ask_about(clips, max_share=0.6)
    assert any("after 'fall'" in q.question for q in all_of_them)
    assert not any("after 'fall'" in q.question for q in kept)
    for kind in ("before", "after", "when", "count", "order"):
        texts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for q in kept:
            if q.type == kind:
                texts[q.question][q.answer] += 1
        assert all(max(counts.values()) <= 0.6 * counts.total() + 1e-9 for counts in texts.values()), texts

    def blind(questions: list[Question]) -> float:
        asked = [q for q in questions if q.type in ("before", "after", "count", "order")]
        right = majority_predictions(asked, asked, by="question")
        return float(np.mean([q.answer == answer for q, answer in zip(asked, right, strict=True)]))

    assert blind(kept) <= 0.6 < blind(all_of_them)


def test_the_seed_decides_alone() -> None:
    clips = clips_of(recordings())
    first = [(q.id, q.turns) for q in ask_about(clips, seed=3)]
    assert first == [(q.id, q.turns) for q in ask_about(clips, seed=3)]
    assert first != [(q.id, q.turns) for q in ask_about(clips, seed=4)]
    assert clips_of(recordings(), seed=1) != clips


def test_few_questions_a_clip_take_types_in_turn() -> None:
    clips = clips_of(recordings(videos=20))
    groups = by_clip(ask_about(clips, per_clip=2))
    assert max(map(len, groups)) == 2
    counts = Counter(q.type for group in groups for q in group)
    assert set(counts) == set(TYPES)
    assert max(counts.values()) < 0.25 * counts.total()


def test_wrong_settings_are_refused() -> None:
    clips = clips_of(recordings(videos=1))
    with pytest.raises(ValueError, match="unknown type of question 'why'"):
        ask_about(clips, types=("why",))
    with pytest.raises(ValueError, match=r"max_share is 0\.3"):
        ask_about(clips, max_share=0.3)
    with pytest.raises(ValueError, match="per_clip is 0"):
        ask_about(clips, per_clip=0)
    with pytest.raises(ValueError, match=r"classes 'sit_down' and 'walk' have the same words 'go'"):
        ask_about(clips, Phrasing({"walk": "go", "sit_down": "go"}))
    with pytest.raises(ValueError, match="style is 'poem'"):
        Phrasing(style="poem")  # ty: ignore[invalid-argument-type]


# --- From a folder in one call -----------------------------------------------------------------------------


def test_a_folder_of_recordings(tmp_path: Path) -> None:
    root = write_question_lookalike("segments", tmp_path / "data", num_videos=5)
    data = make_questions(root, layout="segments", style="verbs", who="disc")
    assert len(data.files) == 5
    assert set(data.types) <= set(TYPES)
    assert all(q.start_s is not None and q.kind == "video" for q in data)
    assert list(make_questions(root / "segments.csv", style="verbs", who="disc")) == list(data)
    shutil.copytree(root, tmp_path / "moved")
    again = make_questions(tmp_path / "moved", layout="segments", style="verbs", who="disc")
    assert [(q.id, q.turns) for q in again] == [(q.id, q.turns) for q in data]


def test_frames_become_seconds_of_the_video(tmp_path: Path) -> None:
    root = write_question_lookalike("segments", tmp_path / "data", num_videos=2)
    in_seconds = make_questions(root, layout="segments")
    rows = [line.split(",") for line in (root / "segments.csv").read_text().splitlines()[1:]]
    lines = [f"{v},{round(10 * float(a))},{round(10 * float(b))},{label}" for v, a, b, label in rows]
    (root / "segments.csv").write_text("\n".join(["video,start,end,label", *lines]) + "\n")
    in_frames = make_questions(root, layout="segments")
    assert [(q.type, q.answer) for q in in_frames] == [(q.type, q.answer) for q in in_seconds]
    assert [q.start_s for q in in_frames] == pytest.approx([q.start_s for q in in_seconds], abs=0.01)
    (root / "segments.csv").write_text(f"video,start,end,label\ndisc0,0,9,grow\n{rows[0][0]},9,900,shrink\n")
    with pytest.raises(ValueError, match=r"segments\.csv:3: the segment ends at frame 900"):
        make_questions(root, layout="segments")


@pytest.mark.parametrize("kind", ["image", "video"])
def test_class_folders(kind: str, tmp_path: Path) -> None:
    root = write_recognition_lookalike("folders", tmp_path / "data", kind=kind, per_class=2)  # ty: ignore[invalid-argument-type]
    data = make_questions(root, noun="shape")
    assert set(data.types) == {"what", "yes-no"}
    for question in data:
        assert question.kind == kind
        assert question.video is not None
        label = question.video.parent.name.replace("_", " ")
        expected = label if question.type == "what" else "yes" if f"'{label}'" in question.question else "no"
        assert question.answer == expected
    assert len({q.id for q in data}) == len(data)
    train, test = (make_questions(root, subset=side) for side in ("train", "test"))
    assert {q.video for q in train} | {q.video for q in test} == {q.video for q in data}
    assert not {q.video for q in train} & {q.video for q in test}


def test_packed_images_are_refused(tmp_path: Path) -> None:
    root = write_recognition_lookalike("packed", tmp_path / "data", per_class=1)
    with pytest.raises(ValueError, match="is packed; questions need files"):
        make_questions(root)


# --- Answers without looking -------------------------------------------------------------------------------


def test_majority_answers() -> None:
    def ask(kind: str, text: str, answer: str) -> Question:
        return Question(None, "text", ((text, answer),), type=kind)

    learn = [ask("n", "how many?", "two")] * 3 + [ask("n", "how many?", "one")] + [ask("c", "which?", "red")]
    found = majority_answers(learn)
    assert (found["n"].answer, found["n"].share, found["n"].count) == ("two", 0.75, 4)
    assert (found[""].answer, found[""].count) == ("two", 5)
    asked = [ask("c", "which?", "?"), ask("n", "new?", "?"), ask("z", "new?", "?")]
    assert majority_predictions(learn, asked) == ["red", "two", "two"]
    assert majority_predictions(learn, asked, by="question") == ["red", "two", "two"]
    level = [ask("n", "?", "b"), ask("n", "?", "a")]
    assert majority_answers(level)["n"].answer == "a"
    with pytest.raises(ValueError, match="no question to learn from"):
        majority_predictions([], asked)


def test_real_recordings() -> None:
    if not (DATA / "fir_actions").is_dir():
        pytest.skip(f"no fir_actions in {DATA}; set FRAMECAST_DATA to a folder that has it")
    words = {"active": "keep busy", "sit": "stay seated", "lie": "stay lying", "fallen": "lie fallen"}
    data = make_questions(DATA / "fir_actions", layout="segments", style="verbs", words=words)
    assert len(data.files) == 16
    assert set(data.types) == set(TYPES)
    assert len(data) > 1500
    learn, held = split_by_source(data.questions)
    assert not {q.video for q in learn} & {q.video for q in held}
    assert set(open_types(held)) == set(TYPES)
    for by in ("type", "question"):  # one who never looks knows less than half
        right = majority_predictions(learn, held, by=by)
        assert np.mean([q.answer == answer for q, answer in zip(held, right, strict=True)]) < 0.45


def open_types(questions: list[Question]) -> Counter[str]:
    return Counter(question.type for question in questions)


def test_the_lookalike_is_read_as_it_was_made(tmp_path: Path) -> None:
    root = write_question_lookalike("questions", tmp_path / "data", seed=3)
    again = write_question_lookalike("questions", tmp_path / "again", seed=3)
    assert [q.turns for q in open_video_qa(root)] == [q.turns for q in open_video_qa(again)]
    with pytest.raises(FileExistsError):
        write_question_lookalike("questions", root)
    with pytest.raises(ValueError, match="did you mean 'questions'"):
        write_question_lookalike("question", tmp_path / "new")
