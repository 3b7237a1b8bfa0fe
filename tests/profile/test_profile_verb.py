"""`framecast profile`: registered names, run folders, files, errors in one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from small_world import framecast, succeed

from framecast.profile import profiler
from framecast.profile.energy import NotMeasurable
from framecast.profile.memory import Memory
from framecast.profile.report import figure, quantity
from framecast.profile.runs import choose_metric, own_input, scores_of
from framecast.profile.subjects import find_subject

QUICK = ("--seconds", "0", "--device", "cpu", "--threads", "1")
COST = {"params", "macs", "flops"}


def test_json_of_a_registered_model() -> None:
    answer = succeed("profile", "mstcn", "--input", "16x300", "--batch", "2", *QUICK, "--json").json
    assert {"framecast", "torch", "machine", "native_kernels", "profiles", "metric", "written"} <= set(answer)
    (profile,) = answer["profiles"]
    assert profile["name"] == profile["model"] == "mstcn"
    assert (profile["input"], profile["executed_on"], profile["data"]) == ("16x300", "shapes", "")
    assert set(profile["total"]) == set(profile["executed"]) == COST
    for key in COST:
        assert sum(part[key] for part in profile["parts"].values()) == profile["total"][key]
    in_modules = sum(one["macs"] for module in profile["modules"].values() for one in module.values())
    assert in_modules == profile["total"]["macs"]
    timing = profile["timing"]
    assert (timing["batch"], timing["threads"], timing["device"], timing["runs"]) == (2, 1, "cpu", 3)
    assert timing["per_second"] == pytest.approx(2000 / timing["wall_ms"])
    assert profile["memory"] is None or profile["memory"]["inputs"] == 2 * 16 * 300 * 4
    for what in ("energy", "memory"):
        assert what in profile["missing"] or timing["joules"] is not None or profile["memory"] is not None


def test_text_labels_macs_and_flops_and_admits_what_it_cannot_measure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*args: object, **kwargs: object) -> Memory:
        raise NotMeasurable("the moon is full")

    monkeypatch.setattr(profiler, "peak_memory", fails)
    monkeypatch.setattr(profiler, "energy_meter", fails)
    text = succeed("profile", "vit_tiny", "--input", "64", *QUICK).out
    assert "MACs" in text
    assert "FLOPs" in text
    assert "attention products" in text
    assert "1 thread" in text
    assert "memory: not measurable here; the moon is full" in text
    assert "energy: not measurable here; the moon is full" in text


def test_large_models_are_counted_without_being_run() -> None:
    answer = succeed("profile", "vit_base", "vit_large", "--input", "224", "--counts-only", "--json").json
    assert [round(p["total"]["macs"] / 1e9, 1) for p in answer["profiles"]] == [17.6, 61.6]
    assert all(p["timing"] is None and p["memory"] is None for p in answer["profiles"])


def test_runs_are_profiled_on_their_data_beside_their_scores(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiler, "peak_memory", lambda *args, **kwargs: Memory(1, 2, 3))  # saves seconds
    out = tmp_path / "cost"
    answer = succeed("profile", runs / "a", runs / "b", "--out", out, *QUICK, "--json").json
    assert answer["metric"] == "accuracy"
    a, b = answer["profiles"]
    assert b["scores"]["accuracy"] == 100.0
    assert a["executed_on"] == "data"
    assert a["data"].startswith("S")  # a video of the look-alike
    assert a["total"]["params"] < b["total"]["params"]
    names = {"profile.json", "profile.csv", "parts.csv", "profile.txt", "cost.png", "cost.svg", "cost.html"}
    assert {path.name for path in out.iterdir()} == names
    assert {Path(path).name for path in answer["written"]} == names
    rows = list(csv.DictReader((out / "profile.csv").open()))
    assert [float(row["accuracy"]) for row in rows] == [p["scores"]["accuracy"] for p in (a, b)]
    assert [int(row["macs"]) for row in rows] == [p["total"]["macs"] for p in (a, b)]
    parts = list(csv.DictReader((out / "parts.csv").open()))
    assert sum(int(row["macs"]) for row in parts if row["name"] == str(runs / "a")) == a["total"]["macs"]
    saved = json.loads((out / "profile.json").read_text())
    assert saved["profiles"][0]["total"] == a["total"]
    assert "accuracy" in (out / "profile.txt").read_text()


def test_a_run_without_its_data_reads_random_numbers(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(runs / "a" / "model")
    config = (runs / "a" / "config.yaml").read_text().replace(str(runs / "data"), str(tmp_path / "gone"))
    (tmp_path / "run" / "config.yaml").write_text(config)
    done = framecast("profile", tmp_path / "run", "--counts-only")
    assert done.code == 0
    assert "a random input is taken" in done.err
    refused = framecast("profile", tmp_path / "run", "--counts-only", "--data", tmp_path / "gone")
    assert refused.code == 1
    moved = succeed("profile", tmp_path / "run", "--counts-only", "--data", runs / "data", "--json").json
    assert moved["profiles"][0]["executed_on"] == "data"


def test_the_video_of_median_length_is_taken(runs: Path) -> None:
    subject = find_subject(str(runs / "a"))
    found = own_input(subject)
    assert found is not None
    assert tuple(found[0].shape[:2]) == (1, 8)


def test_a_study_counts_as_its_first_run_with_the_mean_score(runs: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        (tmp_path / f"split1-seed{seed}").symlink_to(runs / "a")
    (tmp_path / "summary.json").write_text(json.dumps({"mean": {"accuracy": 55.5, "edit": None}, "runs": []}))
    assert scores_of(tmp_path) == {"accuracy": 55.5}
    assert find_subject(str(tmp_path)).shape[0] == 8


def test_the_metric_is_one_that_all_runs_share() -> None:
    assert choose_metric([{"edit": 1.0, "accuracy": 2.0}, {}]) == "accuracy"
    assert choose_metric([{"edit": 1.0, "accuracy": 2.0}, {"edit": 3.0}]) == "edit"
    assert choose_metric([{}, {}]) is None
    with pytest.raises(ValueError, match="they have edit"):
        choose_metric([{"edit": 1.0}], "f1")


@pytest.mark.parametrize(
    ("name", "size", "shape", "config"),
    [
        ("vit_tiny", None, (3, 224, 224), {}),
        ("vit_tiny", "224x320", (3, 224, 320), {"image_size": (224, 320)}),
        ("videomamba_tiny", None, (3, 224, 224), {}),
        ("videomamba_tiny", "8x224", (3, 8, 224, 224), {"num_frames": 8}),
        ("timesformer_base", "96", (3, 8, 96, 96), {"image_size": 96}),
        ("timesformer_base", "4x96x112", (3, 4, 96, 112), {"image_size": (96, 112), "num_frames": 4}),
        ("ltcontext", None, (2048, 5000), {}),
        ("ltcontext", "300", (2048, 300), {}),
        ("ltcontext", "64x300", (64, 300), {"feature_dim": 64}),
    ],
)
def test_sizes_are_read_as_the_model_reads_them(
    name: str, size: str | None, shape: tuple, config: dict
) -> None:
    subject = find_subject(name, size)
    assert (subject.shape, subject.config) == (shape, config)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nothing to profile"),
        (("vit_tny",), "did you mean 'vit_tiny'"),
        (("vit_tiny", "--input", "225"), "multiples of 16"),
        (("vit_tiny", "--input", "0"), "is no size"),
        (("vit_tiny", "--input", "2x2x2x2"), "is no size"),
        (("vit_tiny", "--input", "8x224x224"), "vit_tiny reads images"),
        (("mstcn", "--input", "1x2x3"), "mstcn reads features"),
        (("mstcn", "mstcn"), "named twice"),
        (("mstcn", "--metric", "fame", "--counts-only"), "none of the models has scores"),
        (("mstcn", "--device", "toaster"), "unknown device"),
    ],
)
def test_mistakes_are_told_in_one_line(words: tuple[str, ...], message: str) -> None:
    done = framecast("profile", *words)
    assert done.code == 1
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not done.out


def test_a_run_refuses_other_channels(runs: Path) -> None:
    done = framecast("profile", runs / "a", "--input", "16x100")
    assert done.code == 1
    assert "8 channels, not 16" in done.err


def test_figures_are_written_for_people() -> None:
    assert [quantity(n) for n in (0, 999, 5_717_416, 1_253_683_200)] == ["0", "999", "5.72 M", "1.25 G"]
    assert quantity(999_999) == "1.00 M"
    assert [figure(x) for x in (0.01234, 3.14159, 1234.5)] == ["0.0123", "3.14", "1,234"]
