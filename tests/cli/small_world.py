"""A small world in which the command line is run: a data folder, videos, a backbone, trained runs."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

import framecast as fc
from framecast.cli import main
from framecast.data.synthetic import write_lookalike
from video_factory import write_video

TINY_VIT = {"width": 24, "depth": 2, "num_heads": 3, "patch_size": 8, "image_size": 32, "num_classes": 0}
TINY_LTCONTEXT = ("num_stages=2", "num_layers=2", "width=8", "window=8", "stride=4")
TINY_RUN = (
    *(word for setting in TINY_LTCONTEXT for word in ("--set", f"model.config.{setting}")),
    *("--set", "schedule.name=constant", "--set", "schedule.warmup=0", "--device", "cpu"),
    *("--set", "watch_every=2"),
)
LABELS = ("pour", "stir")


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def framecast(*arguments: object, cwd: Path | None = None) -> Outcome:
    """Run a command in this process, as `main` runs it."""
    out, err = io.StringIO(), io.StringIO()
    words = ["framecast", *(str(argument) for argument in arguments)]
    with (
        mock.patch.object(sys, "argv", words),
        redirect_stdout(out),
        redirect_stderr(err),
        chdir(cwd or os.getcwd()),
        pytest.raises(SystemExit) as stop,
    ):
        main()
    code = stop.value.code
    return Outcome(code if isinstance(code, int) else 1, out.getvalue(), err.getvalue())


def succeed(*arguments: object, cwd: Path | None = None) -> Outcome:
    done = framecast(*arguments, cwd=cwd)
    assert done.code == 0, done.err
    assert "error" not in done.err
    return done


@dataclass(frozen=True)
class World:
    """Read-only; a test that changes something copies it first."""

    root: Path

    @property
    def data(self) -> Path:  # GTEA look-alike, 8 channels, no provenance
        return self.root / "gtea"

    @property
    def run(self) -> Path:  # trained on it
        return self.root / "run"

    @property
    def kitchen(self) -> Path:  # videos/, segments.csv, features/ by the tiny backbone
        return self.root / "kitchen"

    @property
    def kitchen_run(self) -> Path:  # trained on it
        return self.root / "kitchen-run"

    @property
    def vit(self) -> Path:  # the tiny backbone
        return self.root / "tiny-vit"

    @property
    def track(self) -> Path:  # a feature file of the look-alike
        return self.data / "features" / "S1_Cheese_C1.npy"

    @property
    def video(self) -> Path:
        return self.kitchen / "videos" / "monday.mp4"

    @property
    def backbone(self) -> tuple[str, ...]:
        """Options that make features with the tiny backbone."""
        return ("--backbone", "vit_tiny", "--weights", str(self.vit), "--size", "32x32")


def build_world(root: Path) -> World:
    """Everything by the command line itself, as a user makes it."""
    w = World(root)
    write_lookalike("gtea", w.data, num_videos=6, feature_dim=8)
    succeed("train", "segmentation", "--data", w.data, *TINY_RUN, "--set", "epochs=2", "--out", w.run)
    torch.manual_seed(0)
    fc.save(fc.create_model("vit_tiny", **TINY_VIT), w.vit)
    (w.kitchen / "videos").mkdir(parents=True)
    rows = ["video,start,end,label"]
    for i, day in enumerate(("monday", "tuesday", "friday")):
        write_video(w.kitchen / "videos" / f"{day}.mp4", 24 + i)
        rows += [f"{day},2,12,{LABELS[0]}", f"{day},12,{20 + i},{LABELS[1]}"]
    (w.kitchen / "segments.csv").write_text("\n".join(rows) + "\n")
    succeed("features", w.kitchen / "videos", "--out", w.kitchen / "features", *w.backbone)
    epochs = ("--set", "epochs=2", "--set", "data.folds=3")
    succeed("train", "segmentation", "--data", w.kitchen, *TINY_RUN, *epochs, "--out", w.kitchen_run)
    return w
