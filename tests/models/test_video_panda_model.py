"""Eyes before a language model: what it reads, questions that share a clip, what a checkpoint keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import framecast as fc
from framecast.models.language_models import fingerprint, load_language_model, load_tokenizer
from framecast.models.video_panda import Talk, video_panda
from framecast.models.video_panda_prompts import Writer
from framecast.nn.splicing import IGNORED_LABEL, PLACEHOLDER
from framecast.registry import find
from tiny_language_model import WIDTH, tiny_language_model, tiny_tokenizer

STAB = {"width": 16, "num_heads": 2, "temporal_heads": 2, "patch_size": 4, "image_size": 16, "dropout": 0.0}
FRAMES, SIDE = 4, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_language_model(tmp_path_factory.mktemp("language"))


def panda(folder: Path, **config: Any) -> Any:
    torch.manual_seed(0)
    return fc.create_model("video_panda", language_model=str(folder), stab=STAB, **config)


def talk_of(model: Any, *turns: tuple[str, str | None], seed: int = 0, frames: int = FRAMES) -> Talk:
    generator = torch.Generator().manual_seed(seed)
    clip = torch.randn(3, frames, SIDE, SIDE, generator=generator) if frames else None
    written = tuple(model.writer.turn(asked, frames, answer) for asked, answer in turns)
    return Talk(clip, None, model.writer.head(frames), written)


# What it is told ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", ["vicuna", "chat", "plain"])
@pytest.mark.parametrize("frames", [0, 3])
def test_head_and_turn_are_the_whole_text(template: Any, frames: int) -> None:
    tokenizer = tiny_tokenizer()
    writer = Writer(tokenizer, template)
    head, turn = writer.head(frames), writer.turn("what sits?", frames, "three", earlier=[("who?", "cat")])
    assert (head == PLACEHOLDER).sum() == frames
    words = torch.cat([head[head != PLACEHOLDER], turn.ids]).tolist()
    text = writer.text("what sits?", frames, [("who?", "cat")]).replace("<image>", "")
    assert tokenizer.decode(words).replace("<s>", "").startswith(text)
    learnt = turn.labels[turn.labels != IGNORED_LABEL].tolist()
    assert tokenizer.decode(learnt).strip() == "three</s>"
    assert (
        writer.turn("what sits?", frames, None, [("who?", "cat")]).ids.tolist()
        == turn.ids[: -len(learnt)].tolist()
    )


def test_a_missing_chat_template_is_told() -> None:
    with pytest.raises(ValueError, match="no chat template; use template='vicuna'"):
        Writer(tiny_tokenizer(chat=False), "chat")


def test_a_question_cannot_place_frames() -> None:
    with pytest.raises(ValueError, match="holds <image>"):
        Writer(tiny_tokenizer()).turn("what is <image>?", 2)


# Questions that share a clip ------------------------------------------------------------------------------


def test_questions_of_one_clip_are_as_if_alone(folder: Path) -> None:
    model = panda(folder).eval()
    turns = (("what?", "cat"), ("who walks there?", "a dog, a dog"), ("no?", "yes"))
    together = model([talk_of(model, *turns)], hidden_states=True)
    counts, losses = [], []
    first = int(together.packed.positions.max())  # only to see that positions restart
    assert first < together.packed.embeddings.shape[1] - 1
    for turn in turns:
        alone = model([talk_of(model, turn)], hidden_states=True)
        counts.append(int((alone.packed.labels != IGNORED_LABEL).sum()))
        losses.append(float(alone.loss.detach()))
    expected = sum(n * loss for n, loss in zip(counts, losses, strict=True)) / sum(counts)
    assert_close(float(together.loss.detach()), expected, rtol=1e-5, atol=1e-6)


def test_other_questions_change_nothing(folder: Path) -> None:
    model = panda(folder).eval()

    def last(*other: tuple[str, str]) -> torch.Tensor:
        out = model([talk_of(model, ("what sits?", "cat"), *other)], hidden_states=True)
        assert out.hidden_states is not None
        return out.hidden_states[-1][0, : len(model.writer.turn("what sits?", FRAMES, "cat").ids) + 20]

    assert_close(last(("who?", "dog")), last(("where?", "no, no")), rtol=1e-5, atol=1e-6)


def test_batches_are_their_talks(folder: Path) -> None:
    """Talks of other lengths, images, and talks without a clip in one batch."""
    model = panda(folder).eval()
    talks = [
        talk_of(model, ("what?", "cat"), ("who walks?", "dog")),
        talk_of(model, ("where is it?", "there"), seed=1, frames=1),
        talk_of(model, ("yes?", "no"), frames=0),
    ]
    together = model(talks)
    parts = [model([talk]) for talk in talks]
    counts = [int((part.packed.labels != IGNORED_LABEL).sum()) for part in parts]
    expected = sum(n * float(p.loss.detach()) for n, p in zip(counts, parts, strict=True)) / sum(counts)
    assert_close(float(together.loss.detach()), expected, rtol=1e-5, atol=1e-6)
    assert [v is None for v in together.packed.visual] == [False, False, True]


def test_nothing_to_learn(folder: Path) -> None:
    model = panda(folder)
    with pytest.raises(ValueError, match="no talk of the batch has an answer"):
        model([talk_of(model, ("what?", None))])


# What is trained, saved and found again -------------------------------------------------------------------


@pytest.mark.parametrize("tuning", ["frozen", "lora", "whole"])
def test_what_is_trained_is_saved_and_the_rest_found_again(folder: Path, tmp_path: Path, tuning: Any) -> None:
    model = panda(folder, tuning=tuning, lora_rank=2).train()
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    talk = talk_of(model, ("what?", "cat"))
    for _ in range(2):
        optimiser.zero_grad()
        model([talk]).loss.backward()
        optimiser.step()
    moved = {key for key in model.state_dict() if key.startswith("language_model.")}
    assert bool(moved) == (tuning != "frozen")
    assert all("lora_" in key for key in moved) or tuning == "whole"
    trained = {key for key, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert not trained, f"no gradient reaches {trained}"
    again: Any = fc.load(fc.save(model, tmp_path / "saved"))
    assert again.config == model.config
    assert_close(again([talk]).loss, model.eval()([talk]).loss)
    assert again.tokenizer.get_vocab() == model.tokenizer.get_vocab()


def test_a_model_that_was_trained_whole_needs_its_start_no_more(tmp_path: Path) -> None:
    start = tiny_language_model(tmp_path / "start")
    saved = fc.save(panda(start, tuning="whole"), tmp_path / "saved")
    for path in start.iterdir():
        path.unlink()
    assert fc.load(saved).config.llm["hidden_size"] == WIDTH


def test_another_language_model_is_refused(folder: Path, tmp_path: Path) -> None:
    model = panda(folder)
    other = tiny_language_model(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match="another language model"):
        video_panda(language_model=str(other), stab=STAB, llm_fingerprint=model.config.llm_fingerprint)
    assert fingerprint(load_language_model(folder).model) == model.config.llm_fingerprint


def test_a_language_model_that_was_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = panda(tiny_language_model(tmp_path / "language"))
    saved = fc.save(model, tmp_path / "saved")
    (tmp_path / "language").rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"language, which is not there.*FRAMECAST_LANGUAGE_MODEL="):
        fc.load(saved)
    monkeypatch.setenv("FRAMECAST_LANGUAGE_MODEL", str(tmp_path / "moved"))
    again: Any = fc.load(saved)
    assert again.config.language_model == str(tmp_path / "moved")
    assert again.config.llm_fingerprint == model.config.llm_fingerprint
    tiny_language_model(tmp_path / "other", seed=1)
    monkeypatch.setenv("FRAMECAST_LANGUAGE_MODEL", str(tmp_path / "other"))
    with pytest.raises(ValueError, match="another language model"):
        fc.load(saved)


def test_a_foreign_tokenizer_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"has 1\d\d words and the language model 50; it is another model's"):
        load_tokenizer(folder, vocab_size=50)


def test_the_published_size_is_built_without_files() -> None:
    with torch.device("meta"):
        model: Any = fc.create_model("video_panda")
    assert sum(p.numel() for p in model.parameters()) == find("model", "video_panda").params
    assert sum(p.numel() for p in model.stab.parameters()) == 45_066_578
    assert model.language_model.config.hidden_size == 4096


def test_what_is_no_language_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no folder of a language model"):
        load_language_model(tmp_path / "nothing")
    with pytest.raises(ValueError, match="cannot be read as a language model"):
        load_language_model(tmp_path)
    with pytest.raises(ValueError, match="leave it out"):
        video_panda(
            llm={"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1}, stab={"llm_width": 32}
        )
