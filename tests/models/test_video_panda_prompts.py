"""What the language model is told, and that answering can use the release's other introduction."""

from __future__ import annotations

import pytest

from framecast.models.video_panda_prompts import FRAME, pieces, prompt


def test_one_question() -> None:
    text = prompt(" What is red? ", 2)
    assert text.endswith(f" USER: {FRAME}{FRAME}\nWhat is red? ASSISTANT:")
    assert text.startswith("A chat between a curious user and")
    assert len(pieces(text)) == 3
    assert "".join(pieces(text)) == text.replace(FRAME, "")


def test_frames_stand_once_before_the_first_question() -> None:
    text = prompt("And then?", 3, earlier=[("Who is it?", "A cook.")])
    assert text.count(FRAME) == 3
    assert text.endswith("\nWho is it? ASSISTANT: A cook.</s> USER: And then? ASSISTANT:")


def test_the_releases_introduction_by_name() -> None:
    trained, release = (prompt("Why?", 1, style=style) for style in ("trained", "release"))
    assert trained != release
    assert trained.replace("user", "human") == release


def test_nothing_asked() -> None:
    with pytest.raises(ValueError, match="the question is empty"):
        prompt("  ", 8)
