"""The part of the demo that looks ahead shows what may come beside what really came, and can be repeated."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from small_world import framecast

from framecast.cli.demonstration_futures import AHEAD, NOW_S, continuation, futures_demo, until
from framecast.structures import Segments


def test_futures_of_a_kitchen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = futures_demo(tmp_path, "cpu", tmp_path / "index.html")
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"kitchen_seen.csv", "futures.csv", "futures.json", "kitchen.png", "kitchen.html"}
    futures = entry.futures
    assert futures.start_s == pytest.approx(NOW_S)
    assert len(futures) == AHEAD.samples
    assert futures.num_steps * (futures.step_s or 0) == pytest.approx(AHEAD.horizon_s)
    out = capsys.readouterr().out
    assert "what really came: stir_egg (+3 s), pour_egg2pan (+16 s), stirfry_egg (+30 s)" in out
    page = (tmp_path / "kitchen.html").read_text(encoding="utf-8")
    assert "what happened" in page
    assert "Kuehne, Arslan and Serre, CVPR 2014" in page
    assert "CC BY 4.0" in page
    seen = (tmp_path / "kitchen_seen.csv").read_text()
    assert "stir_egg" not in seen  # nothing of what came is in what was seen


def test_the_command_that_is_shown_gives_the_same_futures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    futures_demo(tmp_path, "cpu", tmp_path / "index.html")
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("change "))
    _, *words = shlex.split(line.partition("again: ")[2])
    done = framecast(*words, "--no-pages", "--out", tmp_path / "again")
    assert done.code == 0, done.err
    first, again = (json.loads((tmp_path / part / "futures.json").read_text()) for part in (".", "again"))
    assert first["videos"][0]["samples"] == again["videos"][0]["samples"]


def test_a_timeline_is_cut_at_a_moment() -> None:
    whole = Segments.from_frames(np.repeat([0, 1, 2], 10), ("a", "b", "c"), times=np.arange(30) * 0.1)
    seen = until(whole, 1.5)
    assert list(seen.names) == ["a", "b"]
    assert seen.limits_s is not None
    assert seen.limits_s[-1, 1] == pytest.approx(1.5)
    assert continuation(whole, 1.5) == "c (+0 s)"  # half a second
