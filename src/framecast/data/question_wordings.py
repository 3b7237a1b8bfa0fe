"""How questions about labelled actions are worded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Style = Literal["labels", "verbs"]
Made = tuple[str, str, str, str]  # type, answer, action asked about, a second one
TYPES = ("what", "first", "last", "before", "after", "when", "count", "actions", "yes-no", "order", "tell")
LISTED = "\n"  # between the actions that "tell" answers with
NAMED = ("what", "first", "last", "before", "after")  # types whose answers are actions
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

WORDINGS: dict[Style, dict[str, tuple[str, ...]]] = {
    "labels": {  # for labels of any form: {x} is put between quotation marks
        "what": ("Which {noun} is shown?", "What {noun} can be seen?", "Name the {noun} that is shown."),
        "first": ("Which {noun} comes first?", "What is the first {noun} that is shown?"),
        "last": ("Which {noun} comes last?", "What is the last {noun} that is shown?"),
        "before": ("Which {noun} comes right before '{x}'?", "What {noun} is shown directly before '{x}'?"),
        "after": ("Which {noun} comes right after '{x}'?", "What {noun} is shown directly after '{x}'?"),
        "when": (
            "When does '{x}' happen: at the beginning, in the middle or at the end?",
            "At which part of the video is '{x}' shown: beginning, middle or end?",
        ),
        "count": ("How many times is '{x}' shown?", "How often does '{x}' happen?"),
        "actions": (
            "How many {noun}s are shown, one after the other?",
            "How many {noun}s follow each other?",
        ),
        "yes-no": ("Is '{x}' shown?", "Can the {noun} '{x}' be seen?", "Does '{x}' happen?"),
        "order": ("Is '{x}' shown before '{y}'?", "Does '{x}' happen before '{y}'?"),
        "tell": ("Which {noun}s are shown, in their order?", "Name the {noun}s one after the other."),
    },
    "verbs": {  # for labels that say what someone does: "sit down", "pour milk"
        "what": (
            "What does the {who} do?",
            "What can the {who} be seen to do?",
            "What happens in this video?",
        ),
        "first": ("What does the {who} do first?", "What is the first thing that the {who} does?"),
        "last": ("What does the {who} do last?", "What is the last thing that the {who} does?"),
        "before": (
            "What does the {who} do right before they {x}?",
            "Before they {x}, what does the {who} do?",
        ),
        "after": (
            "What does the {who} do right after they {x}?",
            "After they {x}, what does the {who} do next?",
        ),
        "when": (
            "When does the {who} {x}: at the beginning, in the middle or at the end?",
            "At which part of the video does the {who} {x}: beginning, middle or end?",
        ),
        "count": ("How many times does the {who} {x}?", "How often can the {who} be seen to {x}?"),
        "actions": (
            "How many things does the {who} do, one after the other?",
            "How many actions of the {who} follow each other?",
        ),
        "yes-no": ("Does the {who} {x}?", "Can the {who} be seen to {x}?"),
        "order": ("Does the {who} {x} before they {y}?", "Before they {y}, does the {who} {x}?"),
        "tell": (
            "What does the {who} do, from beginning to end?",
            "Tell what the {who} does, one thing after the other.",
        ),
    },
}


@dataclass(frozen=True)
class Phrasing:
    """How labels become words."""

    words: Mapping[str, str] = field(default_factory=dict)  # of labels whose own words are not the right ones
    style: Style = "labels"
    noun: str = "action"
    who: str = "person"

    def __post_init__(self) -> None:
        if self.style not in WORDINGS:
            raise ValueError(f"style is {self.style!r}; it must be one of {', '.join(WORDINGS)}")

    def name(self, label: str) -> str:
        """ "sit_down" -> "sit down"."""
        return self.words.get(label) or " ".join(label.replace("_", " ").split())

    def ask(self, made: Made, chance: float) -> str:
        """A question in one of its wordings."""
        kind, _, x, y = made
        wordings = WORDINGS[self.style][kind]
        text = wordings[int(chance * len(wordings))]
        return text.format(x=self.name(x), y=self.name(y), noun=self.noun, who=self.who)

    def answer(self, made: Made) -> str:
        kind, answer, *_ = made
        if kind == "tell":
            return ", then ".join(self.name(label) for label in answer.split(LISTED))
        return self.name(answer) if kind in NAMED else answer


def number(count: int) -> str:
    """A number as people say it, up to ten."""
    return NUMBERS[count] if count < len(NUMBERS) else str(count)
