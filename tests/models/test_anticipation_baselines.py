"""Forecasters of labels: each does what its name says, and none sees more than it is given."""

from __future__ import annotations

import numpy as np
import pytest

from framecast.models.anticipation_baselines import FORECASTERS, create_forecaster

every_forecaster = pytest.mark.parametrize("name", FORECASTERS)


def video(*segments: tuple[int, int]) -> np.ndarray:
    return np.concatenate([np.full(length, label) for label, length in segments])


TEA = video((0, 10), (1, 20), (2, 40), (3, 30))
COFFEE = video((0, 10), (4, 30), (2, 20), (0, 40))
TRAINING = [TEA, TEA, TEA.repeat(2), COFFEE]


@every_forecaster
@pytest.mark.parametrize("samples", [1, 7])
def test_futures_have_the_shape_asked_for_and_repeat_with_their_seed(name: str, samples: int) -> None:
    forecaster = create_forecaster(name).fit(TRAINING, 5)
    draws = [forecaster.forecast(TEA[:25], 60, 100, samples, np.random.default_rng(seed)) for seed in (3, 3)]
    assert draws[0].shape == (samples, 60)
    assert draws[0].dtype == np.int64
    assert set(np.unique(draws[0])) <= set(range(5))
    np.testing.assert_array_equal(draws[0], draws[1])


@every_forecaster
def test_horizons_are_nested(name: str) -> None:
    forecaster = create_forecaster(name).fit(TRAINING, 5)
    long, short = (forecaster.forecast(COFFEE[:20], n, 100) for n in (70, 20))
    np.testing.assert_array_equal(long[:, :20], short)


@every_forecaster
def test_what_it_was_never_shown_is_no_obstacle(name: str) -> None:
    """An action that training does not have, one that took longer than any before, a video at its end."""
    forecaster = create_forecaster(name).fit(TRAINING, 6)
    for observed in (video((5, 10)), video((0, 10), (1, 95)), TEA, video((3, 1), (0, 1), (4, 1))):
        future = forecaster.forecast(observed, 30, max(120, len(observed)), 3)
        assert future.shape == (3, 30)


@pytest.mark.parametrize("name", ["ngram", "grammar", "transcript_sampler", "nearest_neighbour"])
def test_what_always_happened_is_foreseen(name: str) -> None:
    forecaster = create_forecaster(name).fit([TEA, TEA, TEA.repeat(3)], 5)
    np.testing.assert_array_equal(forecaster.forecast(TEA[:25], 75, 100)[0], TEA[25:])
    twice = TEA.repeat(2)  # lengths are shares of a video
    assert (forecaster.forecast(twice[:50], 150, 200)[0] == twice[50:]).mean() > 0.97


def test_repeat_last() -> None:
    forecaster = create_forecaster("repeat_last").fit(TRAINING, 5)
    np.testing.assert_array_equal(forecaster.forecast(TEA[:25], 4, 100, 2), [[1] * 4] * 2)


def test_ngram_backs_off_to_shorter_contexts() -> None:
    forecaster = create_forecaster("ngram").fit(TRAINING, 5)
    future = forecaster.forecast(video((3, 10), (4, 1)), 99, 110)[0]  # after 3, 4: never seen; after 4: 2
    assert list(dict.fromkeys(future.tolist())) == [4, 2, 0]


def test_remaining_time_knows_what_was_seen() -> None:
    videos = [video((0, 10), (1, 90))] * 3 + [video((0, 60), (1, 40))] * 2
    zeros = np.zeros(40, dtype=int)
    for name in ("ngram", "grammar"):
        given = create_forecaster(name).fit(videos, 2).forecast(zeros[:20], 70, 100)[0]
        plain = create_forecaster(name, remaining="plain").fit(videos, 2).forecast(zeros, 50, 100)
        assert (given[:40] == 0).all()  # it is past 10, so it will be 60
        assert (given[40:] == 1).all()
        assert (plain == 1).all()


def test_sampler_draws_both_continuations() -> None:
    forecaster = create_forecaster("transcript_sampler").fit(TRAINING, 5)
    futures = forecaster.forecast(np.zeros(5, dtype=int), 30, 100, 200, np.random.default_rng(0))
    assert 0.45 < (futures[:, 20] == 1).mean() < 0.75  # three of the five places of a 0
    for min_matches, distinct in ((1, 1), (2, 2)):  # one video has 0, 4, 2; two kinds have a 2
        forecaster = create_forecaster("transcript_sampler", min_matches=min_matches).fit(TRAINING, 5)
        futures = forecaster.forecast(COFFEE[:45], 55, 100, 99)
        assert len(np.unique(futures, axis=0)) == distinct


def test_grammar_follows_the_nearest_beginning() -> None:
    forecaster = create_forecaster("grammar").fit(TRAINING, 5)
    future = forecaster.forecast(video((0, 10), (3, 2), (4, 10)), 78, 100)[0]  # 3 was inserted into 0, 4
    assert list(dict.fromkeys(future.tolist())) == [4, 2, 0]


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="unknown forecaster 'gramar', did you mean 'grammar'"):
        create_forecaster("gramar")
    with pytest.raises(ValueError, match="call fit first"):
        create_forecaster("ngram").forecast(TEA, 5, 200)
    with pytest.raises(ValueError, match="pass at least one label sequence"):
        create_forecaster("ngram").fit([], 5)
    with pytest.raises(ValueError, match="label 4 at frame 10 is not one of the 4 classes"):
        create_forecaster("ngram").fit([COFFEE], 4)
    with pytest.raises(ValueError, match="after 25 of 20; the whole video is at least as long"):
        create_forecaster("repeat_last").fit(TRAINING, 5).forecast(TEA[:25], 5, 20)
