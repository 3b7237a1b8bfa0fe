"""Anticipation from the command line: trained on labels, asked what follows a timeline, scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_world import framecast

from framecast.data.synthetic import write_lookalike

SMALL = ("model.config.num_layers=1", "model.config.width=8", "model.config.diffusion_steps=10")
QUICK = ("steps=2", "epochs=null", "eval_every_steps=2", "save_every_steps=2", "sampling.steps=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels, a model trained on them, and a timeline of what was seen so far."""
    folder = tmp_path_factory.mktemp("anticipation")
    write_lookalike("breakfast", folder / "data", seed=0, num_videos=8, feature_dim=4)
    settings = [word for change in (*SMALL, *QUICK, "data.split=1") for word in ("--set", change)]
    done = framecast("train", "anticipation", "--data", "data", "--out", "run", *settings, cwd=folder)
    assert done.code == 0, done.err
    assert "20 % seen, next 50 %" in done.out
    names = [line.split()[1] for line in (folder / "data" / "mapping.txt").read_text().splitlines()]
    rows = [f"tea,0,3,{names[0]}", f"tea,3,9.5,{names[1]}"]
    (folder / "seen.csv").write_text("\n".join(["video,start_s,end_s,label", *rows]) + "\n")
    return folder


def test_futures_of_a_timeline(folder: Path) -> None:
    ahead = ("--model", "run", "--anticipate", "20s", "--samples", "4")
    done = framecast("predict", "--timeline", "seen.csv", *ahead, "--out", "found", "--json", cwd=folder)
    assert done.code == 0, done.err
    (video,) = json.loads(done.out)["futures"]
    assert video["video"] == "tea"
    assert video["num_steps"] == 20
    assert len(video["samples"]) == 4
    assert sum(group["share"] for group in video["groups"]) == pytest.approx(1, abs=1e-3)
    written = {path.name for path in (folder / "found").iterdir()}
    assert written == {"futures.csv", "futures.json", "tea.png", "tea.html"}
    plain = framecast("predict", "seen.csv", *ahead, "--out", "again", "--no-pages", cwd=folder)
    assert plain.out.startswith("tea: seen up to ")
    assert (folder / "again" / "futures.csv").read_text() == (folder / "found" / "futures.csv").read_text()


def test_scores_stand_beside_the_run(folder: Path) -> None:
    done = framecast("evaluate", "run", "--protocol", "anticipation/official-any", cwd=folder)
    assert done.code == 0, done.err
    scores = json.loads((folder / "run" / "scores.json").read_text())["scores"]["anticipation/official-any"]
    assert {"mean_moc@20/50", "top1_moc", "diversity", "ece", "crps", "edit"} <= set(scores)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("predict", "seen.csv", "--model", "run"), "say how far, for example --anticipate 60s"),
        (("predict", "seen.csv", "--model", "run", "--anticipate", "soon"), "'soon' is no time span"),
        (("predict", "--model", "run", "--anticipate", "9s"), "nothing was seen so far"),
        (
            ("predict", "clip.mp4", "--unsupervised", "--anticipate", "9s"),
            "is for looking ahead",
        ),
    ],
)
def test_what_cannot_be_asked_is_said(words: tuple[str, ...], message: str, folder: Path) -> None:
    done = framecast(*words, cwd=folder)
    assert done.code == 1
    assert message in done.err
    assert "Traceback" not in done.err
