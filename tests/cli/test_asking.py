"""`predict --ask` and `chat`: answers as text, files and a page; talks that remember; wrong inputs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import framecast as fc
from framecast.checkpoints import ModelCard
from framecast.cli import asking
from framecast.cli.app import app
from tiny_language_model import tiny_language_model
from video_factory import write_video

EYES = {"width": 16, "num_heads": 2, "temporal_heads": 2, "patch_size": 4, "image_size": 32, "num_frames": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("asking")
    tiny_language_model(root / "language")
    torch.manual_seed(0)
    model = fc.create_model("video_panda", language_model=str(root / "language"), stab=EYES)
    fc.save(model, root / "panda", ModelCard("video_qa"))
    fc.save(fc.create_model("vit_tiny", depth=1), root / "vit", ModelCard("recognition", ("a", "b")))
    write_video(root / "clip.mp4", 20)
    write_video(root / "other.mp4", 8)
    return root


def run(*words: object) -> int:
    try:
        app([str(word) for word in words], standalone_mode=False)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_answers_are_printed_and_written(folder: Path, tmp_path: Path, capsys: Any) -> None:
    asked = ("--ask", "what?", "--ask", "who walks?", "--out", tmp_path)
    assert run("predict", folder / "clip.mp4", folder / "other.mp4", "--model", folder / "panda", *asked) == 0
    said = capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "answers.csv").open()))
    assert [(Path(row["file"]).name, row["question"]) for row in rows] == [
        (name, question) for name in ("clip.mp4", "other.mp4") for question in ("what?", "who walks?")
    ]
    assert f"clip.mp4: what? {rows[0]['answer']}" in said
    found = json.loads((tmp_path / "answers.json").read_text())
    assert sum(found[0]["attention"]) == pytest.approx(1, abs=1e-3)
    assert len(found[0]["frames"]) == len(found[0]["attention"]) == 4
    page = (tmp_path / "answers.html").read_text()
    assert page.count("<figure>") == 16
    assert "who walks?" in page


def test_json_alone(folder: Path, tmp_path: Path, capsys: Any) -> None:
    words = ("--ask", "what?", "--json", "--no-pages", "--out", tmp_path)
    assert run("predict", folder / "clip.mp4", "--model", folder / "panda", *words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["answers"][0]["question"] == "what?"
    assert "attention" not in found["answers"][0]


def test_a_talk_remembers(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    said: list[Any] = []
    stream = asking.say

    def listen(answerer: Any, path: Any, question: str, earlier: Any = ()) -> Any:
        said.append((question, list(earlier)))
        return stream(answerer, path, question, earlier=earlier)

    monkeypatch.setattr(asking, "say", listen)
    monkeypatch.setattr(asking, "LENGTH", 8)
    monkeypatch.setattr("sys.stdin", io.StringIO("what?\nwho?\n\nnever asked\n"))
    assert run("chat", folder / "clip.mp4", "--model", folder / "panda") == 0
    assert "watched 4 frames of clip.mp4" in capsys.readouterr().out
    assert [question for question, _ in said] == ["what?", "who?"]
    assert said[1][1][0][0] == "what?"


def test_a_long_talk_forgets_its_beginning(folder: Path, capsys: Any) -> None:
    from framecast.infer.answering import Answerer

    earlier = [("why " * 60, "no " * 60), ("what?", "cat")]
    asking.say_next(Answerer(folder / "panda"), folder / "clip.mp4", "who?", earlier)
    assert earlier == [("what?", "cat")]
    assert "its oldest question is forgotten" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("clip.mp4", "--model", "panda"), "this model answers questions; ask one"),
        (("--model", "panda", "--ask", "what?"), "nothing was given to look at"),
        (("clip.mp4", "--model", "vit", "--ask", "what?"), "--ask is for models that answer questions"),
        (("clip.mp4", "--model", "panda", "--ask", " "), "the question is empty"),
        (("clip.mp4", "--model", "panda", "--ask", "what?", "--anticipate", "9s"), "--anticipate"),
        (("missing.mp4", "--model", "panda", "--ask", "what?"), "missing.mp4"),
    ],
)
def test_what_is_wrong_is_said(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, words: Any, message: str
) -> None:
    monkeypatch.chdir(folder)
    try:
        code, text = run("predict", *words, "--out", tmp_path / "out"), capsys.readouterr().err
    except (ValueError, OSError) as error:
        code, text = 1, str(error)
    assert code == 1
    assert message in text
    assert not (tmp_path / "out").exists()
