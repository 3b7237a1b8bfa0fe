"""What a judge is asked, how its reply is read without running it, and both ways of counting."""

from __future__ import annotations

import math

import pytest

from framecast.metrics.judging import (
    ASPECTS,
    JUDGE_PROTOCOLS,
    JudgeItem,
    Judgement,
    Reply,
    correctness_messages,
    count_fine_grained,
    count_judgements,
    fine_grained_messages,
    is_usable,
    parse_reply,
)

ITEM = JudgeItem("1", "What does he do?", "walk", "he strolls")


def judged(*replies: Reply | None, types: str = "") -> list[Judgement]:
    kinds = types or " " * len(replies)
    return [
        Judgement(JudgeItem(str(i), "q?", "a", "p", kind.strip()), reply)
        for i, (reply, kind) in enumerate(zip(replies, kinds, strict=True))
    ]


def test_the_request_holds_everything_and_asks_for_the_form() -> None:
    system, user = correctness_messages(ITEM)
    assert (system["role"], user["role"]) == ("system", "user")
    for text in (ITEM.question, ITEM.answer, ITEM.predicted, "'pred'", "'score'", "0 to 5"):
        assert text in user["content"]
    assert "synonyms" in system["content"]


@pytest.mark.parametrize("aspect", ASPECTS)
def test_every_aspect_asks_for_a_score(aspect: str) -> None:
    item = JudgeItem("1", "What?", "walk", "stroll", question2="And what?", predicted2="saunter")
    asked = [fine_grained_messages(item, other) for other in ASPECTS]
    system, user = fine_grained_messages(item, aspect)
    assert sum(one[0] == system for one in asked) == 1  # each in its own words
    assert "'score'" in user["content"]
    assert "'pred'" not in user["content"]
    assert "saunter" in user["content"]


def test_consistency_needs_two_predictions() -> None:
    with pytest.raises(ValueError, match="consistency needs two wordings"):
        fine_grained_messages(ITEM, "consistency")
    with pytest.raises(ValueError, match="unknown aspect 'detial', did you mean 'detail'"):
        fine_grained_messages(ITEM, "detial")


@pytest.mark.parametrize(
    ("text", "reply", "whole"),
    [
        ("{'pred': 'yes', 'score': 4}", {"pred": "yes", "score": 4.0}, True),
        (' {"pred": "no", "score": 4.8,}\n', {"pred": "no", "score": 4.8}, True),
        ("{'score': '3'}", {"score": "3"}, True),
        ("{'why': 'it\\'s {fine}', 'score': 5}", {"why": "it's {fine}", "score": 5.0}, True),
        ("{}", {}, True),
        ("Sure!\n```python\n{'pred': 'yes', 'score': 4}\n```", {"pred": "yes", "score": 4.0}, False),
        ("{broken {'pred': 'yes', 'score': 4}", {"pred": "yes", "score": 4.0}, False),
        ("{'pred': 'yes', 'score': 4} I am sure.", {"pred": "yes", "score": 4.0}, False),
        ("yes, 4", None, False),
        ("", None, False),
        ("{'pred': yes, 'score': 4}", None, False),
        ("{'pred': 'yes', 'score': __import__('os').system('true')}", None, False),
        ("{'score': [1]}", None, False),
        ("{'score': 1e999}", None, False),
        ("{" * 50_000, None, False),
    ],
)
def test_replies_are_read_and_never_run(text: str, reply: Reply | None, whole: bool) -> None:
    assert parse_reply(text, whole=True) == (reply if whole else None)
    assert parse_reply(text) == (reply or None)


def test_usable_replies() -> None:
    assert is_usable({"pred": "Yes.", "score": "4"})
    assert not is_usable({"pred": "maybe", "score": 4.0})
    assert not is_usable({"pred": "yes", "score": 6.0})
    assert not is_usable({"pred": "yes"})
    assert not is_usable(None)
    assert is_usable({"score": 3.0}, "detail")
    assert not is_usable({"score": 3.0})
    assert not is_usable({"pred": "yes", "score": "nan"})


def test_the_official_count_and_its_quirks() -> None:
    replies: list[Reply | None] = [
        {"pred": "yes", "score": 4.8},  # cut to 4
        {"pred": "No", "score": 1.0},
        {"pred": "yes", "score": "4.8"},  # no whole number: lowers the score, not counted in accuracy
        {"score": 5.0},  # no verdict: counted in the score alone
        {"pred": "yesterday", "score": 2.0},  # holds "yes"
        {"pred": "perhaps", "score": 3.0},  # neither
        None,  # given up: not there at all
    ]
    found = count_judgements(judged(*replies), "judge/official")
    assert found["accuracy"] == pytest.approx(100 * 2 / 3)
    assert found["score"] == pytest.approx((4 + 1 + 0 + 5 + 2 + 3) / 6)
    assert (found["num_judged"], found["num_questions"]) == (6, 7)
    found = count_judgements(judged(*replies), "judge/usable")
    assert found["accuracy"] == pytest.approx(100 * 2 / 3)
    assert found["score"] == pytest.approx((4.8 + 1 + 4.8) / 3)
    assert (found["num_judged"], found["num_questions"]) == (3, 7)


def test_protocols_agree_on_clean_replies() -> None:
    replies = [{"pred": "yes" if i % 3 else "no", "score": float(i % 6)} for i in range(12)]
    found = [count_judgements(judged(*replies), name) for name in JUDGE_PROTOCOLS]
    assert found[0] == found[1]
    with pytest.raises(ValueError, match="unknown protocol 'judge/offical', did you mean 'judge/official'"):
        count_judgements([], "judge/offical")


def test_types_are_counted_apart() -> None:
    yes, no = {"pred": "yes", "score": 5.0}, {"pred": "no", "score": 0.0}
    found = count_judgements(judged(yes, no, yes, None, types="aabc"))
    assert (found["accuracy@a"], found["accuracy@b"], found["score@a"]) == (50, 100, 2.5)
    assert math.isnan(found["accuracy@c"])
    assert not any("@" in key for key in count_judgements(judged(yes, no)))
    assert math.isnan(count_judgements([], "judge/official")["score"])


def test_the_average_of_five_aspects() -> None:
    scores = dict(zip(ASPECTS, (1.0, 2.5, 3.0, 4.0, 5.0), strict=True))
    each = {aspect: judged({"score": score}, None) for aspect, score in scores.items()}
    found = count_fine_grained(each)
    assert found == scores | {"average": pytest.approx(3.1)}
    assert count_fine_grained(each, "judge/official")["detail"] == 2
    assert "average" not in count_fine_grained({"detail": each["detail"]})
