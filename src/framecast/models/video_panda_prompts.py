"""What Video-Panda's language model is told around the frames and the question, as text and as ids.

A talk begins in the same way for every question about a video, up to the last frame (`Writer.head`), and goes
on with the question (`Writer.turn`); so questions can share what comes before. Three templates: "vicuna" is
the published one, "chat" the one that the language model's own tokenizer brings, "plain" says nothing around
frames and questions.

The release introduces the talk in one way while training and in another when it answers; here both are the
one that the weights were trained with, and `style="release"` answers with the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from framecast.nn.splicing import IGNORED_LABEL, PLACEHOLDER

Style = Literal["trained", "release"]
Template = Literal["vicuna", "chat", "plain"]
Turns = Sequence[tuple[str, str]]  # questions and answers

_SYSTEM = (
    "A chat between a curious {who} and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the {who}'s questions."
)
SYSTEM: dict[Style, str] = {"trained": _SYSTEM.format(who="user"), "release": _SYSTEM.format(who="human")}
FRAME = "<image>"  # in a prompt, one visual block; becomes a placeholder among the ids
END = "</s>"


class Wording(NamedTuple):
    """What stands before a question, behind it, and before its answer."""

    asks: str
    answers: str
    gap: str


WORDINGS = {"vicuna": Wording(" USER: ", " ASSISTANT:", " "), "plain": Wording("", "\n", "")}


def prompt(
    question: str,
    num_frames: int,
    *,
    earlier: Turns = (),
    template: Template = "vicuna",
    style: Style = "trained",
    end: str = END,
) -> str:
    """The text up to the answer; the frames stand before the first question.

    earlier: questions and answers of the same talk that came before. template: "vicuna", as published, or
    "plain". end: what closes an answer.
    """
    text, words = SYSTEM[style] if template == "vicuna" else "", WORDINGS[template]
    for i, (asked, answer) in enumerate([*earlier, (checked(question), None)]):
        text += f"{words.asks}{with_frames(asked, num_frames if i == 0 else 0)}{words.answers}"
        if answer is not None:
            text += f"{words.gap}{answer.strip()}{end}"
    return text


def chat_prompt(
    tokenizer: Any, question: str, num_frames: int, *, earlier: Turns = (), answer: str | None = None
) -> str:
    """The same in the tokenizer's own words; with an answer, up to the end of that.

    Raises ValueError where the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise ValueError("the tokenizer has no chat template; use template='vicuna'")
    messages = []
    for i, (asked, told) in enumerate([*earlier, (checked(question), answer)]):
        messages.append({"role": "user", "content": with_frames(asked, num_frames if i == 0 else 0)})
        if told is not None:
            messages.append({"role": "assistant", "content": told.strip()})
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer is None)


def checked(question: str) -> str:
    if not question.strip():
        raise ValueError("the question is empty; ask something about the video")
    if FRAME in question:
        raise ValueError(f"the question holds {FRAME}, which stands for a frame; leave it out")
    return question


def with_frames(asked: str, num_frames: int) -> str:
    return FRAME * num_frames + "\n" * bool(num_frames) + asked.strip()


def pieces(text: str) -> list[str]:
    """The text between the frames of a prompt: one more than there are frames."""
    return text.split(FRAME)


class TurnIds(NamedTuple):
    """A question, and its answer where that is known, as a language model reads them."""

    ids: Tensor  # (N,) int64
    labels: Tensor  # (N,) the same at the answer and its end, ignored elsewhere


class Writer:
    """Talks as ids of a tokenizer.

    Raises ValueError where the template is the tokenizer's own and it has none.
    """

    def __init__(self, tokenizer: Any, template: Template = "vicuna", style: Style = "trained") -> None:
        self.tokenizer, self.template, self.style = tokenizer, template, style
        self.end = tokenizer.eos_token or END
        first = tokenizer("").input_ids[:1]  # tokenizers that open a text do so here, too
        self.opening = first if first == [tokenizer.bos_token_id] else []
        self.text("?", 1)  # a missing template is told now

    def text(self, question: str, num_frames: int, earlier: Turns = ()) -> str:
        """Up to the answer."""
        if self.template == "chat":
            return chat_prompt(self.tokenizer, question, num_frames, earlier=earlier)
        options: dict[str, Any] = {"template": self.template, "style": self.style, "end": self.end}
        return prompt(question, num_frames, earlier=earlier, **options)

    def head(self, num_frames: int) -> Tensor:
        """(P,) ids up to the last frame, with placeholders; without frames all that is said comes later."""
        before = pieces(self.text("?", num_frames))[0] if num_frames else ""
        ids = [*self.opening, *self._ids(before), *[PLACEHOLDER] * num_frames]
        return torch.tensor(ids, dtype=torch.long)

    def turn(self, question: str, num_frames: int, answer: str | None = None, earlier: Turns = ()) -> TurnIds:
        """What follows the head: earlier turns, the question, and the answer to be learnt."""
        text = self.text(question, num_frames, earlier)
        tail = pieces(text)[-1]
        if answer is None:
            ids = torch.tensor(self._ids(tail), dtype=torch.long)
            return TurnIds(ids, torch.full_like(ids, IGNORED_LABEL))
        whole = tail + self._answer(text, question, num_frames, answer, earlier)
        found = self.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
        ids = torch.tensor(found.input_ids, dtype=torch.long)
        # of a token that holds the end of the question, too, the answer begins with the next one
        answers = torch.tensor([start >= len(tail) for start, _ in found.offset_mapping])
        return TurnIds(ids, torch.where(answers, ids, IGNORED_LABEL))

    def _answer(self, text: str, question: str, num_frames: int, answer: str, earlier: Turns) -> str:
        if self.template != "chat":
            return f"{WORDINGS[self.template].gap}{answer.strip()}{self.end}"
        whole = chat_prompt(self.tokenizer, question, num_frames, earlier=earlier, answer=answer)
        if not whole.startswith(text):
            raise ValueError(
                "the tokenizer's chat template writes a question with an answer differently from one "
                "without; use template='vicuna'"
            )
        return whole[len(text) :].rstrip()

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids if text else []
