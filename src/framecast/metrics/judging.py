"""What a language model is asked about a predicted answer, how its reply is read, and what is counted.

Correctness: the judge says whether a prediction means the same as the right answer ("yes" or "no") and gives
a score from 0 to 5. Fine-grained: one score from 0 to 5 for each of five aspects.

Source: Video-ChatGPT (Maaz et al., ACL 2024, https://arxiv.org/abs/2306.05424); the requests are in our own
words and ask for the same replies. Scores of different judges, or of one judge months apart, do not compare.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from framecast.registry import did_you_mean

Message = dict[str, str]  # "role" and "content", as chat endpoints take them
Reply = dict[str, str | float]
TOP = 5.0


@dataclass(frozen=True)
class JudgeItem:
    """A question with the right and the predicted answer; two of both for the aspect "consistency"."""

    id: str
    question: str
    answer: str
    predicted: str
    type: str = ""
    question2: str = ""  # the same in other words
    predicted2: str = ""


@dataclass(frozen=True)
class Judgement:
    """What the judge said about one prediction; no reply where it could not be brought to a usable one."""

    item: JudgeItem
    reply: Reply | None
    raw: tuple[str, ...] = ()  # everything that the judge wrote, attempt after attempt
    refused: str = ""  # why the endpoint would not answer


# --- Asking ------------------------------------------------------------------------------------------------

FORM = (
    "Reply with a Python dictionary as text and nothing else: no explanation, no code block. Its key 'pred' "
    "holds 'yes' or 'no', its key 'score' a whole number from 0 to 5, where 5 is the best match. "
    "Example: {'pred': 'no', 'score': 1}."
)
SCORE_FORM = (
    "Reply with a Python dictionary as text and nothing else: no explanation, no code block. Its only key "
    "'score' holds a whole number from 0 to 5, where 5 is best. Example: {'score': 3}."
)
CORRECT = (
    "You grade answers to questions about videos. Compare the predicted answer with the correct one and "
    "decide whether they mean the same. What counts is the meaning: synonyms and paraphrases are a match, "
    "and more detail than asked for does no harm unless it contradicts the correct answer."
)
ASPECTS: dict[str, str] = {
    "correctness": (
        "Grade how far the predicted answer is factually right: nothing in it may contradict the correct "
        "answer or be made up. Synonyms and paraphrases are right."
    ),
    "detail": (
        "Grade how complete and specific the predicted answer is: it should cover all main points of the "
        "correct answer, with particulars of this video instead of general statements."
    ),
    "context": (
        "Grade how well the predicted answer fits the context of the video: its main subject and mood, as "
        "the correct answer shows them, must be understood."
    ),
    "temporal": (
        "Grade how well the predicted answer keeps the order of events in time, as the correct answer tells "
        "it or as the question asks for it."
    ),
    "consistency": (
        "The same is asked twice in different words. Grade how well the two predicted answers agree with "
        "each other and with the correct answer."
    ),
}


def correctness_messages(item: JudgeItem) -> list[Message]:
    """The request for "yes" or "no" and a score."""
    return _messages(CORRECT, item, FORM)


def fine_grained_messages(item: JudgeItem, aspect: str) -> list[Message]:
    """The request for the score of one of the five ASPECTS."""
    if aspect not in ASPECTS:
        raise ValueError(
            f"unknown aspect {aspect!r}{did_you_mean(aspect, ASPECTS)}; there are {', '.join(ASPECTS)}"
        )
    if aspect == "consistency" and not (item.question2 and item.predicted2):
        raise ValueError(f"question {item.id!r}: consistency needs two wordings of it and two predictions")
    return _messages(f"You grade answers to questions about videos. {ASPECTS[aspect]}", item, SCORE_FORM)


def _messages(task: str, item: JudgeItem, form: str) -> list[Message]:
    lines = [f"Question: {item.question}"]
    if item.question2:
        lines = [f"Question 1: {item.question}", f"Question 2: {item.question2}"]
    lines.append(f"Correct answer: {item.answer}")
    lines.append(f"Predicted answer{' to question 1' if item.question2 else ''}: {item.predicted}")
    if item.question2:
        lines.append(f"Predicted answer to question 2: {item.predicted2}")
    return [{"role": "system", "content": task}, {"role": "user", "content": "\n".join([*lines, "", form])}]


# --- Reading the reply -------------------------------------------------------------------------------------

_TEXT = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_PAIR = re.compile(rf"\s*(?P<key>{_TEXT})\s*:\s*(?:(?P<text>{_TEXT})|(?P<number>-?\d+(?:\.\d+)?))\s*")
LONGEST_REPLY = 20_000  # characters that are looked at


def parse_reply(text: str, *, whole: bool = False) -> Reply | None:
    """The dictionary in a reply: texts and numbers under texts; None where there is none.

    Nothing of the reply is evaluated. whole: the reply must be the dictionary and nothing else, as the
    official evaluation has it; otherwise words and code fences around it do no harm.
    """
    text = text[:LONGEST_REPLY]
    if whole:
        text = text.strip()
        found = _dictionary(text, 0) if text.startswith("{") else None
        return found[0] if found is not None and found[1] == len(text) else None
    for start in (m.start() for m in re.finditer(r"\{", text)):
        found = _dictionary(text, start)
        if found is not None and found[0]:
            return found[0]
    return None


def _dictionary(text: str, start: int) -> tuple[Reply, int] | None:
    """Dictionary that begins at a place, and where it ends."""
    reply: Reply = {}
    place = start + 1
    while match := _PAIR.match(text, place):
        value = match["text"]
        reply[_unquoted(match["key"])] = _unquoted(value) if value is not None else float(match["number"])
        place = match.end()
        if text[place : place + 1] != ",":
            break
        place += 1
    rest = re.compile(r"\s*\}").match(text, place)
    return None if rest is None else (reply, rest.end())


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def is_usable(reply: Reply | None, aspect: str | None = None) -> bool:
    """Whether a reply says what was asked for: a score from 0 to 5 and, for correctness, yes or no."""
    if reply is None:
        return False
    score = _number(reply.get("score"))
    said = aspect is not None or str(reply.get("pred", "")).strip(" .").casefold() in ("yes", "no")
    return said and score is not None and 0 <= score <= TOP


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


# --- Counting ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JudgeProtocol:
    """How replies become a score."""

    name: str
    description: str
    count: Callable[[Sequence[Reply | None]], dict[str, float]]


def _count_official(replies: Sequence[Reply | None]) -> dict[str, float]:
    """As the release counts; questions without any reply (given up) are not there at all."""
    results = [reply for reply in replies if reply is not None]
    yes = no = score_sum = 0
    for reply in results:
        score = _truncated(reply.get("score"))
        if score is None:
            continue  # counted in the denominator of the score, but not in accuracy
        score_sum += score
        said = reply.get("pred")
        if isinstance(said, str):
            yes += "yes" in said.lower()
            no += "yes" not in said.lower() and "no" in said.lower()
    return {
        "accuracy": 100 * yes / (yes + no) if yes + no else float("nan"),
        "score": score_sum / len(results) if results else float("nan"),
        "num_judged": float(len(results)),
    }


def _truncated(value: Any) -> int | None:
    """int(value) as Python has it: 4.8 is 4, "4" is 4, "4.8" is no whole number."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _count_ours(replies: Sequence[Reply | None]) -> dict[str, float]:
    """Accuracy and mean score over the questions whose replies are usable, scores as they were given."""
    usable = [reply for reply in replies if reply is not None and is_usable(reply)]
    yes = sum(str(reply["pred"]).strip(" .").casefold() == "yes" for reply in usable)
    score = sum(float(reply["score"]) for reply in usable)
    return {
        "accuracy": 100 * yes / len(usable) if usable else float("nan"),
        "score": score / len(usable) if usable else float("nan"),
        "num_judged": float(len(usable)),
    }


JUDGE_PROTOCOLS: dict[str, JudgeProtocol] = {
    p.name: p
    for p in (
        JudgeProtocol(
            "judge/official",
            "as Video-ChatGPT counts: accuracy = yes / (yes + no), scores cut to whole numbers; a reply "
            "whose score cannot be read lowers the mean score and is left out of accuracy; questions without "
            "any reply are not counted",
            _count_official,
        ),
        JudgeProtocol(
            "judge/usable",
            "accuracy and mean score over the same questions, those with a usable reply; scores are not cut",
            _count_ours,
        ),
    )
}


def get_judge_protocol(name: str) -> JudgeProtocol:
    """The protocol of that name."""
    if name not in JUDGE_PROTOCOLS:
        near = did_you_mean(name, JUDGE_PROTOCOLS)
        raise ValueError(f"unknown protocol {name!r}{near}; there are {', '.join(JUDGE_PROTOCOLS)}")
    return JUDGE_PROTOCOLS[name]


def count_judgements(judgements: Iterable[Judgement], protocol: str = "judge/usable") -> dict[str, float]:
    """accuracy in 0..100, score in 0..5, num_judged, num_questions; and accuracy@type, score@type.

    nan where nothing was judged.
    """
    judgements, rule = list(judgements), get_judge_protocol(protocol)
    found = rule.count([j.reply for j in judgements]) | {"num_questions": float(len(judgements))}
    groups: defaultdict[str, list[Reply | None]] = defaultdict(list)
    for judgement in judgements:
        groups[judgement.item.type].append(judgement.reply)
    for kind in sorted(groups) if set(groups) != {""} else ():
        own = rule.count(groups[kind])
        found |= {f"accuracy@{kind}": own["accuracy"], f"score@{kind}": own["score"]}
    return found


def count_fine_grained(
    judgements: Mapping[str, Iterable[Judgement]], protocol: str = "judge/usable"
) -> dict[str, float]:
    """Mean score 0..5 of every aspect and, where all five are there, their plain mean as "average"."""
    get_judge_protocol(protocol)
    found: dict[str, float] = {}
    for aspect, own in judgements.items():
        replies = [j.reply for j in own if j.reply is not None]
        if protocol == "judge/official":
            scores = [_truncated(reply.get("score")) or 0 for reply in replies]
        else:
            scores = [float(reply["score"]) for reply in replies if is_usable(reply, aspect)]
        found[aspect] = sum(scores) / len(scores) if scores else float("nan")
    if set(found) == set(ASPECTS):
        found["average"] = sum(found.values()) / len(found)
    return found
