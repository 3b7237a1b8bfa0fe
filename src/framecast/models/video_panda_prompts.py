"""What Video-Panda's language model is told around the frames and the question.

The release introduces the talk in one way while training and in another when it answers; here both are the
one that the weights were trained with, and `style="release"` answers with the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Style = Literal["trained", "release"]

_SYSTEM = (
    "A chat between a curious {who} and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the {who}'s questions."
)
SYSTEM: dict[Style, str] = {"trained": _SYSTEM.format(who="user"), "release": _SYSTEM.format(who="human")}
FRAME = "<image>"  # in a prompt, one visual block; becomes a placeholder among the ids
END = "</s>"


def prompt(
    question: str,
    num_frames: int,
    *,
    earlier: Sequence[tuple[str, str]] = (),
    style: Style = "trained",
) -> str:
    """The text up to the answer; the frames stand before the first question.

    earlier: questions and answers of the same talk that came before.
    """
    if not question.strip():
        raise ValueError("the question is empty; ask something about the video")
    turns = [*earlier, (question, None)]
    text = SYSTEM[style]
    for i, (asked, answer) in enumerate(turns):
        frames = FRAME * num_frames + "\n" if i == 0 else ""
        text += f" USER: {frames}{asked.strip()} ASSISTANT:"
        if answer is not None:
            text += f" {answer.strip()}{END}"
    return text


def pieces(text: str) -> list[str]:
    """The text between the frames of a prompt: one more than there are frames."""
    return text.split(FRAME)
