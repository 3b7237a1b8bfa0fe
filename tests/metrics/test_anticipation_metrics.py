"""Scores of futures against slow references frame by frame, and the laws they obey."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framecast.metrics import (
    AnticipationMetrics,
    AnticipationProtocol,
    SegmentationMetrics,
    get_anticipation_protocol,
    list_anticipation_protocols,
    register_anticipation_protocol,
)
from framecast.metrics.anticipation import average_splits
from framecast.metrics.recognition import calibration_error
from framecast.metrics.uncertainty import area_under_curve, ensemble_crps

K = 4
ANY = AnticipationProtocol("test/any", observed=(0.3,), horizons=(0.2, 0.5), samples=None)
Video = tuple[np.ndarray, np.ndarray]  # futures (S, M), labels (n,)


def runs(draw: Any, frames: int) -> np.ndarray:
    parts = draw(st.lists(st.tuples(st.integers(0, K - 1), st.integers(1, 9)), min_size=1, max_size=9))
    labels = np.concatenate([np.full(length, label) for label, length in parts])
    return np.resize(labels, frames)


@st.composite
def video_lists(draw: Any) -> list[Video]:
    """Videos whose samples agree with the truth now and then; as many samples for each."""
    samples, videos = draw(st.integers(1, 4)), []
    for _ in range(draw(st.integers(1, 3))):
        n = draw(st.integers(10, 40))
        labels, frames = runs(draw, n), int((0.3 + 0.5) * n) - int(0.3 * n)
        truth = labels[int(0.3 * n) :][:frames]
        futures = [truth if draw(st.booleans()) else runs(draw, frames) for _ in range(samples)]
        videos.append((np.stack(futures), labels))
    return videos


def collected(videos: list[Video], **options: Any) -> AnticipationMetrics:
    metrics = AnticipationMetrics(num_classes=K, **options)
    for i, (futures, labels) in enumerate(videos):
        metrics.update(futures, labels, 0.3, f"v{i}")
    return metrics


def random_videos(count: int = 3, samples: int = 5, seed: int = 0) -> list[Video]:
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        labels = np.repeat(rng.integers(0, K, 12), rng.integers(3, 9, 12))
        frames = len(labels) - int(0.3 * len(labels))
        futures = np.repeat(rng.integers(0, K, (samples, frames // 4 + 1)), 4, axis=1)[:, :frames]
        out.append((futures, labels))
    return out


# --- agreement with the definitions ------------------------------------------------------------------------


def slow_moc(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    predicted, truth = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
    return 100 * float(np.mean([(predicted[truth == k] == k).mean() for k in np.unique(truth)]))


def slow_scores(videos: list[Video], horizon: float) -> dict[str, float]:
    everything, best, diversity, right = [], [], [], []
    for futures, labels in videos:
        start, end = int(0.3 * len(labels)), int((0.3 + horizon) * len(labels))
        truth, cut = labels[start:end], futures[:, : end - start]
        pairs = [(future, truth) for future in cut]
        everything += pairs
        best.append(max(pairs, key=lambda pair: slow_moc([pair])))
        differing = [(a != b).mean() for a, b in combinations(cut, 2)]
        diversity.append(np.mean(differing) if differing else 0.0)
        right.append((cut == truth).ravel())
    return {
        "mean_moc": slow_moc(everything),
        "top1_moc": slow_moc(best),
        "diversity": float(np.mean(diversity)),
        "accuracy": 100 * float(np.concatenate(right).mean()),
    }


@settings(max_examples=120, deadline=None)
@given(videos=video_lists())
def test_equals_the_slow_reference(videos: list[Video]) -> None:
    got = collected(videos).compute(ANY)
    for horizon in ANY.horizons:
        if all(int(0.3 * len(y)) < int((0.3 + horizon) * len(y)) for _, y in videos):
            expected = slow_scores(videos, horizon)
            found = {key: got[f"{key}@30/{100 * horizon:g}"] for key in expected}
            assert found == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(videos=video_lists())
def test_uncertainty_equals_the_slow_reference(videos: list[Video]) -> None:
    got = collected(videos).uncertainty(ANY)
    chances, truths, presence, crps = [], [], [], []
    for futures, labels in videos:
        start, end = int(0.3 * len(labels)), int((0.3 + 0.5) * len(labels))
        truth, cut = labels[start:end], futures[:, : end - start]
        chances.append(np.stack([(cut == k).mean(0) for k in range(K)], axis=1))
        truths.append(truth)
        x, y = (np.stack([(part == k).mean(-1) for k in range(K)], axis=-1) for part in (cut, truth))
        presence.append((((x > 0).mean(0) - (y > 0)) ** 2).sum())
        pairs = np.abs(x[:, None] - x[None]).mean((0, 1))
        crps.append((np.abs(x - y).mean(0) - pairs / 2).sum())
    p, truth = np.concatenate(chances), np.concatenate(truths)
    wrong = p.argmax(1) != truth
    entropy = -np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0).sum(1)
    expected = {
        "ece": calibration_error(p.max(1), ~wrong),
        "brier": np.square(p - np.eye(K)[truth]).sum(1).mean(),
        "presence_brier": np.mean(presence),
        "crps": np.mean(crps),
        "entropy": entropy.mean(),
        "entropy_right": entropy[~wrong].mean() if not wrong.all() else 0.0,
        "entropy_wrong": entropy[wrong].mean() if wrong.any() else 0.0,
    }
    assert {key: got[f"{key}@30/50"] for key in expected} == pytest.approx(expected, abs=1e-9)
    if wrong.any() and not wrong.all():
        difference = np.round(entropy[wrong][:, None] - entropy[~wrong], 9)
        auc = (difference > 0).mean() + (difference == 0).mean() / 2
        assert got["entropy_auc@30/50"] == pytest.approx(auc, abs=1e-9)


def test_transcript_scores_equal_those_of_segmentation() -> None:
    videos = random_videos()
    got = collected(videos, frames_per_second=10.0).transcript(ANY)
    expected, errors, actions = [], [], []
    for futures, labels in videos:
        start, end = int(0.3 * len(labels)), int((0.3 + 0.5) * len(labels))
        for future in futures:
            metrics = SegmentationMetrics(num_classes=K)
            metrics.update(future[: end - start], labels[start:end])
            scores = metrics.compute()
            expected.append([scores[key] for key in ("edit", "f1@10", "f1@25", "f1@50")])
        parts = (labels[start:end], *futures[:, : end - start])
        change, *foreseen = (np.append(np.flatnonzero(y != labels[start - 1]), end - start)[0] for y in parts)
        assert change < end - start
        errors.append(np.abs(np.array(foreseen) - change).mean())
        named = [np.append(y, -1)[at] for y, at in zip(parts[1:], foreseen, strict=True)]
        actions.append(np.mean(np.array(named) == labels[start + change]))
    keys = ("edit@30/50", "f1@10@30/50", "f1@25@30/50", "f1@50@30/50")
    assert [got[key] for key in keys] == pytest.approx(np.mean(expected, axis=0).tolist())
    assert got["start_error_s@30/50"] == pytest.approx(np.mean(errors) / 10)
    assert got["start_error@30/50"] == pytest.approx(
        100 * np.mean([e / len(y) for e, (_, y) in zip(errors, videos, strict=True)])
    )
    assert got["next_action@30/50"] == pytest.approx(100 * np.mean(actions))
    assert got["num_changes@30/50"] == len(videos)


# --- laws --------------------------------------------------------------------------------------------------


def test_the_truth_is_perfect_and_its_order_does_not_matter() -> None:
    videos = random_videos()
    perfect = [(y[int(0.3 * len(y)) :][None].repeat(3, 0), y) for _, y in videos]
    metrics = collected(perfect)
    scores = metrics.compute(ANY) | metrics.uncertainty(ANY) | metrics.transcript(ANY)
    for key in ("mean_moc", "top1_moc", "accuracy", "edit", "f1@50", "next_action"):
        assert scores[key] == 100
    for key in ("diversity", "ece", "brier", "presence_brier", "crps", "entropy", "start_error"):
        assert scores[key] == 0
    shuffled = [(futures[::-1], y) for futures, y in videos]
    assert collected(shuffled).compute(ANY) == pytest.approx(collected(videos).compute(ANY))


def test_only_the_horizon_counts() -> None:
    videos = random_videos()
    changed = []
    for futures, labels in videos:
        n, labels, futures = len(labels), labels.copy(), futures.copy()
        labels[: int(0.3 * n) - 1] = (labels[: int(0.3 * n) - 1] + 1) % K
        labels[int(0.8 * n) :] = (labels[int(0.8 * n) :] + 1) % K
        futures[:, int(0.8 * n) - int(0.3 * n) :] = 0
        changed.append((futures, labels))
    a, b = collected(videos), collected(changed)
    assert a.compute(ANY) == b.compute(ANY)
    assert a.uncertainty(ANY) == b.uncertainty(ANY)
    assert a.transcript(ANY) == b.transcript(ANY)


def test_ignored_frames_do_not_count() -> None:
    futures, labels = random_videos(1)[0]
    metrics = AnticipationMetrics(num_classes=K)
    unlabelled = labels.copy()
    unlabelled[int(0.3 * len(labels)) + 2 :][:5] = -100
    metrics.update(futures, unlabelled, 0.3)
    counts = metrics.per_video(ANY, 0.3)[0]
    whole = collected([(futures, labels)]).per_video(ANY, 0.3)[0]
    assert (whole.frames.sum(1) - counts.frames.sum(1)).tolist() == [5, 5]
    assert metrics.uncertainty(ANY)["brier"] >= 0


def test_probabilities_of_the_model_take_the_place_of_shares() -> None:
    futures, labels = random_videos(1)[0]
    shares = np.stack([(futures == k).mean(0) for k in range(K)])
    metrics = AnticipationMetrics(num_classes=K)
    metrics.update(futures, labels, 0.3, probabilities=shares)
    expected = collected([(futures, labels)]).uncertainty(ANY)
    assert metrics.uncertainty(ANY) == pytest.approx(expected, abs=1e-6)
    flat = AnticipationMetrics(num_classes=K)
    flat.update(futures, labels, 0.3, probabilities=np.full(shares.shape, 1 / K))
    assert flat.uncertainty(ANY)["entropy"] == pytest.approx(np.log(K), abs=1e-6)
    again = AnticipationMetrics(num_classes=K)
    again.load_state_dict(json.loads(json.dumps(metrics.state_dict())))
    assert again.uncertainty(ANY) == metrics.uncertainty(ANY)


def test_ranks_are_merged_and_a_video_counts_once() -> None:
    videos = random_videos(4)
    whole, first, second = collected(videos), collected(videos[:3]), AnticipationMetrics(num_classes=K)
    for i in (2, 3):  # v2 is on both
        second.update(*videos[i], 0.3, f"v{i}")
    first.merge(second)
    assert len(first) == 4
    assert first.compute(ANY) == whole.compute(ANY)
    again = AnticipationMetrics(num_classes=K)
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert again.compute(ANY) == whole.compute(ANY)
    with pytest.raises(ValueError, match="'v2' was counted before with other labels"):
        whole.update(videos[0][0], videos[0][1], 0.3, "v2")


def test_a_fair_coin_is_calibrated() -> None:
    """Samples and truth from one distribution: confidence is accuracy, and the truth ranks like a sample."""
    rng = np.random.default_rng(0)
    metrics = AnticipationMetrics(num_classes=2)
    for i in range(300):
        odds = rng.random()
        labels = (rng.random(400) < odds).astype(int)
        metrics.update((rng.random((50, 280)) < odds).astype(int), labels, 0.3, str(i))
    scores = metrics.uncertainty(ANY)
    assert scores["ece"] < 0.02
    assert scores["entropy_auc"] > 0.6
    bins = metrics.reliability(ANY, 0.3, 0.5)
    filled = bins["frames"] > 0.02
    np.testing.assert_allclose(bins["confidence"][filled], bins["accuracy"][filled], atol=0.05)
    assert bins["frames"].sum() == pytest.approx(1)


def test_crps_prefers_the_distribution_that_is_right() -> None:
    truth = np.array([0.3])
    sharp, wide, wrong = (np.array(x)[:, None] for x in ([0.3, 0.3], [0.1, 0.5], [0.9, 0.9]))
    scores = [float(ensemble_crps(x, truth)[0]) for x in (sharp, wide, wrong)]
    assert scores == pytest.approx([0.0, 0.1, 0.6])


def test_area_under_the_curve() -> None:
    values, ones = np.array([0.1, 0.5, 0.5, 0.9]), np.ones(4)
    assert area_under_curve(values, np.array([0, 0, 0, 1.0]), np.array([1.0, 1, 1, 0])) == 1
    assert area_under_curve(values, np.array([0, 2.0, 0, 0]), np.array([0, 0, 1.0, 0])) == 0.5
    assert area_under_curve(values, ones, 0 * ones) == 0.5


# --- protocols ---------------------------------------------------------------------------------------------


def test_limits_are_products_in_double_precision() -> None:
    protocol = get_anticipation_protocol("anticipation/official-25")
    assert protocol.limits(1310, 0.2).tolist() == [262, 393, 524, 655, 916]  # 0.7 * 1310 is below 917
    single = AnticipationProtocol("test/single", precision="single")
    assert single.limits(1310, 0.2).tolist() == [262, 393, 524, 655, 917]


def test_the_2018_protocol_leaves_out_what_is_not_predicted() -> None:
    labels = np.repeat([0, 1], 50)
    metrics = AnticipationMetrics(num_classes=2)
    for share in (0.2, 0.3):
        metrics.update(labels[int(share * 100) :][:30], labels, share, "a")
    scores = metrics.compute("anticipation/2018")
    assert scores["moc"] == 100
    assert set(scores) >= {"moc@20/50", "accuracy@30/10", "num_videos"}
    with pytest.raises(ValueError, match="predicted up to frame 50, anticipation/deterministic needs 70"):
        metrics.compute("anticipation/deterministic")


def test_mistakes_are_named() -> None:
    metrics = AnticipationMetrics(num_classes=K)
    labels = np.repeat([0, 1], 50)
    with pytest.raises(ValueError, match=r"target label 6 is not one of the 4 classes"):
        metrics.update(labels[20:], labels + 6, 0.2)
    with pytest.raises(ValueError, match=r"predicted labels must be class indices, of shape \(samples"):
        metrics.update(labels[20:] / 2, labels, 0.2)
    with pytest.raises(ValueError, match="observed is 20; it is the share"):
        metrics.update(labels[20:], labels, 20)
    with pytest.raises(ValueError, match=r"probabilities have shape \(4, 2\), expected \(4, 80\)"):
        metrics.update(labels[20:], labels, 0.2, probabilities=np.ones((4, 2)))
    metrics.update(np.tile(labels[20:], (3, 1)), labels, 0.2, "a")
    with pytest.raises(ValueError, match="'a' has 3 futures, anticipation/official-25 counts 25"):
        metrics.compute("anticipation/official-25")
    with pytest.raises(ValueError, match=r"observes 0.3 of each video, of which there is none"):
        metrics.compute("anticipation/official-any")
    with pytest.raises(ValueError, match="did you mean 'anticipation/official-25'"):
        metrics.compute("anticipation/oficial-25")
    with pytest.raises(ValueError, match="either classes"):
        AnticipationMetrics()


def test_protocols_are_named_for_every_split() -> None:
    names = list_anticipation_protocols("breakfast/*-anticipation-official-25")
    assert len(names) == 4
    first = get_anticipation_protocol(names[0])
    assert first.complete(252)
    assert not first.complete(251)
    assert register_anticipation_protocol(first) is first
    with pytest.raises(ValueError, match="registered already"):
        register_anticipation_protocol(AnticipationProtocol(first.name))
    with pytest.raises(ValueError, match="growing"):
        AnticipationProtocol("x", horizons=(0.5, 0.2))


def test_splits_weigh_the_same() -> None:
    splits = [{"moc": 10.0, "num_videos": 1.0}, {"moc": 30.0, "num_videos": 9.0}]
    assert average_splits(splits) == {"moc": 20.0, "num_videos": 10.0}
