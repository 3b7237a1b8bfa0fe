"""How an official release names its tensors, and how those names become ours.

Every model file that can read foreign weights holds a tuple `OFFICIAL` of layouts. Translation is a pure
function on names and tensors; `importing.import_checkpoint` reads the file and builds the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    State = dict[str, Tensor]


def _same(state: State) -> State:
    return state


@dataclass(frozen=True)
class OfficialLayout:
    """One naming scheme of released weights."""

    name: str  # for the report, for example "timm / DeiT"
    model: str  # registered model into which the tensors go where no named size fits them
    detect: str  # regex; the layout applies when a key matches it
    licence: str  # terms of the released weights, printed on import
    keys: dict[str, str]  # regex of the whole release key -> our key, first match wins
    # (translated by `prepare`: shapes, settings stored beside the weights) -> our config
    read_config: Callable[[State, dict[str, Any]], dict[str, Any]]
    ignored: dict[str, str] = field(default_factory=dict)  # regex -> why the tensor is not needed
    prepare: Callable[[State], State] = _same  # joins or splits tensors before names are translated
    # brings tensors to the model's sizes: (translated state, our config) -> names of resampled tensors
    resample: Callable[[State, dict[str, Any]], list[str]] | None = None
    head: str = ""  # regex of our tensors that depend on the classes; new ones where other classes are asked
    fresh: str = ""  # regex of our tensors that the release does not have; they keep their initial values

    def applies(self, state: State) -> bool:
        return any(re.fullmatch(self.detect, key) for key in state)

    def translate(self, key: str) -> str | None:
        """Our name of a release key, None when the key is not in the table."""
        for pattern, ours in self.keys.items():
            if re.fullmatch(pattern, key):
                return re.sub(pattern, ours, key)
        return None

    def reason_to_ignore(self, key: str) -> str | None:
        return next((why for pattern, why in self.ignored.items() if re.fullmatch(pattern, key)), None)
