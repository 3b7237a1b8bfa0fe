"""Answers: a clip is watched once, questions side by side or one by one, and what is wrong is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import framecast as fc
from framecast.infer.answering import Answerer
from framecast.models.video_panda import Talk
from framecast.models.video_panda_answers import answer_text
from tiny_language_model import tiny_language_model
from video_factory import write_video

STAB = {"width": 16, "num_heads": 2, "temporal_heads": 2, "patch_size": 4, "image_size": 32, "num_frames": 4}
QUESTIONS = ["what?", "who walks there?", "no, where is it?"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tiny_language_model(tmp_path_factory.mktemp("language"))
    torch.manual_seed(0)
    made: Any = fc.create_model("video_panda", language_model=str(folder), stab=STAB)
    with torch.no_grad():
        for parameter in made.stab.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made.eval()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clips") / "clip.mp4")


def greedy(model: Any, answerer: Answerer, clip: Path, question: str, count: int) -> list[int]:
    """The same by the plainest way: the whole sequence again for every id."""
    read = answerer.read(clip)
    turn, frames = model.writer.turn(question, STAB["num_frames"]), STAB["num_frames"]
    ids: list[int] = []
    for _ in range(count):
        more = turn._replace(ids=torch.cat([turn.ids, torch.tensor(ids, dtype=torch.long)]))
        more = more._replace(labels=torch.full_like(more.ids, -100))
        packed = model.pack([Talk(read.clip, read.valid, model.writer.head(frames), (more,))])
        out = model.language_model(
            inputs_embeds=packed.embeddings, attention_mask=packed.mask, position_ids=packed.positions
        )
        ids.append(int(out.logits[0, -1].argmax()))
        if ids[-1] == model.tokenizer.eos_token_id:
            break
    return ids


@torch.no_grad()
def test_the_answer_is_that_of_the_whole_sequence(model: Any, clip: Path) -> None:
    answerer = Answerer(model)
    for question in QUESTIONS:
        expected = answer_text(model, greedy(model, answerer, clip, question, 12))
        answer = answerer.ask(clip, question, max_new_tokens=12)
        assert answer.text == expected
        assert answer.question == question
        assert answer.num_visual_tokens > 0
        assert len(answer.times) == 4


def test_questions_side_by_side_are_answered_as_alone(model: Any, clip: Path) -> None:
    answerer = Answerer(model)
    together = answerer.ask(clip, QUESTIONS, max_new_tokens=10)
    alone = [answerer.ask(clip, question, max_new_tokens=10) for question in QUESTIONS]
    assert [a.text for a in together] == [a.text for a in alone]
    assert len({a.text for a in alone}) > 1
    without = answerer.ask(None, QUESTIONS, max_new_tokens=10)
    assert [a.text for a in without] == [answerer.ask(None, q, max_new_tokens=10).text for q in QUESTIONS]
    assert [a.text for a in without] != [a.text for a in together]


def test_a_clip_is_watched_once(model: Any, clip: Path, tmp_path: Path, monkeypatch: Any) -> None:
    seen = []
    see = model.see
    monkeypatch.setattr(model, "see", lambda *given: seen.append(1) or see(*given))
    answerer = Answerer(model, keep=2)
    first = answerer.ask(clip, "what?", max_new_tokens=4)
    second = answerer.ask(clip, "what?", max_new_tokens=4)
    assert len(seen) == 1
    assert first.seconds["watching"] > 0
    assert second.seconds["watching"] == 0
    assert first.text == second.text  # the kept keys were not written on
    answerer.ask(clip, "what?", part=(0.0, 0.2), max_new_tokens=4)
    assert len(seen) == 2
    changed = write_video(tmp_path / "clip.mp4", 20)
    answerer.ask(changed, "what?", max_new_tokens=4)
    write_video(changed, 25)
    answerer.ask(changed, "what?", max_new_tokens=4)
    assert len(seen) == 4
    assert len(answerer._known) == 2


def test_pieces_are_the_answer(model: Any, clip: Path) -> None:
    answerer = Answerer(model)
    options: dict[str, Any] = {"max_new_tokens": 12, "earlier": [("what?", "cat")], "attention": True}
    returned: list[Any] = []

    def listen() -> Any:
        returned.append((yield from answerer.stream(clip, "who?", **options)))

    said = list(listen())
    (answer,) = returned
    whole = answerer.ask(clip, "who?", **options)
    assert "".join(said) == answer.text == whole.text
    assert answer.attention == pytest.approx(whole.attention)


def test_a_temperature_draws_and_a_seed_repeats(model: Any, clip: Path) -> None:
    answerer = Answerer(model)
    options = {"max_new_tokens": 12, "temperature": 2.0}
    drawn = {answerer.ask(clip, "what?", seed=seed, **options).text for seed in range(5)}
    assert len(drawn) > 1
    again = answerer.ask(clip, "what?", seed=3, **options).text
    assert again == answerer.ask(clip, "what?", seed=3, **options).text


def test_where_it_looked(model: Any, clip: Path) -> None:
    answer = Answerer(model).ask(clip, "what?", max_new_tokens=5, attention=True)
    assert answer.attention.shape[0] == 4
    assert answer.attention.min() >= 0
    assert answer.attention.sum() == pytest.approx(1)
    assert sorted(time for time, _ in answer.attended()) == answer.times.tolist()
    assert model.language_model.config._attn_implementation != "eager"


def test_an_image(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "still.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)
    answer = fc.ask(model, path, "what?", max_new_tokens=3, attention=True)
    assert answer.times.tolist() == [0]
    assert answer.attention.shape[0] == 1


def test_what_is_wrong_is_said(model: Any, clip: Path, tmp_path: Path) -> None:
    answerer = Answerer(model)
    with pytest.raises(ValueError, match="the question is empty"):
        answerer.ask(clip, " ")
    with pytest.raises(ValueError, match=r"take \d+ positions and the language model has 512"):
        answerer.ask(clip, "why " * 300)
    with pytest.raises(FileNotFoundError):
        answerer.ask(tmp_path / "missing.mp4", "what?")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"text\.mp4"):
        answerer.ask(tmp_path / "text.mp4", "what?")
    with pytest.raises(ValueError, match="has no frame from 50 to 60 seconds"):
        answerer.ask(clip, "what?", part=(50.0, 60.0))
    with pytest.raises(ValueError, match="max_new_tokens must be 1 or more"):
        answerer.ask(clip, "what?", max_new_tokens=0)
    with pytest.raises(ValueError, match="vit_tiny answers no questions"):
        Answerer(fc.create_model("vit_tiny"))
