"""The stability watch tells what happens in a run and changes nothing of it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from framecast.train.guard import NonFiniteError
from framecast.train.loop import train
from framecast.train.records import read_metrics
from framecast.train.stability import read_stability, unusual, watched_layers
from framecast.viz.stability import draw_stability, losses

from .test_resume import SCRIPT, Crash, CrashingTask
from .tiny_task import TinyModel, TinyTask, save_tiny, tiny_recipe, weights_of

LAYERS = ["stem", "blocks.0", "blocks.1", "head"]
CHANGES: dict[str, Any] = {"epochs": 5, "accumulate": 2, "clip_norm": 0.5, "ema_decay": 0.9}


def run(folder: Path, task: TinyTask | None = None, **changes: Any) -> list[dict[str, Any]]:
    train(tiny_recipe(**CHANGES | changes), task or TinyTask(), folder, save_model=save_tiny)
    return read_stability(folder)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_training_keeps_its_bits(tmp_path: Path, batch_norm: bool, precision: str) -> None:
    """Also where steps are skipped, for which the watch repeats the forward pass to find the place."""

    def task() -> TinyTask:
        task = TinyTask(augment=False, batch_norm=batch_norm)
        task.train_data.features[3] = np.inf
        return task

    changes = {"nonfinite": "skip", "precision": precision, "accumulate": 1}
    plain, watched = tmp_path / "plain", tmp_path / "watched"
    assert run(plain, task(), **changes) == []
    assert not (plain / "stability.jsonl").exists()
    rows = run(watched, task(), watch_every=1, **changes)
    assert sum("nonfinite" in row for row in rows) == 5
    torch.testing.assert_close(weights_of(watched), weights_of(plain), rtol=0, atol=0)
    without_time = [[{**row, "seconds": 0} for row in read_metrics(run)] for run in (plain, watched)]
    assert without_time[0] == without_time[1]


def test_what_a_line_says(tmp_path: Path) -> None:
    rows = run(tmp_path, watch_every=4)
    watched = [row for row in rows if "layers" in row]
    assert [row["step"] for row in watched] == [1, 4, 8, 12]
    metrics = [row for row in read_metrics(tmp_path) if row["kind"] == "train"]
    steps, values = losses(rows)
    assert steps.tolist() == list(range(1, 16))
    assert values == pytest.approx([row["loss"] for row in metrics], rel=1e-5)
    norms = [norm for row in rows for norm in row["grad_norms"]]
    assert norms == pytest.approx([row["grad_norm"] for row in metrics], rel=1e-5)
    for row in watched:
        assert list(row["layers"]) == LAYERS
        total = math.hypot(*(layer["gradient"] for layer in row["layers"].values()))
        assert total == pytest.approx(row["grad_norms"][-1], rel=1e-5)  # before clipping


def test_the_size_of_outputs_over_micro_batches(tmp_path: Path) -> None:
    """One batch of the whole data, so that it can be computed again with the first weights."""
    task = TinyTask(augment=False, dropout=0.0)
    rows = run(tmp_path, task, batch_size=10, accumulate=3, epochs=1, watch_every=1)
    from framecast.train.rng import WEIGHTS, rng_untouched, seed_everything

    with rng_untouched(), torch.no_grad():
        seed_everything(0, WEIGHTS)
        model = task.build_model()
        out = model.stem(torch.as_tensor(task.train_data.features, dtype=torch.float32))
    seen = rows[0]["layers"]["stem"]
    assert seen["activation"] == pytest.approx(out.square().mean().sqrt().item(), rel=1e-5)
    assert seen["largest"] == pytest.approx(out.abs().max().item(), rel=1e-5)


class PairBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, h: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(r), r + 100


class PairModel(nn.Module):
    """Layers that give a pair: what joins the stream next, and the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(6))
        self.layers = nn.ModuleList(PairBlock() for _ in range(2))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, r = x, x + self.token
        for layer in self.layers:
            h, r = layer(h, r)
        return self.head(h)


class PairTask(TinyTask):
    def build_model(self) -> nn.Module:  # ty: ignore
        return PairModel()


def test_layers_that_give_a_pair(tmp_path: Path) -> None:
    layers = run(tmp_path, PairTask(), watch_every=1, epochs=1)[0]["layers"]
    assert list(layers) == ["layers.0", "layers.1", "head", "token"]
    assert layers["layers.1"]["largest"] > 190 > layers["layers.1"]["activation"]
    assert list(layers["token"]) == ["gradient"]


def test_which_layers_are_watched() -> None:
    model = TinyModel(0.0)
    assert list(watched_layers(model)) == LAYERS
    model.stages = nn.ModuleList([nn.Sequential(nn.ModuleList([nn.Linear(2, 2)])), nn.GELU()])
    assert list(watched_layers(model))[-1] == "stages.0.0.0"
    assert list(watched_layers(nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.Linear(2, 2)))) == ["0", "2"]


@pytest.mark.parametrize("step", [1, 2, 5, 7, 13])
def test_a_resumed_run_tells_what_an_unbroken_one_does(tmp_path: Path, step: int) -> None:
    changes: dict[str, Any] = {"save_every": 5, "save_every_steps": 2, "watch_every": 3}
    unbroken = run(tmp_path / "unbroken", **changes)
    with pytest.raises(Crash):
        run(tmp_path / "cut", CrashingTask(step), **changes)
    assert run(tmp_path / "cut", **changes) == unbroken
    assert losses(unbroken)[0].tolist() == list(range(1, 16))


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    rows = run(tmp_path, watch_every=4)
    with (tmp_path / "stability.jsonl").open("a") as file:
        file.write('{"step": 99, "los')
    assert read_stability(tmp_path) == rows


def test_the_watch_can_be_switched_on_later(tmp_path: Path) -> None:
    run(tmp_path, epochs=2)
    rows = run(tmp_path, epochs=4, watch_every=3)
    assert losses(rows)[0].tolist() == [7, 8, 9, 10, 11, 12]


class JumpingTask(TinyTask):
    """One step in which the loss is far higher than before."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.calls, self.step = 0, step

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        self.calls += 1
        loss, parts = super().loss(model, batch)
        return loss + 10 * (self.calls == self.step), parts


def test_a_jump_of_the_loss_is_said_and_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(tmp_path, JumpingTask(20), epochs=10, accumulate=1, watch_every=10)
    assert [step for row in rows for step in row.get("spikes", [])] == [20]
    assert "step 20: loss 1" in capsys.readouterr().err


def test_what_is_unusual() -> None:
    usual = [2.0 + 0.01 * (i % 5) for i in range(50)]
    assert unusual(2.1, usual) is None  # many deviations, but small
    assert unusual(2.5, usual) == pytest.approx(2.02)
    assert unusual(1.0, usual) is None
    assert unusual(math.nan, usual) is not None
    assert unusual(1e9, usual[:9]) is None  # too early to say
    noisy = [2.0 + (i % 7) / 3 for i in range(50)]
    assert unusual(5.0, noisy) is None
    assert unusual(9.0, noisy) is not None


class BrokenBlockTask(TinyTask):
    def __init__(self, call: int) -> None:
        super().__init__()
        self.calls, self.call = 0, call

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        self.calls += 1
        if self.calls >= self.call:
            with torch.no_grad():
                model.get_submodule("blocks.1.0").get_parameter("weight").fill_(3e38)
        return super().loss(model, batch)


def test_the_place_where_numbers_break(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError):
        run(tmp_path, BrokenBlockTask(8), accumulate=1, watch_every=2)
    row = read_stability(tmp_path)[-1]
    assert row["step"] == 8
    assert "not finite is blocks.1.0 (Linear)" in row["nonfinite"]
    layers = row["layers"]
    assert [name for name in LAYERS if layers[name]["largest"] is None] == ["blocks.1", "head"]
    assert "NaN" not in (tmp_path / "stability.jsonl").read_text()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    changes = {"epochs": 2, "batch_size": 3, "watch_every": 2}
    task = {"dropout": 0.0, "dtype": "float64"}
    jobs = [
        {"run": str(folder / parallel), "changes": changes | {"parallel": parallel}, "task": task}
        for parallel in ("ddp", "fsdp")
    ]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(SCRIPT), json.dumps(jobs)], env=env, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    train(
        tiny_recipe(**changes),
        TinyTask(dropout=0.0, dtype=torch.float64),
        folder / "alone",
        save_model=save_tiny,
    )
    return folder


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_see_what_one_does(two_processes: Path, parallel: str) -> None:
    """Steps 4 and 8 have a single sample, which the second process repeats: outputs count twice, alike."""
    rows, alone = read_stability(two_processes / parallel), read_stability(two_processes / "alone")
    assert not list((two_processes / parallel).glob("error-*"))
    assert [row["step"] for row in rows] == [row["step"] for row in alone]
    for row, other in zip(rows, alone, strict=True):
        assert row["losses"] == pytest.approx(other["losses"], rel=1e-5)
        for name, layer in other.get("layers", {}).items():
            assert row["layers"][name] == pytest.approx(layer, rel=1e-4)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_picture(tmp_path: Path, suffix: str) -> None:
    rows = run(tmp_path, watch_every=4)
    plain = draw_stability(rows, tmp_path / f"a{suffix}", title="a $run_{ of mine")
    rows[-1]["layers"] = {name: {"activation": None, "largest": 1.0, "gradient": 0.0} for name in LAYERS}
    broken = draw_stability(rows, tmp_path / f"b{suffix}")
    if suffix == ".svg":
        assert ElementTree.parse(plain).getroot().tag.endswith("svg")
        return
    red = [reds(path) for path in (plain, broken)]
    assert red[0] == 0
    assert red[1] > 500


def reds(path: Path) -> int:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return int((np.abs(pixels - (0xD0, 0x34, 0x2C)) <= 3).all(-1).sum())


def test_long_runs_are_thinned(tmp_path: Path) -> None:
    layers = {"a": {"activation": 1.0, "largest": 2.0, "gradient": 0.1}}
    rows: list[dict[str, Any]]
    rows = [{"step": s, "losses": [1 / s], "grad_norms": [1.0], "layers": layers} for s in range(1, 4000)]
    rows[2000]["layers"] = {"a": {"activation": None, "largest": 2.0, "gradient": 0.1}}
    assert reds(draw_stability(rows, tmp_path / "long.png")) > 50


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no step was watched"):
        draw_stability([{"step": 3, "losses": [1.0]}], tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"neither \.png nor \.svg"):
        draw_stability([], tmp_path / "a.pdf")
