"""Questions made from annotations: segments of videos, classes of images and clips.

    questions = make_questions("fir_actions", words={"sit": "stay seated"}, style="verbs")
    learn, held = split_by_source(questions)
    majority_answers(learn)["count"]

| type    | asks                                            | answers                              |
|---------|-------------------------------------------------|--------------------------------------|
| what    | what is shown, of a clip with a single action   | the action                           |
| first   | what happens first                              | the action                           |
| last    | what happens last                               | the action                           |
| before  | what happens right before an action             | the action                           |
| after   | what happens right after an action              | the action                           |
| when    | when an action happens                          | beginning, middle, end               |
| count   | how many times an action happens                | zero, one, two, …                    |
| actions | how many actions there are, one after the other | one, two, …                          |
| yes-no  | whether an action happens                       | yes, no: as often, for every action  |
| order   | whether an action happens before another one    | yes, no: as often                    |
| tell    | what happens, from beginning to end             | the actions: "fall, then stand up"   |

Where a clip allows several questions of a type, the one is asked whose answer was given least so far. What
can be answered without looking, since a question nearly always has the same answer, is left out afterwards.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

from framecast.data.question_clips import (
    Action,
    Cutting,
    LabelledClip,
    Timeline,
    cut,
    draw,
    shuffled,
    timelines_of,
)
from framecast.data.question_records import Question, QuestionSet, kind_of
from framecast.data.question_wordings import LISTED, TYPES, Made, Phrasing, Style, number
from framecast.data.recognition import Subset, read_listing

Some = TypeVar("Some")
PLACES = ("beginning", "middle", "end")
UNCLEAR = 0.06  # share of a clip around the limits between beginning, middle and end
LONG = 0.6  # share of a clip from which on an action is at no place of it
GUESSABLE = ("before", "after", "when", "count", "order")  # types whose answers the question may give away


def make_questions(
    root: str | Path,
    *,
    layout: str = "auto",
    subset: Subset = "all",
    words: Mapping[str, str] | None = None,
    style: Style = "labels",
    noun: str = "action",
    who: str = "person",
    types: Sequence[str] = TYPES,
    cutting: Cutting | None = None,
    per_clip: int | None = None,
    max_share: float = 0.6,
    seed: int = 0,
) -> QuestionSet:
    """Questions about videos with a segments.csv, or about images or clips in class folders or lists.

    root: the folder, or a table of segments or list beside its videos.
    layout: of recognition_layouts.py. words: of labels, where theirs are not to be read out. style: "verbs"
    where labels say what someone does ("sit_down"), "labels" for any. types: kinds of question, see above.
    per_clip: at most so many questions about a clip. max_share: of one answer to the same question; what
    makes it more is left out (1 = nothing is). The same seed makes the same questions.

    Raises FileNotFoundError, ValueError as `open_recognition` does.
    """
    root = Path(root)
    table = root if root.is_file() else None
    listing = read_listing(root.parent if table else root, layout, annotations=table)
    listing.items = [item for item in listing.items if subset in ("all", item.side)]
    phrasing = Phrasing(words or {}, style, noun, who)
    cutting = cutting or Cutting()
    if any(item.start is not None for item in listing.items):
        clips = clips_of(timelines_of(listing), cutting, seed)
    elif listing.layout == "packed":
        raise ValueError(f"{root} is packed; questions need files, unpack its images into class folders")
    else:
        clips = [
            LabelledClip(i.path, None, None, (Action(listing.classes[i.label], 0, 1),), i.group)
            for i in listing.items
            if listing.classes[i.label] not in cutting.background
        ]
    questions = ask_about(clips, phrasing, types=types, per_clip=per_clip, max_share=max_share, seed=seed)
    return QuestionSet(tuple(questions), root, f"made from {listing.layout}")


def clips_of(
    timelines: Iterable[Timeline], cutting: Cutting | None = None, seed: int = 0
) -> list[LabelledClip]:
    """Clips of a few actions each from every recording."""
    return [clip for timeline in timelines for clip in cut(timeline, cutting, seed)]


def ask_about(
    clips: Sequence[LabelledClip],
    phrasing: Phrasing | None = None,
    *,
    types: Sequence[str] = TYPES,
    per_clip: int | None = None,
    max_share: float = 0.6,
    seed: int = 0,
) -> list[Question]:
    """Questions about clips whose actions are known; clip after clip in the order given."""
    phrasing = phrasing or Phrasing()
    if not 0.5 <= max_share <= 1:
        raise ValueError(f"max_share is {max_share}; it must be from 0.5 to 1")
    if per_clip is not None and per_clip < 1:
        raise ValueError(f"per_clip is {per_clip}; it must be at least 1")
    if strangers := sorted(set(types) - set(TYPES)):
        raise ValueError(f"unknown type of question {strangers[0]!r}; there are {', '.join(TYPES)}")
    _check_names(clips, phrasing)
    maker = _Maker(sorted({label for clip in clips for label in clip.labels}))
    names = _names(clips)
    made = [maker.questions(clip, types, f"{seed} {name}") for name, clip in zip(names, clips, strict=True)]
    kept = _without_the_obvious(names, made, max_share, seed)
    asked: Counter[str] = Counter()
    questions = []
    for name, clip, all_of_clip in zip(names, clips, made, strict=True):
        numbers = [i for i, one in enumerate(all_of_clip) if (name, one) in kept]
        numbers = shuffled(numbers, f"{seed} {name} order")
        rare_first = sorted(numbers, key=lambda i: asked[all_of_clip[i][0]])
        for i in sorted(rare_first[:per_clip]):
            one = all_of_clip[i]
            asked[one[0]] += 1
            question = phrasing.ask(one, draw(f"{seed} {name} {i} wording"))
            questions.append(_question(clip, question, phrasing.answer(one), f"{name}_{i}", one[0]))
    return questions


def _question(clip: LabelledClip, question: str, answer: str, own: str, kind: str) -> Question:
    return Question(
        clip.video,
        kind_of(clip.video),
        ((question, answer),),
        id=own,
        type=kind,
        start_s=clip.start_s,
        end_s=clip.end_s,
        group=clip.group,
    )


def _names(clips: Sequence[LabelledClip]) -> list[str]:
    """What tells clips apart, the same wherever the data lies: path below the common folder, and limits."""
    folder = os.path.commonpath([os.path.abspath(clip.video.parent) for clip in clips]) if clips else ""
    found = []
    for clip in clips:
        below = Path(os.path.relpath(os.path.abspath(clip.video), folder)).with_suffix("").as_posix()
        found.append(below if clip.start_s is None else f"{below}_{clip.start_s:.2f}-{clip.end_s:.2f}")
    return found


def _without_the_obvious(
    names: Sequence[str], made: Sequence[Sequence[Made]], max_share: float, seed: int
) -> set[tuple[str, Made]]:
    """What is left when no answer has more than its share among the questions of the same content.

    "What does the person do after they fall?" is no question about a video where all who fall stand up.
    """
    groups: defaultdict[tuple[str, ...], defaultdict[str, list[tuple[str, Made]]]]
    groups = defaultdict(lambda: defaultdict(list))
    for name, all_of_clip in zip(names, made, strict=True):
        for one in all_of_clip:
            kind, answer, x, y = one
            key = (kind, x, y) if kind in GUESSABLE else (kind,)
            groups[key][answer].append((name, one))
    kept: set[tuple[str, Made]] = set()
    for key, answers in groups.items():
        total = sum(map(len, answers.values()))
        for members in answers.values():
            others = total - len(members)
            room = max_share / (1 - max_share) * others if max_share < 1 else total
            if key[0] in GUESSABLE and len(members) > room:
                members = sorted(members, key=lambda m: draw(f"{seed} {m}"))[: int(room)]
            kept.update(members)
    return kept


def _check_names(clips: Iterable[LabelledClip], phrasing: Phrasing) -> None:
    names: dict[str, str] = {}
    for label in sorted({label for clip in clips for label in clip.labels}):
        other = names.setdefault(phrasing.name(label).lower(), label)
        if other != label:
            raise ValueError(f"classes {other!r} and {label!r} have the same words {phrasing.name(label)!r}")


class _Maker:
    """Makes the questions of one clip after the other and keeps answers in balance."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = labels
        self._given: Counter[Made] = Counter()
        self._answers: Counter[tuple[str, str]] = Counter()  # by type
        self._surplus: Counter[str] = Counter()  # yes over no, by action

    def questions(self, clip: LabelledClip, types: Sequence[str], chance: str) -> list[Made]:
        """All that can be asked about a clip, at most one of a type and two of yes-no."""
        labels, single = clip.labels, len(clip.actions) == 1
        often = Counter(labels)
        once = [label for label in labels if often[label] == 1]
        made: list[Made] = []

        def add(kind: str, candidates: Sequence[Made]) -> None:
            if kind in types and candidates:
                chosen = self._rarest(candidates, self._how_often, f"{chance} {kind}")
                self._given[chosen] += 1
                self._answers[chosen[:2]] += 1
                made.append(chosen)

        if single:
            add("what", [("what", labels[0], "", "")])
        else:
            add("first", [("first", labels[0], "", "")])
            add("last", [("last", labels[-1], "", "")])
            neighbours = list(pairwise(labels))
            add("before", [("before", x, y, "") for x, y in neighbours if y in once])
            add("after", [("after", y, x, "") for x, y in neighbours if x in once])
            add(
                "when",
                [
                    ("when", PLACES[p], a.label, "")
                    for a in clip.actions
                    if a.label in once and (p := _place(a, clip)) >= 0
                ],
            )
            pairs = [(x, y) for i, x in enumerate(labels) for y in labels[i + 1 :] if x in once and y in once]
            add("order", [m for x, y in pairs for m in (("order", "yes", x, y), ("order", "no", y, x))])
        if clip.start_s is not None or not single:  # a class of a file is no event
            times = [("count", number(often[label]), label, "") for label in self.labels]
            add("count", times)
            add("actions", [("actions", number(len(labels)), "", "")])
            add("tell", [("tell", LISTED.join(labels), "", "")])
        absent = [label for label in self.labels if label not in often]
        if "yes-no" in types and absent:
            yes = self._rarest(sorted(often), lambda x: self._surplus[x], f"{chance} yes")
            self._surplus[yes] += 1
            no = self._rarest(absent, lambda x: -self._surplus[x], f"{chance} no")
            self._surplus[no] -= 1
            made += [("yes-no", "yes", yes, ""), ("yes-no", "no", no, "")]
        return made

    def _how_often(self, one: Made) -> tuple[int, int]:
        return self._given[one], self._answers[one[:2]]

    def _rarest(self, candidates: Sequence[Some], count: Callable[[Some], Any], chance: str) -> Some:
        """The candidate that was taken least; among equals by chance."""
        places = range(len(candidates))
        return candidates[min(places, key=lambda i: (count(candidates[i]), draw(f"{chance} {i}")))]


def _place(action: Action, clip: LabelledClip) -> int:
    """In which third of its clip an action is; -1 where that cannot be said."""
    start, end = clip.start_s or 0.0, clip.actions[-1].end_s if clip.end_s is None else clip.end_s
    share = action.seconds / (end - start)
    middle = (0.5 * (action.start_s + action.end_s) - start) / (end - start)
    if share > LONG or min(abs(middle - 1 / 3), abs(middle - 2 / 3)) < UNCLEAR:
        return -1
    return int(3 * middle)


# --- Answers without looking -------------------------------------------------------------------------------


@dataclass(frozen=True)
class MajorityAnswer:
    """The most frequent answer."""

    answer: str
    share: float  # of the questions that have it
    count: int  # questions


def majority_answers(
    questions: Iterable[Question], by: Literal["type", "question"] = "type"
) -> dict[str, MajorityAnswer]:
    """The most frequent answer to the questions of every type, or to every wording; "" = to all.

    Where two are level, the first in the alphabet.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        for text, answer in question.turns:
            key = question.type if by == "type" else text
            for name in {key, ""}:
                counts[name][answer] += 1
    found = {}
    for key, answers in counts.items():
        answer, most = min(answers.items(), key=lambda item: (-item[1], item[0]))
        found[key] = MajorityAnswer(answer, most / answers.total(), answers.total())
    return found


def majority_predictions(
    learn: Iterable[Question], asked: Iterable[Question], by: Literal["type", "question"] = "type"
) -> list[str]:
    """What one who never sees a video answers after learning: by type, or by the words of the question."""
    learn = list(learn)
    if not learn:
        raise ValueError("there is no question to learn from")
    known = majority_answers(learn, by)
    types = majority_answers(learn)
    found = []
    for question in asked:
        best = known.get(question.type if by == "type" else question.question)
        found.append((best or types.get(question.type) or types[""]).answer)
    return found
