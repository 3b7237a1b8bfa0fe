"""What every verb does when all is well: from data to features, training, scores, timelines."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_world import TINY_RUN, TINY_VIT, World, framecast, succeed
from typer.main import get_command

import framecast as fc
from framecast.cli.app import app
from framecast.data.features import load_track
from framecast.data.synthetic_recognition import write_recognition_lookalike
from framecast.metrics.protocols import list_protocols
from framecast.train.config import load_recipe
from map_cube import write_map_cube
from video_factory import write_video

VERBS = sorted(get_command(app).commands)
KEYS = {"accuracy", "edit", "f1@10", "f1@25", "f1@50", "num_videos"}


def model_bytes(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


class TestCatalogue:
    def test_list(self) -> None:
        text = succeed("list").out
        assert all(name in text for name in fc.list_models())
        assert succeed("list", "vit_*", "--json").json["models"][0]["name"] == "vit_base"
        names = [entry["name"] for entry in succeed("list", "--kind", "recipes", "--json").json["recipes"]]
        assert names == fc.list_recipes()
        assert "breakfast/s1-pooled" in succeed("list", "breakfast/*", "--kind", "protocols").out

    @pytest.mark.parametrize("name", [*fc.list_models(), *fc.list_recipes()])
    def test_info_of_everything_that_is_registered(self, name: str) -> None:
        facts = succeed("info", name, "--json").json
        assert facts["name"] == name
        assert facts["about"]
        assert name in succeed("info", name).out

    def test_info_of_a_run_and_of_a_saved_model(self, world: World) -> None:
        facts = succeed("info", world.kitchen_run, "--json").json
        assert facts["model"] == "ltcontext"
        assert facts["classes"] == "background, pour, stir"
        assert facts["features"]["backbone"] == "vit_tiny"
        assert "vit_tiny" in succeed("info", world.vit).out

    def test_doctor(self) -> None:
        findings = succeed("doctor", "--json").json["findings"]
        subjects = {finding["subject"] for finding in findings}
        assert {"python", "torch", "cpu", "video, PyAV", "torch.distributed", "disk here"} <= subjects
        assert "✓ video, PyAV: decodes" in succeed("doctor").out

    def test_doctor_tells_what_is_broken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: Any, **__: Any) -> None:
            raise RuntimeError("no decoder here")

        monkeypatch.setattr("framecast.data.video.read_frames", broken)
        done = framecast("doctor")
        assert done.code == 1
        assert "✗ video: RuntimeError: no decoder here" in done.out


class TestData:
    def test_check_data(self, world: World) -> None:
        assert "no problem found" in succeed("check-data", world.data).out
        found = succeed("check-data", world.kitchen, "--json").json
        assert (found["videos"], found["classes"], found["problems"]) == (3, 3, [])

    def test_features_carry_their_provenance(self, world: World) -> None:
        track = load_track(world.kitchen / "features" / "monday.npy")
        assert track.values.shape == (2 * TINY_VIT["width"], 24)
        assert track.provenance is not None
        assert track.provenance.weights_source == str(world.vit)
        assert track.provenance.image_size == (32, 32)
        assert track.times is not None
        np.testing.assert_allclose(track.times, np.arange(24) / 10, atol=1e-6)

    def test_finished_tracks_are_kept_and_sub_folders_too(self, world: World, here: Path) -> None:
        (here / "clips" / "a").mkdir(parents=True)
        shutil.copy(world.video, here / "clips" / "one.mp4")
        shutil.copy(world.video, here / "clips" / "a" / "two.mp4")
        command = ("features", "clips", "--out", "tracks", *world.backbone, "--step", "0.5", "--json")
        first = succeed(*command).json
        assert len(first["done"]) == 2
        assert first["num_steps"] == 10
        assert (here / "tracks" / "a" / "two.npy").is_file()
        before = (here / "tracks" / "one.npy").stat().st_mtime_ns
        again = succeed(*command).json
        assert (len(again["done"]), len(again["skipped"])) == (0, 2)
        assert (here / "tracks" / "one.npy").stat().st_mtime_ns == before

    def test_a_bad_video_does_not_stop_the_others(self, world: World, here: Path) -> None:
        shutil.copytree(world.kitchen / "videos", here / "videos")
        (here / "videos" / "broken.mp4").write_bytes(b"no video")
        done = framecast("features", "videos", "--out", "tracks", *world.backbone)
        assert done.code == 1
        assert [line for line in done.err.splitlines() if line.startswith("error: ") and "broken.mp4" in line]
        assert sorted(p.stem for p in (here / "tracks").glob("*.npy")) == ["friday", "monday", "tuesday"]

    def test_import_weights(self, here: Path) -> None:
        model = fc.create_model("mstcn", num_classes=4, feature_dim=6, num_stages=2, num_layers=2, width=8)
        names = {"proj_in": "conv_1x1", "proj_out": "conv_out", "conv": "conv_dilated", "proj": "conv_1x1"}
        official = {
            ".".join(names.get(part, part) for part in key.split(".")): t[..., None] if t.ndim == 2 else t
            for key, t in model.state_dict().items()
        }
        torch.save({"model_state": official}, "official.pth")
        text = succeed("import-weights", "mstcn", "official.pth", "--out", "ours").out
        assert "0 missing, 0 unexpected" in text
        assert re.search(r"sha256 [0-9a-f]{64}", text)
        x = torch.randn(1, 6, 20)
        with torch.no_grad():
            assert torch.equal(fc.load("ours")(x), model.eval()(x))
        report = succeed(
            "import-weights", "mstcn", "official.pth", "-o", "again", "--set", "dropout=0.1", "--json"
        )
        assert len(report.json["matched"]) == len(model.state_dict())
        assert fc.load("again").config.dropout == 0.1


class TestTraining:
    def test_the_run_folder(self, world: World) -> None:
        for name in ("config.yaml", "metrics.jsonl", "summary.json", "environment.json", "model/config.json"):
            assert (world.run / name).is_file(), name
        summary = json.loads((world.run / "summary.json").read_text())
        assert summary["epochs"] == 2
        assert {"accuracy", "edit", "pooled: edit"} <= set(summary["metrics"])

    def test_a_stopped_and_continued_run_ends_as_a_run_in_one_go(self, world: World, here: Path) -> None:
        command = ("train", "segmentation", "--data", world.data, *TINY_RUN, "--out", "run")
        succeed(*command, "--set", "epochs=1")
        after_one = model_bytes(here / "run")
        done = succeed(*command, "--set", "epochs=2")
        assert "going on with run after step" in done.err
        assert model_bytes(here / "run") == model_bytes(world.run) != after_one
        assert "is finished" in succeed("train", "run", "--device", "cpu").err

    def test_the_recipe_of_a_run_repeats_it(self, world: World, here: Path) -> None:
        shutil.copy(world.run / "config.yaml", "mine.yaml")
        summary = succeed("train", "mine.yaml", "--out", "again", "--device", "cpu", "--json").json
        assert model_bytes(here / "again") == model_bytes(world.run)
        assert summary["folder"] == "again"
        assert summary["metrics"] == json.loads((world.run / "summary.json").read_text())["metrics"]

    def test_a_study_over_splits_and_seeds(self, world: World, here: Path) -> None:
        (here / "segmentation").mkdir()  # a folder of the recipe's name is not a run folder
        options = (*TINY_RUN, "--set", "epochs=1", "--splits", "1,2", "--seeds", "0,3")
        text = succeed("train", "segmentation", "--data", world.data, *options).out
        assert "mean over videos" in text
        study = json.loads((here / "runs" / "segmentation" / "summary.json").read_text())
        assert (study["splits"], study["seeds"], study["complete"]) == ([1, 2], [0, 3], True)
        assert sorted(p.name for p in (here / "runs" / "segmentation").glob("split*")) == [
            "split1-seed0", "split1-seed3", "split2-seed0", "split2-seed3",
        ]  # fmt: skip

    def test_seeds_without_a_split(self, world: World, here: Path) -> None:
        options = (*TINY_RUN, "--set", "epochs=1", "--set", "data.split=null", "--seeds", "0,1", "--json")
        study = succeed("train", "segmentation", "--data", world.data, *options).json
        assert study["seeds"] == [0, 1]

    def test_data_folders_with_odd_names(self, world: World, here: Path) -> None:
        shutil.copytree(world.data, here / "null #1: 'x'")
        options = (*TINY_RUN, "--set", "epochs=1", "--out", "run")
        succeed("train", "segmentation", "--data", "null #1: 'x'", *options)

    def test_submit_shows_the_script(self, world: World, here: Path) -> None:
        options = ("--nodes", "2", "--gpus", "4", "--time", "1-00:00:00", "--out", "run", "--dry-run")
        script = succeed("submit", "segmentation", "--data", world.data, *options).out
        assert script.startswith("#!/bin/bash")
        assert "#SBATCH --nodes=2" in script
        recipe = here / "run" / "submitted.yaml"
        assert f"-m framecast train {recipe} --out {here / 'run'} " in script
        assert [p for p in here.rglob("*") if p.is_file()] == [recipe]
        assert load_recipe(recipe).data.root == str(world.data)

    def test_submit_names_data_that_is_found_from_anywhere(self, world: World, here: Path) -> None:
        (here / "data").symlink_to(world.data)
        succeed("submit", "segmentation", "--data", "data", "--out", "run", "--dry-run")
        assert Path(load_recipe(here / "run" / "submitted.yaml").data.root).is_absolute()


class TestEvaluation:
    def test_scores_are_those_of_the_end_of_training(self, world: World, here: Path) -> None:
        done = succeed("evaluate", world.run, "--out", "scores.json", "--device", "cpu", "--json")
        result = done.json
        written = json.loads((here / "scores.json").read_text())
        assert result == written | {"written": "scores.json"}
        assert set(result["scores"]) == set(list_protocols("gtea/s1-*"))
        assert all(set(scores) == KEYS for scores in result["scores"].values())
        trained = json.loads((world.run / "summary.json").read_text())["metrics"]
        scores = result["scores"]["gtea/s1-mean-over-videos"]
        assert {key: scores[key] for key in KEYS - {"num_videos"}} == {
            key: value for key, value in trained.items() if ":" not in key
        }
        assert (result["num_items"], result["subset"]) == (2, "test")

    def test_another_split_other_data_and_one_protocol(self, world: World, here: Path) -> None:
        shutil.copytree(world.run / "model", "model")
        one = ("--protocol", "segmentation/pooled", "--json", "--device", "cpu")
        whole = succeed("evaluate", "model", "--data", world.data, *one).json
        assert (whole["num_items"], whole["subset"]) == (6, "all")
        assert set(whole["scores"]) == {"segmentation/pooled"}
        assert (here / "model" / "scores.json").is_file()
        split = succeed("evaluate", world.run, "--split", "2", "--out", "2.json", *one).json
        assert (split["split"], split["num_items"]) == (2, 2)
        text = succeed("evaluate", "model", "--data", world.data, "--device", "cpu").out
        assert "6 videos, training videos among them" in text


class TestPrediction:
    def test_tables_pictures_and_pages_agree(self, world: World, here: Path) -> None:
        done = succeed("predict", world.track, "--model", world.run, "--out", "found")
        printed = succeed("predict", world.track, "--model", world.run, "--out", "again", "--json").json
        assert sorted(p.name for p in (here / "found").iterdir()) == [
            "S1_Cheese_C1.html", "S1_Cheese_C1.png", "segments.csv", "segments.json",
        ]  # fmt: skip
        assert printed["written"] == [
            f"again/{name}"
            for name in ("segments.csv", "segments.json", "S1_Cheese_C1.png", "S1_Cheese_C1.html")
        ]
        with (here / "found" / "segments.csv").open() as file:
            rows = list(csv.DictReader(file))
        (video,) = json.loads((here / "found" / "segments.json").read_text())["videos"]
        assert [{"video": "S1_Cheese_C1"} | segment for segment in video["segments"]] == printed["segments"]
        assert [(r["video"], int(r["start"]), int(r["end"]), r["label"]) for r in rows] == [
            (s["video"], s["start"], s["end"], s["label"]) for s in printed["segments"]
        ]
        segments = fc.predict(world.run, world.track)
        assert [s["label"] for s in printed["segments"]] == segments.names
        assert (
            video["num_frames"]
            == segments.num_frames
            == load_track(world.track, feature_dim=8).values.shape[1]
        )
        assert (here / "found" / "S1_Cheese_C1.png").read_bytes().startswith(b"\x89PNG")
        page = (here / "found" / "S1_Cheese_C1.html").read_text()
        assert all(name in page for name in set(segments.names))
        assert "framecast predict" in page
        assert segments.names[0] in done.out

    def test_a_video_is_read_as_the_training_videos_were(self, world: World, here: Path) -> None:
        """The model knows backbone, weights and settings; only the video is named."""
        from_video = succeed("predict", world.video, "--model", world.kitchen_run, "--json").json
        track = world.kitchen / "features" / "monday.npy"
        from_track = succeed("predict", track, "--model", world.kitchen_run, "--out", "other", "--json").json
        assert from_video["segments"] == from_track["segments"]
        assert from_video["segments"][-1]["end_s"] == pytest.approx(2.4)
        page = (here / "predictions" / "monday.html").read_text()
        assert page.count("data:image/") >= 10  # film strip and thumbnails

    def test_weights_that_have_moved_are_named_again(self, world: World, here: Path) -> None:
        shutil.copytree(world.kitchen_run / "model", "model")
        shutil.move(shutil.copytree(world.vit, "vit"), "moved")
        about = json.loads((here / "model" / "config.json").read_text())
        about["card"]["features"]["weights_source"] = "gone/for/good"
        (here / "model" / "config.json").write_text(json.dumps(about))
        done = framecast("predict", world.video, "--model", "model")
        assert done.code == 1
        assert "gone/for/good" in done.err
        assert "--weights" in done.err
        succeed("predict", world.video, "--model", "model", "--weights", "moved")

    def test_many_videos_and_one_that_is_broken(self, world: World, here: Path) -> None:
        shutil.copytree(world.kitchen / "videos", "videos")
        (here / "videos" / "broken.mp4").write_bytes(b"no video")
        done = framecast("predict", "videos/*.mp4", "--model", world.kitchen_run, "--out", "found")
        assert done.code == 1
        assert [line for line in done.err.splitlines() if line.startswith("error: ") and "broken.mp4" in line]
        index = (here / "found" / "index.html").read_text()
        for day in ("monday", "tuesday", "friday"):
            assert f"{day}.html" in index
            assert f"{day}: " in done.out
        assert "broken" not in index

    def test_a_folder_of_feature_files_without_pages(self, world: World, here: Path) -> None:
        succeed("predict", world.data / "features", "--model", world.run, "--out", "found", "--no-pages")
        assert sorted(p.name for p in (here / "found").iterdir()) == ["segments.csv", "segments.json"]
        pattern = world.data / "features" / "S[12]_*.npy"
        found = succeed("predict", pattern, "--model", world.run, "--no-pages", "--json").json
        assert len({row["video"] for row in found["segments"]}) == 4

    @pytest.mark.parametrize("step", ["0.2", "1"])
    def test_label_free(self, world: World, here: Path, step: str) -> None:
        write_video(here / "clip.mp4", 21)  # 2.1 s: the last step of 1 s reaches beyond the end
        options = (*world.backbone, "--segments", "2", "--step", step, "--min-segment", "0", "--json")
        found = succeed("predict", "clip.mp4", "--unsupervised", *options).json
        assert {row["label"] for row in found["segments"]} == {"segment A", "segment B"}
        page = (here / "predictions" / "clip.html").read_text()
        command = re.search(r"<code>(framecast predict .*?)</code>", page)
        assert command is not None
        for words in ("--unsupervised", "--segments 2", f"--step {float(step)}"):
            assert words in command[1]  # what is shown can be typed again
        assert "--json" not in command[1]

    def test_label_free_on_feature_files_made_elsewhere(self, world: World, here: Path) -> None:
        found = succeed("predict", world.track, "--unsupervised", "--feature-dim", "8", "--json").json
        assert found["segments"][0]["start"] == 0


# --json -----------------------------------------------------------------------------------------------


def json_command(verb: str, w: World) -> list[object]:
    """A quick command of every verb."""
    train = ["segmentation", "--data", w.data, "--out", "run"]
    commands: dict[str, list[object]] = {
        "demo": ["--out", "out"],
        "list": [],
        "info": ["ltcontext"],
        "doctor": [],
        "check-data": [w.data],
        "prepare": ["cube/cube.yaml", "--out", "prepared"],
        "features": [w.video, "--out", "out", *w.backbone],
        "train": [*train, *TINY_RUN, "--set", "epochs=1"],
        "evaluate": [w.run, "--out", "scores.json"],
        "predict": [w.video, "--model", w.kitchen_run],
        "import-weights": ["vit", "tiny.safetensors", "--out", "out", "--set", "num_heads=3"],
        "stability": [w.run, "--out", "picture.svg"],
        "submit": [*train, "--dry-run"],
        "profile": ["mstcn", "--input", "2048x50", "--counts-only"],
        "adapt": ["small", "--images", "images", "--macs", "60%", "--out", "out"],
    }
    return [verb, *commands[verb], "--json"]


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("stream", "chat")])
def test_json_is_one_object_and_nothing_else(
    verb: str, world: World, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quick_demo(out: Path, device: str) -> None:
        print("a line for people")
        out.mkdir()
        (out / "index.html").write_text("")

    monkeypatch.setattr("framecast.cli.demonstration.label_free_demo", quick_demo)
    shutil.copy(world.vit / "model.safetensors", "tiny.safetensors")
    if verb == "adapt":
        torch.manual_seed(0)
        sizes: dict[str, Any] = {"image_size": 32, "patch_size": 4, "width": 24, "depth": 4, "num_heads": 3}
        fc.save(fc.create_model("vit_tiny", num_classes=2, **sizes), "small")
        write_recognition_lookalike("folders", "images", kind="image")
    if verb == "prepare":
        write_map_cube(Path("cube"))
    done = succeed(*json_command(verb, world))
    assert isinstance(done.json, dict)
    assert "NaN" not in done.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_every_option_explained(verb: str) -> None:
    assert "Usage" in succeed(verb, "--help").out
    for parameter in get_command(app).commands[verb].params:
        assert parameter.help, f"{verb} {parameter.name}"
