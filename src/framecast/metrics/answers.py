"""Scores of short answers: exact, normalised, word overlap, containment, multiple choice; by type.

With p the predicted text and a an accepted answer (of several, the best counts); all in 0..100:
- exact: p = a, apart from case and white space around
- normalised: the same after normalisation (case, punctuation, articles, number words)
- f1: 2 |p ∩ a| / (|p| + |a|) over normalised words, counted with repeats
- contains: the words of a stand in p one after the other; for yes and no: the first of these words in p is a
- choice: the option that p names is the right one, over the multiple-choice questions alone; an answer that
  names none is wrong. The other scores take the text of the option that p names.
- type_mean: mean over the types of question of `normalised`

Normalisation and F1 follow SQuAD (Rajpurkar et al., EMNLP 2016, https://arxiv.org/abs/1606.05250), with
number words in addition.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

KEYS = ("exact", "normalised", "f1", "contains")
ARTICLES = {"a", "an", "the"}
NUMBER_WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
DIGITS = {word: str(i) for i, word in enumerate(NUMBER_WORDS)}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# A letter alone, or set off from what follows: "B", "(b)", "B. a dog", "the answer is B", but not "A dog".
LETTER = re.compile(r"^\W*(?:.*\b(?:answer|option)(?:\s+is)?\W+)?([a-z])(?:[).:,]|\s*$)", re.IGNORECASE)


# --- One answer --------------------------------------------------------------------------------------------


def normalise(text: str) -> str:
    """Lower case without punctuation and articles, number words as digits; "The two dogs!" -> "2 dogs"."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    folded = re.sub(r"['\u2019]", "", folded)
    folded = re.sub(r"(?<=\d),(?=\d{3}\b)", "", folded)
    words = re.findall(r"\d+\.\d+|\w+", folded.replace("_", " "))
    kept = [DIGITS.get(word, word) for word in words if word not in ARTICLES]
    return " ".join(kept or words)  # an answer that is an article stays one


def token_f1(predicted: str, answer: str) -> float:
    """Overlap of normalised words, 0..1."""
    p, a = Counter(normalise(predicted).split()), Counter(normalise(answer).split())
    if not p or not a:
        return float(p == a)
    return 2 * (p & a).total() / (p.total() + a.total())


def contains(predicted: str, answer: str) -> bool:
    """Whether the answer stands in the prediction, word for word."""
    p, a = normalise(predicted).split(), normalise(answer).split()
    if a in (["yes"], ["no"]):
        return next((word for word in p if word in ("yes", "no")), "") == a[0]
    return bool(a) and any(p[i : i + len(a)] == a for i in range(len(p) - len(a) + 1))


def chosen_option(text: str, options: Sequence[str]) -> int | None:
    """Which option a text names: by its letter, by its words, or as the only one that it contains.

    None where it names none, or several.
    """
    words = normalise(text)
    same = [i for i, option in enumerate(options) if normalise(option) == words]
    if len(same) == 1:
        return same[0]
    match = LETTER.match(text)
    if match and (index := LETTERS.index(match[1].upper())) < len(options):
        return index
    inside = [i for i, option in enumerate(options) if contains(text, option)]
    return inside[0] if len(inside) == 1 else None


@dataclass(frozen=True)
class _Row:
    """One question with what was answered."""

    predicted: str
    answers: tuple[str, ...]
    question: str = ""
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    answer_index: int | None = None
    group: str = ""

    @property
    def chosen(self) -> int | None:
        return chosen_option(self.predicted, self.options)

    @property
    def scores(self) -> dict[str, float]:
        """0..1 of every key, and choice where there are options."""
        text, chosen = self.predicted, self.chosen if self.options else None
        if chosen is not None:
            text = self.options[chosen]
        best = {
            "exact": max(float(text.strip().casefold() == a.strip().casefold()) for a in self.answers),
            "normalised": max(float(normalise(text) == normalise(a)) for a in self.answers),
            "f1": max(token_f1(text, a) for a in self.answers),
            "contains": max(float(contains(text, a)) for a in self.answers),
        }
        return best | {"choice": float(chosen == self.answer_index)} if self.options else best


# --- Many answers ------------------------------------------------------------------------------------------


class AnswerMetrics:
    """Collects answers one by one; one given twice (padded distributed samplers) counts once.

    metrics = AnswerMetrics()
    metrics.update("Two dogs.", "two", type="count", source="clip7_3")
    metrics.compute()["contains"], metrics.per_type()["count"]["f1"]
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._rows: list[_Row] = []
        self._scores: list[dict[str, float]] = []
        self._place: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def update(
        self,
        predicted: str,
        answer: str | Sequence[str],
        *,
        question: str = "",
        type: str = "",
        source: str = "",
        options: Sequence[str] = (),
        answer_index: int | None = None,
        group: str = "",
    ) -> None:
        """Add one answer. answer: the right one, or all that are accepted. source: what tells it apart.
        group: what it has in common with others, for `paired_gain`: the video.

        Raises ValueError for an empty right answer and options without a right one.
        """
        answers = (answer,) if isinstance(answer, str) else tuple(answer)
        name = f"answer {source!r}" if source else f"answer {len(self) + 1}"
        if not answers or not all(a.strip() for a in answers):
            raise ValueError(f"{name}: the right answer is empty")
        if bool(options) != (answer_index is not None) or not 0 <= (answer_index or 0) < max(len(options), 1):
            raise ValueError(
                f"{name}: answer_index is {answer_index}, which is none of the {len(options)} options"
            )
        self._add(_Row(predicted, answers, question, type, source, tuple(options), answer_index, group))

    def _add(self, row: _Row) -> None:
        if row.source and row.source in self._place:
            if self._rows[self._place[row.source]] != row:
                raise ValueError(
                    f"answer {row.source!r} was counted before with other words; "
                    "call reset() between evaluations"
                )
            return
        if row.source:
            self._place[row.source] = len(self)
        self._rows.append(row)
        self._scores.append(row.scores)

    def merge(self, other: AnswerMetrics) -> AnswerMetrics:
        """Take in the answers of another one, for example of another rank, and return self."""
        for row in list(other._rows):
            self._add(row)
        return self

    def compute(self) -> dict[str, float]:
        """exact, normalised, f1, contains, type_mean, choice (where there are options), num_answers."""
        if not self._rows:
            raise ValueError("no answer was given; call update first")
        types = self.per_type().values()
        found = _means(self._scores)
        return found | {
            "type_mean": sum(one["normalised"] for one in types) / len(types),
            "num_answers": float(len(self)),
        }

    def per_type(self) -> dict[str, dict[str, float]]:
        """The scores of every type of question, by its name."""
        groups: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
        for row, scores in zip(self._rows, self._scores, strict=True):
            groups[row.type].append(scores)
        return {
            kind: _means(groups[kind]) | {"num_answers": float(len(groups[kind]))} for kind in sorted(groups)
        }

    def predictions(self) -> list[dict[str, Any]]:
        """Per question: source, type, question, right answers, prediction and its scores (0..1)."""
        return [
            {
                "source": row.source,
                "type": row.type,
                "question": row.question,
                "answers": list(row.answers),
                "predicted": row.predicted,
                **({"options": list(row.options), "chosen": row.chosen} if row.options else {}),
                **scores,
            }
            for row, scores in zip(self._rows, self._scores, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Everything collected so far as plain lists, fit for JSON and for gathering over ranks."""
        return {"rows": [[*vars(row).values()] for row in self._rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace what was collected by a state from `state_dict`."""
        self.reset()
        for predicted, answers, question, kind, source, options, index, group in state["rows"]:
            self._add(_Row(predicted, tuple(answers), question, kind, source, tuple(options), index, group))


def paired_gain(
    ours: AnswerMetrics, theirs: AnswerMetrics, key: str = "normalised", *, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean score of ours minus that of theirs on the same questions, and the limits of its 95 % interval.

    Bootstrap over groups: questions about one video are drawn together, since they succeed or fail together.
    Raises ValueError where the two were not asked the same questions, told apart by their sources.
    """
    sides = [
        {
            row.source: (row.group or row.source, scores)
            for row, scores in zip(m._rows, m._scores, strict=True)
        }
        for m in (ours, theirs)
    ]
    if not sides[0] or "" in sides[0] or sides[0].keys() != sides[1].keys():
        raise ValueError(
            f"{len(ours)} and {len(theirs)} answers are not to the same questions; give each its source"
        )
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for source, (group, scores) in sides[0].items():
        if key in scores:
            groups[group].append(100 * (scores[key] - sides[1][source][1][key]))
    if not groups:
        raise ValueError(f"no answer has the score {key!r}; there are {', '.join(KEYS)} and choice")
    sums = np.array([[sum(values), len(values)] for values in groups.values()])  # (G, 2)
    drawn = (
        np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=draws)
        @ sums
    )
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], (2.5, 97.5))
    return float(sums[:, 0].sum() / sums[:, 1].sum()), float(low), float(high)


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    found = {key: 100 * sum(row[key] for row in rows) / len(rows) for key in KEYS}
    choices = [row["choice"] for row in rows if "choice" in row]
    return found | {"choice": 100 * sum(choices) / len(choices)} if choices else found
