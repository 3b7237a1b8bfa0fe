"""Futures begin where the timeline ends, and an unsure past makes unsure futures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import framecast as fc
from framecast.checkpoints import ModelCard
from framecast.data.timelines import read_timelines
from framecast.infer.forecaster import Forecaster
from framecast.structures import FeatureTrack, Segments
from framecast.tasks.forecasting import Sampling

CLASSES = ("pour", "stir", "drink", "wash")
FEW = Sampling(samples=6, steps=3)
RATE = {"frames_per_second": 10.0}


def model(observe: str = "labels", **card: Any) -> Any:
    """MANTA that reads one step a second, with random weights far from any special value."""
    torch.manual_seed(0)
    channels = {"labels": 4, "features": 3, "both": 7}[observe]
    built = fc.create_model(
        "manta", num_classes=4, feature_dim=channels, num_layers=2, width=8, diffusion_steps=20
    )
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    given = {"classes": CLASSES, "sample_rate": 10, "notes": RATE | {"observe": observe}} | card
    built.card = ModelCard(task="anticipation", **given)
    return built.eval()


def timeline(tmp_path: Path, text: str = "k,0,4,pour\nk,4,12,stir\n") -> Segments:
    (tmp_path / "seen.csv").write_text("video,start_s,end_s,label\n" + text)
    return read_timelines(tmp_path / "seen.csv", CLASSES)[0]


def test_a_future_begins_where_the_timeline_ends(tmp_path: Path) -> None:
    forecaster = Forecaster(model(), sampling=FEW)
    futures = forecaster(timeline(tmp_path), horizon_s=30)
    assert futures.samples.shape == (6, 30)
    assert futures.start_s == pytest.approx(12.0)
    assert futures.step_s == pytest.approx(1.0)
    assert futures.observed.names == ["pour", "stir"]
    assert np.allclose(futures.probabilities.sum(0), 1)
    again = forecaster(timeline(tmp_path), horizon_s=30, samples=3)
    assert np.array_equal(again.samples, futures.samples[:3])  # more futures do not change the first ones
    other = forecaster(timeline(tmp_path), horizon_s=30, seed=1)
    assert not np.array_equal(other.samples, futures.samples)


def test_frames_and_seconds_say_the_same(tmp_path: Path) -> None:
    forecaster = Forecaster(model(), sampling=FEW)
    (tmp_path / "k.txt").write_text("pour\n" * 40 + "stir\n" * 80)
    frames = read_timelines(tmp_path / "k.txt", CLASSES, frames_per_second=10.0)[0]
    seconds = timeline(tmp_path)
    assert np.array_equal(forecaster(frames, 20).samples, forecaster(seconds, 20).samples)
    unknown_rate = read_timelines(tmp_path / "k.txt", CLASSES)[0]
    assert np.array_equal(forecaster(unknown_rate, 20).samples, forecaster(seconds, 20).samples)


def test_the_last_step_is_what_goes_on_now(tmp_path: Path) -> None:
    forecaster = Forecaster(model(), sampling=FEW)  # a step is 1 s
    seen = timeline(tmp_path, "k,0,4.2,pour\nk,4.2,4.5,stir\n")
    assert [CLASSES[i] for i in forecaster._labels_of(seen)] == ["pour"] * 4 + ["stir"]
    (tmp_path / "k.txt").write_text("pour\n" * 42 + "stir\n" * 3)
    frames = read_timelines(tmp_path / "k.txt", CLASSES)[0]
    assert [CLASSES[i] for i in forecaster._labels_of(frames)] == ["pour"] * 4 + ["stir"]
    both = Forecaster(model(observe="both"), sampling=FEW)  # there labels belong to features at their times
    assert [CLASSES[i] for i in both._labels_of(seen)] == ["pour"] * 5


def test_an_unsure_past_is_drawn_segment_by_segment(tmp_path: Path) -> None:
    forecaster = Forecaster(model(), sampling=replace(FEW, samples=40))
    sure = timeline(tmp_path)
    hot = np.eye(4)[sure.frame_labels].T
    assert len(forecaster._drawn_pasts(sure, sure.labels, forecaster.sampling)) == 1
    unsure = replace(sure, frame_probs=0.5 * hot + 0.5 * np.eye(4)[[3]].T)
    drawn = forecaster._drawn_pasts(unsure, sure.labels, forecaster.sampling)
    assert sum(count for _, count in drawn) == 40
    pasts = {tuple(labels) for labels, _ in drawn}
    steps = {(a,) * 4 + (b,) * 8 for a in (0, 3) for b in (1, 3)}
    assert pasts == steps  # each segment is one class or the other as a whole
    assert len(forecaster(unsure, 20)) == 40


class Guesser(torch.nn.Module):
    """Sure of 0 where it is asked for one future, else all are 1."""

    def __init__(self) -> None:
        super().__init__()
        notes = RATE | {"observe": "labels"}
        self.card = ModelCard(task="anticipation", classes=CLASSES, sample_rate=10, notes=notes)

    def forecast(
        self, observed: np.ndarray, num_future: int, total_length: int, samples: int = 1, rng: Any = None
    ) -> np.ndarray:
        return np.full((samples, num_future), int(samples > 1))


def test_after_drawn_pasts_futures_are_draws_and_no_best_guesses(tmp_path: Path) -> None:
    forecaster = Forecaster(Guesser(), sampling=replace(FEW, samples=4))
    sure = timeline(tmp_path, "".join(f"k,{i},{i + 1},{CLASSES[i % 2]}\n" for i in range(12)))
    unsure = replace(sure, frame_probs=np.full((4, sure.num_frames), 0.25))
    assert len(forecaster._drawn_pasts(unsure, sure.labels, forecaster.sampling)) == 4  # one future each
    assert (forecaster(unsure, 5).samples == 1).all()
    assert forecaster(unsure, 5).samples.shape == (4, 5)
    assert (forecaster(sure, 5, samples=1).samples == 0).all()


def test_features_are_observed_up_to_their_end() -> None:
    forecaster = Forecaster(
        model("features", sample_rate=1, notes=RATE | {"observe": "features"}), sampling=FEW
    )
    track = FeatureTrack(np.random.default_rng(0).standard_normal((3, 15)).astype(np.float32), source="k.npy")
    futures = forecaster(track, steps=8)
    assert futures.samples.shape == (6, 8)
    assert futures.observed.num_frames == 15
    with pytest.raises(ValueError, match="observes features"):
        forecaster(Segments.from_frames(np.zeros(5, dtype=int), CLASSES), steps=8)


def test_what_cannot_be_looked_ahead_from_is_refused(tmp_path: Path) -> None:
    forecaster = Forecaster(model(), sampling=FEW)
    with pytest.raises(ValueError, match="either horizon_s seconds or a number of steps"):
        forecaster(timeline(tmp_path))
    with pytest.raises(ValueError, match="segmentation model"):
        forecaster(tmp_path / "video.mp4", 10)
    with pytest.raises(ValueError, match=r"seen\.csv:2: class 'por'"):
        timeline(tmp_path, "k,0,4,por\n")
    stranger = Segments.from_frames(np.zeros(5, dtype=int), ("juggle",))
    with pytest.raises(ValueError, match="'juggle', which the model does not know"):
        forecaster(stranger, 10)
    with pytest.raises(ValueError, match="trained for it"):
        Forecaster(fc.create_model("manta", num_classes=4, feature_dim=4, num_layers=1, width=8))
    no_rate = Forecaster(model(notes={"observe": "labels"}), sampling=FEW)
    with pytest.raises(ValueError, match="give the horizon in steps"):
        no_rate(timeline(tmp_path), 10)
