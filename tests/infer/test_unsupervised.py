"""Segmentation without training: known boundaries are found, K is exact, memory stays small."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from framecast.infer import unsupervised
from framecast.infer.unsupervised import (
    Nodes,
    absorb_short_runs,
    equal_split,
    letters,
    linked,
    merge_pairs,
    name_segments,
    neighbour_silhouette,
    run_starts,
    segment_unsupervised,
    weighted_distances,
)
from framecast.structures import FeatureTrack


def make_track(
    lengths: list[int],
    actions: list[int],
    *,
    noise: float = 0.8,
    seed: int = 0,
    width: int = 32,
    rate: float | None = 10.0,
) -> tuple[FeatureTrack, np.ndarray]:
    """Features around one centre per action, and the action of every step (T,)."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(actions) + 1, width)) + 2 * rng.normal(size=width)
    truth = np.repeat(actions, lengths)
    values = centres[truth] + noise * rng.normal(size=(len(truth), width))
    times = None if rate is None else np.arange(len(truth)) / rate
    return FeatureTrack(values.T.astype(np.float32), times, source="clip"), truth


def boundaries(labels: np.ndarray) -> np.ndarray:
    return run_starts(labels)[1:]


def test_finds_known_boundaries_without_being_told_how_many():
    track, truth = make_track([60, 90, 40, 70], [0, 1, 2, 3])
    segments = segment_unsupervised(track)
    assert segments.names == ["segment A", "segment B", "segment C", "segment D"]
    np.testing.assert_allclose(segments.starts[1:], boundaries(truth), atol=2)
    assert segments.video == "clip"
    assert segments.limits_s is not None
    assert segments.limits_s[-1, 1] == pytest.approx(26.0)


def test_most_boundaries_of_random_tracks_are_found_and_few_are_invented():
    found = true = predicted = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(2, 9))
        lengths = rng.integers(30, 150, count).tolist()
        track, truth = make_track(lengths, list(range(count)), noise=float(rng.choice([0.3, 0.8])), seed=seed)
        cuts = segment_unsupervised(track).starts[1:]
        found += sum(bool((np.abs(cuts - b) <= 5).any()) for b in boundaries(truth))
        true, predicted = true + count - 1, predicted + len(cuts)
    assert found / true > 0.9
    assert found / predicted > 0.9


def test_an_action_that_comes_back_keeps_its_letter():
    track, truth = make_track([60, 90, 40, 70, 100], [0, 1, 2, 3, 1])
    segments = segment_unsupervised(track, 4)
    assert [name[-1] for name in segments.names] == ["A", "B", "C", "D", "B"]
    np.testing.assert_allclose(segments.starts[1:], boundaries(truth), atol=2)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20, 60, 119, 120])
@pytest.mark.parametrize("rate", [None, 10.0])
def test_exactly_as_many_segments_as_asked_for(count, rate):
    track, _ = make_track([40, 50, 30], [0, 1, 0], noise=1.5, rate=rate)
    segments = segment_unsupervised(track, count)
    assert len(segments.classes) == len(np.unique(segments.labels)) == count
    assert segments.num_frames == 120
    first_seen = [int(np.flatnonzero(segments.labels == c)[0]) for c in range(count)]
    assert first_seen == sorted(first_seen)


def test_no_segment_is_shorter_than_the_limit():
    track, _ = make_track([30, 4, 40, 3, 50], [0, 1, 2, 3, 0], noise=1.2)
    for seconds in (0.5, 1.0, 2.0):
        segments = segment_unsupervised(track, min_segment_s=seconds)
        assert ((segments.ends - segments.starts) >= round(10 * seconds)).all()


def test_noise_without_structure_is_one_segment():
    rng = np.random.default_rng(1)
    track = FeatureTrack(rng.normal(size=(32, 300)).astype(np.float32) + 2, np.arange(300) / 10)
    assert len(segment_unsupervised(track)) == 1


def test_a_still_picture_is_one_segment():
    assert len(segment_unsupervised(FeatureTrack(np.ones((8, 50), np.float32)))) == 1
    assert len(segment_unsupervised(FeatureTrack(np.zeros((8, 1), np.float32)))) == 1


def test_the_brightness_of_features_does_not_matter():
    track, _ = make_track([40, 50, 30], [0, 1, 2])
    gains = np.random.default_rng(3).uniform(0.5, 20, len(track)).astype(np.float32)
    brighter = FeatureTrack(track.values * gains, track.times)
    np.testing.assert_array_equal(
        segment_unsupervised(brighter).frame_labels, segment_unsupervised(track).frame_labels
    )


def test_beats_cutting_into_equal_parts():
    track, truth = make_track([20, 150, 40, 90], [0, 1, 2, 3])
    ours, equal = segment_unsupervised(track, 4), equal_split(track, 4)
    assert equal.names == ["segment A", "segment B", "segment C", "segment D"]
    np.testing.assert_array_equal(equal.ends - equal.starts, 75)
    assert (ours.frame_labels == truth).mean() > 0.98 > (equal.frame_labels == truth).mean()


def test_first_neighbours_in_blocks_are_those_of_the_whole_matrix(monkeypatch):
    rng = np.random.default_rng(0)
    nodes = Nodes(rng.normal(size=(97, 6)).astype(np.float32), np.linspace(0, 1, 97), np.ones(97), 1 / 97)
    whole = weighted_distances(nodes.unit, nodes.positions, np.arange(97), nodes.time_floor)
    monkeypatch.setattr(unsupervised, "CHUNK", 500)
    index, distance = nodes.nearest()
    np.testing.assert_array_equal(index, whole.argmin(axis=1))
    np.testing.assert_allclose(distance, whole.min(axis=1), rtol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_linked_nodes_are_the_connected_components(seed):
    rng = np.random.default_rng(seed)
    count = 60
    nearest = (np.arange(count) + rng.integers(1, count, count)) % count  # anything but itself
    reach = np.eye(count, dtype=bool)
    reach[np.arange(count), nearest] = reach[nearest, np.arange(count)] = True
    for _ in range(6):
        reach = reach @ reach
    labels = linked(nearest)
    np.testing.assert_array_equal(labels[:, None] == labels[None, :], reach)
    assert set(labels) == set(range(labels.max() + 1))


def test_cutting_very_finely_leaves_the_features_as_they_are():
    track, _ = make_track([20, 20], [0, 1])
    frames = unsupervised.unit_frames(track)
    before = frames.copy()
    unsupervised.cut(frames, unsupervised.frame_positions(track), 35)
    np.testing.assert_array_equal(frames, before)


@pytest.mark.parametrize("seed", range(8))
def test_merging_pairs_follows_the_nearest_pair_of_the_whole_matrix(seed):
    rng = np.random.default_rng(seed)
    features, positions = rng.normal(size=(40, 3)).astype(np.float32), np.linspace(0, 1, 40, dtype=np.float32)
    groups = [[i] for i in range(40)]
    nodes = Nodes(features.copy(), positions.copy(), np.ones(40, dtype=np.int64), 1 / 40)
    for kept, gone in merge_pairs(nodes):
        means = np.stack([features[g].mean(axis=0) for g in groups])
        at = np.array([positions[g].mean() for g in groups])
        unit = means / np.linalg.norm(means, axis=1, keepdims=True)
        whole = weighted_distances(unit, at, np.arange(len(groups)), 1 / 40)
        pair = sorted(i for i, group in enumerate(groups) if kept in group or gone in group)
        assert whole[pair[0], pair[1]] == pytest.approx(whole.min(), rel=1e-4)
        groups[pair[0]] += groups.pop(pair[1])
    assert len(groups) == 1


def test_silhouette_is_high_at_true_boundaries_and_low_for_cuts_through_an_action():
    track, truth = make_track([60, 60, 60], [0, 1, 2], noise=0.3)
    frames = unsupervised.unit_frames(track)
    assert neighbour_silhouette(frames, truth) > 0.6
    through = np.repeat([0, 1, 2, 3], [60, 30, 30, 60])  # the frames of the second action score nothing
    assert neighbour_silhouette(frames, through) == pytest.approx(
        neighbour_silhouette(frames, truth) * 2 / 3, abs=0.05
    )
    assert neighbour_silhouette(frames, np.zeros(180, dtype=int)) == 0.0


def test_short_runs_join_the_neighbour_that_they_resemble():
    frames = np.repeat(np.eye(3, dtype=np.float32), [20, 3, 20], axis=0)
    frames[20:23] = 0.2 * frames[0] + 0.8 * frames[-1]
    labels = np.repeat([0, 1, 2], [20, 3, 20])
    np.testing.assert_array_equal(absorb_short_runs(frames, labels, 5), np.repeat([0, 2], [20, 23]))
    np.testing.assert_array_equal(absorb_short_runs(frames, labels, 5, keep_all=True), labels)


def test_long_videos_need_no_square_matrix():
    track, truth = make_track([5000, 3000, 7000, 5000], [0, 1, 2, 3], noise=0.3, width=8, rate=15.0)
    tracemalloc.start()
    segments = segment_unsupervised(track, 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(segments.starts[1:], boundaries(truth), atol=2)
    assert peak < 100e6  # a float32 matrix of 20 000 × 20 000 takes 1600 MB


def test_letters_follow_the_first_appearance():
    segments = name_segments(np.array([5, 5, 2, 5, 7]), FeatureTrack(np.ones((1, 5))))
    assert segments.names == ["segment A", "segment B", "segment A", "segment C"]


def test_letters_go_on_after_z():
    assert [letters(i) for i in (0, 25, 26, 51, 52, 701, 702)] == ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]


@pytest.mark.parametrize("count", [0, -1, 51])
def test_impossible_numbers_are_refused(count):
    track = FeatureTrack(np.ones((4, 50), np.float32))
    with pytest.raises(ValueError, match="pass 1 to 50"):
        segment_unsupervised(track, count)
    with pytest.raises(ValueError, match="pass 1 to 50"):
        equal_split(track, count)


def test_bad_features_are_refused():
    values = np.ones((4, 50), np.float32)
    values[2, 17] = np.nan
    with pytest.raises(ValueError, match="not finite at step 17"):
        segment_unsupervised(FeatureTrack(values))
    with pytest.raises(ValueError, match="nothing to segment"):
        segment_unsupervised(FeatureTrack(np.ones((4, 0), np.float32)))
    with pytest.raises(ValueError, match="min_segment_s"):
        segment_unsupervised(FeatureTrack(np.ones((4, 5), np.float32)), min_segment_s=-1)
