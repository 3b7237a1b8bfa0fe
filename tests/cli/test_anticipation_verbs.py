"""Anticipation from the command line: trained on labels, asked what follows a timeline, scored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_world import framecast

from framecast.cli.anticipation import Source, past_film, write_futures
from framecast.data.synthetic import write_lookalike
from framecast.structures import Futures, Segments
from video_factory import number_of, write_video

SMALL = ("model.config.num_layers=1", "model.config.width=8", "model.config.diffusion_steps=10")
QUICK = ("steps=2", "epochs=null", "eval_every_steps=2", "save_every_steps=2", "sampling.steps=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels, a model trained on them, and a timeline of what was seen so far."""
    folder = tmp_path_factory.mktemp("anticipation")
    write_lookalike("breakfast", folder / "data", seed=0, num_videos=8, feature_dim=4)
    changes = (*SMALL, *QUICK, "data.split=1", "data.sample_rate=15")
    settings = [word for change in changes for word in ("--set", change)]
    done = framecast("train", "anticipation", "--data", "data", "--out", "run", *settings, cwd=folder)
    assert done.code == 0, done.err
    assert "20 % seen, next 50 %" in done.out
    names = [line.split()[1] for line in (folder / "data" / "mapping.txt").read_text().splitlines()]
    rows = [f"tea,0,3,{names[0]}", f"tea,3,9.5,{names[1]}"]
    (folder / "seen.csv").write_text("\n".join(["video,start_s,end_s,label", *rows]) + "\n")
    (folder / "bare").mkdir()
    shutil.copytree(folder / "data" / "groundTruth", folder / "bare" / "groundTruth")
    shutil.copy(folder / "data" / "mapping.txt", folder / "bare")
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


def test_several_timelines_are_listed_on_one_page(folder: Path) -> None:
    rows = (folder / "seen.csv").read_text().splitlines()
    (folder / "two.csv").write_text("\n".join([*rows, *(r.replace("tea", "juice") for r in rows[1:])]) + "\n")
    ahead = ("--model", "run", "--anticipate", "20s", "--samples", "3")
    done = framecast("predict", "two.csv", *ahead, "--out", "several", "--json", cwd=folder)
    assert done.code == 0, done.err
    assert Path(done.json["written"][-1]).name == "index.html"
    page = (folder / "several" / "index.html").read_text()
    assert 'href="tea.html"' in page
    assert 'href="juice.html"' in page
    assert "index.html" in (folder / "several" / "tea.html").read_text()
    twice = framecast("predict", "two.csv", "seen.csv", *ahead, "--out", "twice", cwd=folder)
    assert "several inputs have a video 'tea'" in twice.err
    assert not (folder / "twice").exists()


def test_pictures_show_the_part_of_the_past_that_is_drawn(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", 100)  # 10 frames a second
    seen = Segments.from_frames(np.zeros(20), ("walk", "sit"), video="clip", times=np.arange(20) / 2)
    futures = Futures(seen, np.ones((2, 10), dtype=np.int64), step_s=0.5)
    pictures, times = past_film(tmp_path / "clip.mp4", futures)
    assert times[0] > 10 - 0.8 * 5  # of the 10 s that were seen the last 4 are shown
    assert times[-1] < 10
    shown = np.array([number_of(picture.transpose(2, 0, 1)) for picture in pictures])
    np.testing.assert_array_equal(shown, (times * 10 + 1e-6).astype(int))
    files = write_futures([(Source(tmp_path / "clip.mp4", seen), futures)], tmp_path / "out", {}, pages=True)
    assert "<image" in files[-1].read_text()
    assert past_film(tmp_path / "seen.csv", futures) == ([], None)


def test_a_baseline_looks_ahead_without_a_model(folder: Path) -> None:
    asked = ("predict", "seen.csv", "--anticipate", "10s", "--expected-length", "30s", "--samples", "2")
    fitted = ("--baseline", "repeat_last", "--data", "data", "--split", "1")
    done = framecast(*asked, *fitted, "--out", "simple", "--json", cwd=folder)
    assert done.code == 0, done.err
    (video,) = done.json["futures"]
    last = (folder / "seen.csv").read_text().split(",")[-1].strip()
    assert [segment["label"] for segment in video["samples"][0]["segments"]] == [last]
    assert "baseline repeat_last" in (folder / "simple" / "tea.html").read_text()
    assert "of a video of 30 s" in (folder / "simple" / "tea.html").read_text()


def test_baselines_stand_beside_a_run(folder: Path) -> None:
    names = ("--baseline", "repeat_last", "--baseline", "grammar")
    protocol = ("--protocol", "anticipation/official-any")
    done = framecast("evaluate", "run", *names, *protocol, "--out", "all.json", "--json", cwd=folder)
    assert done.code == 0, done.err
    assert list(done.json["scores"]) == ["run", "repeat_last", "grammar"]
    rows = {name: one["scores"][protocol[1]] for name, one in done.json["scores"].items()}
    assert rows["repeat_last"]["mean_moc"] == rows["repeat_last"]["top1_moc"]  # it has one future
    assert rows["grammar"].keys() == rows["run"].keys()
    assert json.loads((folder / "all.json").read_text()) == done.json["scores"]
    alone = framecast("evaluate", "--data", "data", "--split", "1", *names, *protocol, "--json", cwd=folder)
    assert alone.json["scores"]["grammar"]["scores"] == {protocol[1]: rows["grammar"]}
    text = framecast("evaluate", "--data", "data", "--split", "1", *names, cwd=folder)
    assert "grammar      20 % seen, next 50 %" in text.out


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
        (("predict", "seen.csv", "--baseline", "grammar", "--anticipate", "9s"), "pass them with --data"),
        (
            ("predict", "seen.csv", "--baseline", "gramar", "--data", "data", "--anticipate", "9s"),
            "did you mean 'grammar'?",
        ),
        (("predict", "seen.csv", "--model", "run", "--anticipate", "9s", "--split", "1"), "--split is for"),
        (
            ("predict", "seen.csv", "--model", "run", "--anticipate", "9s", "--expected-length", "long"),
            "--expected-length 'long' is no time span",
        ),
        (("evaluate",), "nothing was given to score"),
        (("evaluate", "run", "--baseline", "grammar", "--jpeg"), "do not read pixels"),
        (("evaluate", "--baseline", "grammar"), "pass them with --data FOLDER"),
        (("evaluate", "--baseline", "grammar", "--data", "bare"), "no test side without a split"),
    ],
)
def test_what_cannot_be_asked_is_said(words: tuple[str, ...], message: str, folder: Path) -> None:
    done = framecast(*words, cwd=folder)
    assert done.code == 1
    assert message in done.err
    assert "Traceback" not in done.err
