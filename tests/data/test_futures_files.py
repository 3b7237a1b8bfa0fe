"""Futures in files say what the samples say, and samples are grouped by the order of their actions."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framecast.data.annotations import read_segments_csv
from framecast.data.futures_files import (
    class_outlook,
    future_groups,
    transcript,
    write_futures_csv,
    write_futures_json,
)
from framecast.structures import Futures, Segments

CLASSES = ("crack_egg", "pour_milk", "stir", "background")


def make_futures(samples: list[list[int]], rate: float | None = 10.0, **given) -> Futures:
    """After 20 frames of the first class."""
    times = None if rate is None else np.arange(20) / rate
    observed = Segments.from_frames(np.zeros(20), CLASSES, video="clip", times=times)
    return Futures(observed, np.array(samples), step_s=None if rate is None else 1 / rate, **given)


@st.composite
def futures_of_any_kind(draw) -> Futures:
    count, steps = draw(st.integers(1, 8)), draw(st.integers(1, 12))
    label = st.integers(0, len(CLASSES) - 1)
    samples = [draw(st.lists(label, min_size=steps, max_size=steps)) for _ in range(count)]
    likelihood = np.linspace(-9, -1, count) if draw(st.booleans()) else None
    return make_futures(samples, draw(st.sampled_from([None, 10.0])), likelihood=likelihood)


@settings(max_examples=40, deadline=None)
@given(futures=futures_of_any_kind())
def test_every_sample_is_read_back_from_both_files(futures: Futures, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("futures")
    rows = list(csv.DictReader(write_futures_csv(futures, folder / "out.csv").open()))
    (video,) = json.loads(write_futures_json(futures, folder / "out.json").read_text())["videos"]
    index = {name: i for i, name in enumerate(CLASSES)}
    for sample, labels in enumerate(futures.samples):
        mine = [row for row in rows if row["sample"] == str(sample)]
        for found in (mine, video["samples"][sample]["segments"]):
            spans = [(int(row["end"]) - int(row["start"]), index[row["label"]]) for row in found]
            assert np.repeat([k for _, k in spans], [n for n, _ in spans]).tolist() == labels.tolist()
        assert (mine[0]["log_likelihood"] != "") == (futures.likelihood is not None)
    assert sum(group["share"] for group in video["groups"]) == pytest.approx(1, abs=1e-4)
    assert np.sum(list(video["probabilities"].values()), axis=0) == pytest.approx(1, abs=1e-3)


def test_times_count_from_the_start_of_the_video(tmp_path: Path) -> None:
    path = write_futures_csv(make_futures([[0, 0, 1]]), tmp_path / "a.csv")
    rows = list(csv.DictReader(path.open()))
    assert [(row["start"], row["end"], row["start_s"], row["end_s"]) for row in rows] == [
        ("20", "22", "2.0", "2.2"),
        ("22", "23", "2.2", "2.3"),
    ]
    without = list(csv.DictReader(write_futures_csv(make_futures([[0]], None), path).open()))
    assert [without[0][key] for key in ("start", "end", "start_s", "end_s")] == ["20", "21", "", ""]


def test_one_sample_is_a_table_of_segments(tmp_path: Path) -> None:
    futures = make_futures([[2, 2, 1]], None)
    table = read_segments_csv(write_futures_csv(futures, tmp_path / "a.csv"))
    assert table.frame_labels("clip", CLASSES)[20:].tolist() == [2, 2, 1]


def test_an_impossible_sample_leaves_valid_json(tmp_path: Path) -> None:
    futures = make_futures([[0], [1]], likelihood=np.array([-1.5, -np.inf]))

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    text = write_futures_json([futures, futures], tmp_path / "a.json").read_text()
    videos = json.loads(text, parse_constant=refuse)["videos"]
    assert [sample["log_likelihood"] for sample in videos[1]["samples"]] == [-1.5, None]


# --- What the samples have in common -----------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(futures=futures_of_any_kind())
def test_groups_part_the_samples_by_their_order_of_actions(futures: Futures) -> None:
    groups = future_groups(futures)
    assert sorted(sample for group in groups for sample in group.members) == list(range(len(futures)))
    assert len({group.transcript for group in groups}) == len(groups)
    assert [len(group) for group in groups] == sorted((len(group) for group in groups), reverse=True)
    for group in groups:
        assert {transcript(futures.samples[i]) for i in group.members} == {group.transcript}


def test_the_first_member_has_typical_lengths() -> None:
    early, usual = [0] * 2 + [1] * 8, [0] * 5 + [1] * 5
    (group,) = future_groups(make_futures([early, usual, usual, usual]))
    assert group.members[0] in (1, 2, 3)
    assert group.transcript == (0, 1)


def test_flicker_is_no_action() -> None:
    labels = np.repeat([0, 2, 0, 1], [300, 2, 100, 98])
    assert transcript(labels) == (0, 1)
    assert transcript(labels[:302]) == (0,)  # 2 of 302 steps
    assert transcript(np.array([0, 2, 0])) == (0, 2, 0)
    assert transcript(np.tile(np.repeat([0, 1, 2], 2), 200)) == (0, 1, 2) * 200  # nothing but brief runs


def test_chance_and_start_of_every_class() -> None:
    samples = [[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    first, second = class_outlook(make_futures(samples))
    assert (first.label, first.probability, first.start, first.latest) == (0, 1.0, 0.0, 0.0)
    assert (second.label, second.probability, second.start, second.steps) == (1, 0.75, 2.0, 2.0)
    assert 1 <= second.earliest < second.start < second.latest <= 3


def test_one_sample_with_probabilities_gives_the_chance_of_the_best_step() -> None:
    probs = np.zeros((4, 3))
    probs[:2] = [[1.0, 0.6, 0.2], [0.0, 0.4, 0.8]]
    found = {one.label: one for one in class_outlook(make_futures([[0, 0, 1]], step_probs=probs))}
    assert found.keys() == {0, 1}
    assert (found[1].probability, found[1].start) == (0.8, 1.0)
