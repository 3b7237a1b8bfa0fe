"""Scores of short answers do what their words say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framecast.metrics.answers import AnswerMetrics, chosen_option, contains, normalise, paired_gain, token_f1

words = st.lists(
    st.sampled_from(["a", "the", "two", "2", "red", "dog", "Dog!", "yes", "no", "runs"]), max_size=5
).map(" ".join)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The two dogs!", "2 dogs"),
        ("  A  red,  BALL. ", "red ball"),
        ("it's", "its"),
        ("sit_down", "sit down"),
        ("1,000 people", "1000 people"),
        ("4.5 metres", "4.5 metres"),
        ("ＡＢＣ Straße", "abc strasse"),
        ("the", "the"),
        ("", ""),
        ("狗 в парке", "狗 в парке"),
    ],
)
def test_normalise(text: str, normal: str) -> None:
    assert normalise(text) == normal


@given(words)
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(words, words)
def test_f1_is_symmetric_and_one_for_equal_words(one: str, other: str) -> None:
    assert token_f1(one, other) == token_f1(other, one)
    assert 0 <= token_f1(one, other) <= 1
    assert token_f1(one, one) == 1


def test_f1_counts_shared_words() -> None:
    assert token_f1("a big red dog", "the red dog") == pytest.approx(2 * 2 / 5)
    assert token_f1("dog dog dog", "dog") == pytest.approx(2 / 4)
    assert token_f1("cat", "dog") == 0
    assert token_f1("", "dog") == 0


def test_contains() -> None:
    assert contains("The person sits down, then walks.", "sits down")
    assert not contains("The person sits slowly down.", "sits down")
    assert contains("There are two of them", "2")
    assert not contains("He is a novice.", "no")
    assert contains("Yes, there is no doubt.", "yes")
    assert not contains("Yes, there is no doubt.", "no")
    assert not contains("", "dog")


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("B", 1),
        ("(b)", 1),
        ("B. a dog", 1),
        ("(C) sit", 2),
        ("The answer is B.", 1),
        ("The correct option is: (C)", 2),
        ("a dog", 1),
        ("It is the dog that barks.", 1),
        ("A dog runs.", 1),  # A is no letter here
        ("a dog or a cat", None),
        ("something else", None),
        ("Z", None),
        ("", None),
    ],
)
def test_chosen_option(text: str, index: int | None) -> None:
    assert chosen_option(text, ("cat", "dog", "sit")) == index


def filled() -> AnswerMetrics:
    metrics = AnswerMetrics()
    metrics.update("Two.", "two", type="count", source="1")
    metrics.update("three of them", "3", type="count", source="2")
    metrics.update("a red ball", "ball", type="what", source="3")
    metrics.update("red", ("crimson", "red"), type="what", source="4")
    metrics.update("B", "dog", type="choice", source="5", options=("cat", "dog"), answer_index=1)
    metrics.update("no idea", "dog", type="choice", source="6", options=("cat", "dog"), answer_index=1)
    return metrics


def test_scores_by_hand() -> None:
    scores = filled().compute()
    assert scores["exact"] == pytest.approx(100 * 2 / 6)  # red, and B stands for dog
    assert scores["normalised"] == pytest.approx(100 * 3 / 6)
    assert scores["contains"] == pytest.approx(100 * 5 / 6)
    assert scores["f1"] == pytest.approx(100 * (1 + 2 / 4 + 2 / 3 + 1 + 1 + 0) / 6)
    assert scores["choice"] == 50
    assert scores["num_answers"] == 6
    types = filled().per_type()
    assert list(types) == ["choice", "count", "what"]
    assert {kind: one["normalised"] for kind, one in types.items()} == {"choice": 50, "count": 50, "what": 50}
    assert scores["type_mean"] == 50
    assert "choice" not in types["what"]


def test_parts_together_are_the_whole() -> None:
    whole, one, other = filled(), AnswerMetrics(), AnswerMetrics()
    for i, row in enumerate(whole.state_dict()["rows"]):
        for part in (one, other) if i == 0 else (one,) if i % 2 else (other,):  # the first comes twice
            part.load_state_dict({"rows": [*part.state_dict()["rows"], row]})
    merged = one.merge(other)
    assert merged.compute() == pytest.approx(whole.compute())
    again = AnswerMetrics()
    again.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert again.compute() == whole.compute()
    assert again.predictions() == whole.predictions()
    again.reset()
    assert len(again) == 0


def test_predictions_say_what_was_answered() -> None:
    rows = filled().predictions()
    assert rows[4] | {"question": "?"} == {
        "source": "5",
        "type": "choice",
        "question": "?",
        "answers": ["dog"],
        "predicted": "B",
        "options": ["cat", "dog"],
        "chosen": 1,
        "exact": 1.0,
        "normalised": 1.0,
        "f1": 1.0,
        "contains": 1.0,
        "choice": 1.0,
    }


def test_wrong_use_is_refused() -> None:
    metrics = filled()
    with pytest.raises(ValueError, match="answer '9': the right answer is empty"):
        metrics.update("dog", " ", source="9")
    with pytest.raises(ValueError, match="the right answer is empty"):
        metrics.update("dog", ())
    with pytest.raises(ValueError, match="answer_index is 2, which is none of the 2 options"):
        metrics.update("dog", "dog", options=("cat", "dog"), answer_index=2)
    with pytest.raises(ValueError, match="answer_index is None"):
        metrics.update("dog", "dog", options=("cat", "dog"))
    with pytest.raises(ValueError, match="'1' was counted before with other words"):
        metrics.update("Three.", "two", type="count", source="1")
    with pytest.raises(ValueError, match="no answer was given"):
        AnswerMetrics().compute()
    assert len(metrics) == 6


def test_a_gain_comes_with_the_doubt_about_it() -> None:
    def answered(right: int, per_video: int, videos: int = 20) -> AnswerMetrics:
        metrics = AnswerMetrics()
        for i in range(videos * per_video):
            said = "yes" if i // per_video < right else "no"
            metrics.update(said, "yes", source=str(i), group=f"video {i // per_video}")
        return metrics

    gain, low, high = paired_gain(answered(15, 5), answered(5, 5))
    assert gain == 50
    assert 20 < low < 50 < high < 80
    one_each = paired_gain(answered(15, 1), answered(5, 1))
    assert one_each == pytest.approx((gain, low, high))  # more questions about a video prove nothing more
    assert paired_gain(answered(5, 2), answered(5, 2)) == (0, 0, 0)
    with pytest.raises(ValueError, match="40 and 20 answers are not to the same questions"):
        paired_gain(answered(5, 2), answered(5, 1))
    with pytest.raises(ValueError, match="no answer has the score 'choice'"):
        paired_gain(answered(5, 2), answered(5, 2), "choice")
