"""Recognition scores against their definitions, and view protocols."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from framecast.metrics.recognition import RecognitionMetrics, calibration_error
from framecast.metrics.view_protocols import (
    VIEW_PROTOCOLS,
    ViewProtocol,
    default_view_protocol,
    get_view_protocol,
    list_view_protocols,
    register_view_protocol,
    softmax,
)


def collected(probabilities: np.ndarray, targets: np.ndarray) -> RecognitionMetrics:
    metrics = RecognitionMetrics(num_classes=probabilities.shape[1])
    for i, (p, target) in enumerate(zip(probabilities, targets, strict=True)):
        metrics.update(p, int(target), f"sample {i}")
    return metrics


def test_small_case_by_hand() -> None:
    metrics = RecognitionMetrics(("cat", "dog", "owl"))
    metrics.update([0.7, 0.2, 0.1], 0)
    metrics.update([0.4, 0.5, 0.1], 0)
    metrics.update(torch.tensor([0.1, 0.8, 0.1]), 1)
    scores = metrics.compute()
    assert scores["top1"] == pytest.approx(200 / 3)
    assert scores["top5"] == 100
    assert scores["mean_class_accuracy"] == 75  # owl does not occur
    assert scores["nll"] == pytest.approx(-np.log([0.7, 0.4, 0.8]).mean())
    assert scores["brier"] == pytest.approx(np.mean([0.14, 0.36 + 0.25 + 0.01, 0.06]))
    assert scores["ece"] == pytest.approx((0.3 + 0.5 + 0.2) / 3)
    assert metrics.confusion().tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert metrics.per_class()["cat"] == 50
    assert np.isnan(metrics.per_class()["owl"])
    assert metrics.predictions()[1] == {"source": "", "target": 0, "predicted": 1, "probability": 0.5}


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(1, 60), st.integers(0, 100))
def test_scores_equal_their_definitions(classes: int, samples: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = softmax(rng.normal(size=(samples, classes)) * 2)
    y = rng.integers(0, classes, samples)
    scores = collected(p, y).compute()
    order = np.argsort(-p, axis=1, kind="stable")
    assert scores["top1"] == pytest.approx(100 * np.mean(order[:, 0] == y))
    assert scores["top5"] == pytest.approx(100 * np.mean((order[:, :5] == y[:, None]).any(1)))
    assert scores["brier"] == pytest.approx(((p - np.eye(classes)[y]) ** 2).sum(1).mean())
    assert scores["nll"] == pytest.approx(-np.log(p[np.arange(samples), y]).mean())
    confidence, right = p.max(1), p.argmax(1) == y
    ece = 0.0
    for k in range(15):
        inside = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        if inside.any():
            ece += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert scores["ece"] == pytest.approx(ece)
    recalls = [np.mean(p.argmax(1)[y == k] == k) for k in set(y)]
    assert scores["mean_class_accuracy"] == pytest.approx(100 * np.mean(recalls))


def test_ties_go_to_the_lower_class() -> None:
    uniform = np.full((4, 8), 1 / 8)
    scores = collected(uniform, np.array([0, 4, 5, 7])).compute()
    assert scores["top1"] == 25
    assert scores["top5"] == 50


def test_a_certain_mistake_stays_finite() -> None:
    scores = collected(np.array([[1.0, 0.0]]), np.array([1])).compute()
    assert np.isfinite(scores["nll"])
    assert scores["brier"] == 2
    assert calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0


def test_parts_merge_to_the_whole_and_repeats_count_once() -> None:
    rng = np.random.default_rng(0)
    p, y = softmax(rng.normal(size=(20, 5))), rng.integers(0, 5, 20)
    whole = collected(p, y)
    first, second = RecognitionMetrics(num_classes=5), RecognitionMetrics(num_classes=5)
    for i in range(20):
        (first if i % 2 else second).update(p[i], int(y[i]), f"sample {i}")
    second.update(p[1] + 1e-6, int(y[1]), "sample 1")  # of a padded sampler, rounded otherwise
    restored = RecognitionMetrics(num_classes=5)
    restored.load_state_dict(json.loads(json.dumps(second.state_dict())))
    merged = first.merge(restored)
    assert len(merged) == 20
    assert merged.compute() == pytest.approx(whole.compute(), abs=1e-5)
    merged.reset()
    assert len(merged) == 0


def test_what_is_wrong_is_refused() -> None:
    metrics = RecognitionMetrics(("a", "b"))
    for probabilities, target, message in (
        ([0.5, 0.3, 0.2], 0, "shape"),
        ([2.0, -1.0], 0, "softmax"),
        ([0.4, float("nan")], 0, "softmax"),
        ([0.5, 0.5], 2, "target 2"),
    ):
        with pytest.raises(ValueError, match=message):
            metrics.update(probabilities, target)
    with pytest.raises(ValueError, match="call update"):
        metrics.compute()
    metrics.update([0.9, 0.1], 0, "x")
    with pytest.raises(ValueError, match="counted before"):
        metrics.update([0.1, 0.9], 0, "x")
    with pytest.raises(ValueError, match="same classes"):
        metrics.merge(RecognitionMetrics(num_classes=3))
    with pytest.raises(ValueError, match="either"):
        RecognitionMetrics()


# --- View protocols ----------------------------------------------------------------------------------------


def test_protocols_are_found_by_name() -> None:
    assert get_view_protocol("kinetics/3x4").num_views == 12
    assert get_view_protocol("ssv2/3x2").num_views == 6
    assert get_view_protocol("coin/3x10").num_views == 30
    assert get_view_protocol("timesformer/3x1").average == "logits"
    assert set(list_view_protocols("image/*")) < set(VIEW_PROTOCOLS)
    assert default_view_protocol("video").num_views == default_view_protocol("image").num_views == 1
    with pytest.raises(ValueError, match="did you mean 'kinetics/3x4'"):
        get_view_protocol("kinetics/4x3")
    with pytest.raises(ValueError, match="other settings"):
        register_view_protocol(ViewProtocol("clip/1x1", "video", clips=2))
    for name, protocol in VIEW_PROTOCOLS.items():
        assert protocol.name == name
        assert protocol.description


@pytest.mark.parametrize("changes", [{"crops": 2}, {"clips": 0}, {"crops": 3, "crop_ratio": 0.875}])
def test_impossible_protocols_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="protocol mine"):
        ViewProtocol("mine", "video", **changes)


def test_views_are_averaged_after_or_before_the_softmax() -> None:
    logits = np.array([[4.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    after, before = get_view_protocol("kinetics/3x4"), get_view_protocol("timesformer/3x1")
    np.testing.assert_allclose(after.combine(logits), softmax(logits).mean(0))
    np.testing.assert_allclose(before.combine(torch.tensor(logits)), softmax(logits.mean(0)))
    assert after.combine(logits[None] + 1e4).shape == (1, 3)  # large logits overflow nothing
    with pytest.raises(ValueError, match="views"):
        after.combine(logits[0])
