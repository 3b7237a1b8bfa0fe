"""One thread, and a small trained run beside its data."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))  # small_world

from small_world import TINY_RUN, succeed

from framecast.data.synthetic import write_lookalike


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, and with the runs `a` and `b`, trained on it; b claims to be perfect."""
    root = tmp_path_factory.mktemp("profile")
    write_lookalike("gtea", root / "data", num_videos=6, feature_dim=8)
    for name, width in (("a", 8), ("b", 16)):
        wide = ("--set", f"model.config.width={width}", "--set", "epochs=1")
        succeed("train", "segmentation", "--data", root / "data", *TINY_RUN, *wide, "--out", root / name)
    summary = json.loads((root / "b" / "summary.json").read_text())
    summary["metrics"]["accuracy"] = 100.0
    (root / "b" / "summary.json").write_text(json.dumps(summary))
    return root
