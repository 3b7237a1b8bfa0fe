"""`framecast demo --data FOLDER` trains on a folder in a standard layout and shows its test videos."""

from __future__ import annotations

from pathlib import Path

import pytest

from framecast.cli import run
from framecast.data.synthetic import write_lookalike


def test_demo_on_a_folder_named_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lookalike("mstcn", tmp_path / "my folder", seed=0)
    monkeypatch.chdir(tmp_path)
    assert run(["demo", "--data", "my folder", "--epochs", "1"]) == 0
    written = {path.name for path in (tmp_path / "demo").iterdir()}
    assert {"index.html", "segments.csv", "segments.json", "run"} <= written
    assert len([name for name in written if name.endswith(".png")]) == 2  # the videos of the test fold
