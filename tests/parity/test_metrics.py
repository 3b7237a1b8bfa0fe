"""Segmentation and anticipation scores against the original evaluation functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from golden import Fixture, fixtures, require

from framecast.metrics import AnticipationMetrics, AnticipationProtocol, Protocol, SegmentationMetrics
from framecast.metrics.segmentation import KEYS

TOLERANCE = 1e-9
PERCENT = np.array([100, 1, 100, 100, 100])  # the fixtures hold accuracy and F1 in 0..1, edit in 0..100


@pytest.mark.parametrize("fixture", fixtures("metrics"))
def test_scores_equal_the_original(fixture: Fixture | None) -> None:
    fixture = require(fixture)
    assert fixture.kind in CHECKS, f"{fixture.path} is of kind {fixture.kind!r}, unknown to this test"
    CHECKS[fixture.kind](fixture)


def check_segmentation(fixture: Fixture) -> None:
    tensors = {key: value.numpy() for key, value in fixture.tensors.items()}
    limits = np.cumsum(tensors["lengths"])[:-1]
    predicted, target = np.split(tensors["pred"], limits), np.split(tensors["gt"], limits)
    for suffix, ignored in fixture.meta["ignore_sets"].items():
        metrics = SegmentationMetrics(ignore=ignored)
        for video, p, t in zip(fixture.meta["videos"], predicted, target, strict=True):
            metrics.update(p, t, video)
        rows = metrics.per_video()
        assert [row.video for row in rows] == fixture.meta["videos"]
        scores = np.array([[row.scores()[key] for key in KEYS] for row in rows])
        assert_close(scores, tensors[f"f64.per_video.{suffix}"])
        counts = [[r.true_positives, r.false_positives, r.false_negatives] for r in rows]
        np.testing.assert_array_equal(np.transpose(counts, (0, 2, 1)), tensors[f"f64.counts.{suffix}"])
        for averaging, name in (("videos", "mean"), ("pooled", "pooled")):
            got = metrics.compute(Protocol("golden", "golden", averaging))
            assert_close(np.array([got[key] for key in KEYS]), tensors[f"f64.{name}.{suffix}"])
            assert got["num_videos"] == len(predicted)


def assert_close(got: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(got / PERCENT, expected, rtol=0, atol=TOLERANCE)


def anticipated(fixture: Fixture) -> tuple[AnticipationMetrics, dict[str, np.ndarray], tuple[float, ...]]:
    """All videos of a fixture, whose predictions begin at frame 0; its tensors; the observed shares."""
    tensors = {key: value.numpy() for key, value in fixture.tensors.items()}
    shares = tuple(
        sorted(float(key.removeprefix("pred.obs")) for key in tensors if key.startswith("pred.obs"))
    )
    metrics = AnticipationMetrics(num_classes=fixture.meta["num_classes"])
    target = np.split(tensors["gt"], np.cumsum(tensors["lengths"])[:-1])
    for share in shares:
        limits = np.cumsum(tensors[f"pred_lengths.obs{share:g}"])[:-1]
        predicted = np.split(tensors[f"pred.obs{share:g}"].astype(np.int64), limits)
        for video, p, t in zip(fixture.meta["videos"], predicted, target, strict=True):
            metrics.update(p.T, t, share, video, first_frame=0)
    return metrics, tensors, shares


def check_anticipation(fixture: Fixture) -> None:
    metrics, tensors, shares = anticipated(fixture)
    protocol = AnticipationProtocol("golden", observed=shares, samples=fixture.meta["n_samples"])
    single = AnticipationProtocol("golden", observed=shares, samples=None, precision="single")
    got, rounded = metrics.compute(protocol), metrics.compute(single)
    for share in shares:
        of_share = f"obs{share:g}"
        names = [f"{100 * share:g}/{100 * horizon:g}" for horizon in protocol.horizons]
        keys = ("mean_moc", "top1_moc", "diversity")
        scores = np.array([[got[f"{key}@{name}"] for key in keys] for name in names]) / (100, 100, 1)
        np.testing.assert_allclose(scores, tensors[f"f64.result.{of_share}"], rtol=0, atol=TOLERANCE)
        scores = np.array([[rounded[f"{key}@{name}"] for key in keys[:2]] for name in names]) / 100
        np.testing.assert_allclose(scores, tensors[f"f64.float32.result.{of_share}"], rtol=0, atol=TOLERANCE)
        accuracy = [got[f"accuracy@{name}"] for name in names]
        np.testing.assert_allclose(
            accuracy, tensors[f"f64.mof_percent.{of_share}"], rtol=0, atol=100 * TOLERANCE
        )

        videos = metrics.per_video(protocol, share)
        chosen = np.stack([video.best for video in videos], axis=1)
        np.testing.assert_array_equal(chosen, tensors[f"selected_sample.{of_share}"])
        num_samples, counts = (
            fixture.meta["n_samples"],
            np.zeros_like(tensors[f"f64.class_counts.{of_share}"]),
        )
        for video in videos:
            right, picked = video.hits.sum(1), video.hits[range(len(names)), video.best]
            parts = [right, num_samples * video.frames - right, picked, video.frames - picked]
            counts += np.stack(parts, axis=1)
        np.testing.assert_array_equal(counts, tensors[f"f64.class_counts.{of_share}"])


def check_2018(fixture: Fixture) -> None:
    metrics, tensors, shares = anticipated(fixture)
    protocol = AnticipationProtocol("golden", observed=shares, samples=1, too_short="cut")
    got = metrics.compute(protocol)
    scores = [[got[f"moc@{100 * a:g}/{100 * b:g}"] for b in protocol.horizons] for a in shares]
    np.testing.assert_allclose(np.array(scores) / 100, tensors["f64.moc"], rtol=0, atol=TOLERANCE)
    assert got["num_videos"] == len(fixture.meta["videos"])


CHECKS: dict[str, Any] = {
    "segmentation": check_segmentation,
    "anticipation": check_anticipation,
    "moc2018": check_2018,
}
