"""Segmentation scores against the original evaluation functions, per video and under both averagings."""

from __future__ import annotations

import numpy as np
import pytest
from golden import Fixture, fixtures, require

from framecast.metrics import Protocol, SegmentationMetrics
from framecast.metrics.segmentation import KEYS

LATER = {"anticipation": "the anticipation task", "moc2018": "the anticipation task"}
TOLERANCE = 1e-9
PERCENT = np.array([100, 1, 100, 100, 100])  # the fixtures hold accuracy and F1 in 0..1, edit in 0..100


@pytest.mark.parametrize("fixture", fixtures("metrics"))
def test_scores_equal_the_original(fixture: Fixture | None) -> None:
    fixture = require(fixture)
    if fixture.kind == "segmentation":
        check_segmentation(fixture)
    elif fixture.kind in LATER:
        pytest.skip(f"kind {fixture.kind} comes with {LATER[fixture.kind]}")
    else:
        pytest.fail(f"{fixture.path} is of kind {fixture.kind!r}, which this test does not know")


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
