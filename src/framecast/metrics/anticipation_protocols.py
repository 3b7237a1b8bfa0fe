"""Named protocols of anticipation: what is observed, how far is predicted, how many futures count.

Of a video of n frames the first int(α n) are observed and the frames up to int((α + β) n) predicted, β again
a share of the *whole* video. Scores are means over classes whose frames are counted over all videos of a
split, so the rarest class weighs as much as the longest. Every class counts, the background classes too.

Sources: Abu Farha et al., CVPR 2018 (https://arxiv.org/abs/1804.00892); GTDA, ECCV 2024
(https://arxiv.org/abs/2407.11954).
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from framecast.metrics.protocols import BENCHMARKS
from framecast.registry import did_you_mean


@dataclass(frozen=True)
class AnticipationProtocol:
    """What exactly an anticipation score means."""

    name: str
    dataset: str = "anticipation"  # "anticipation" where it fits any data set
    observed: tuple[float, ...] = (0.2, 0.3)  # shares of the video, α
    horizons: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)  # shares of the video, β, growing
    samples: int | None = 25  # futures of each video, None = any number
    too_short: Literal["refuse", "cut"] = "refuse"  # "cut": frames that are not predicted do not count
    precision: Literal["double", "single"] = "double"  # of the products with n
    split: str = ""
    num_videos: int | None = None  # videos of the complete evaluation set, None = any
    description: str = ""

    def __post_init__(self) -> None:
        growing = all(a < b for a, b in pairwise((0.0, *self.horizons)))
        inside = all(0 < a < 1 for a in self.observed) and growing
        if not self.observed or not self.horizons or not inside:
            raise ValueError(
                f"protocol {self.name}: observed shares must be in (0, 1) and horizons positive and growing, "
                f"got {self.observed} and {self.horizons}"
            )

    def limits(self, num_frames: int, observed: float) -> np.ndarray:
        """(1 + horizons,) frame at which the predicted part begins, and at which each horizon ends."""
        shares = np.array([observed, *(observed + horizon for horizon in self.horizons)])
        if self.precision == "single":
            return (shares.astype(np.float32) * np.float32(num_frames)).astype(np.int64)
        return (shares * num_frames).astype(np.int64)

    def complete(self, num_videos: int) -> bool:
        """Whether a score over so many videos covers the whole evaluation set."""
        return self.num_videos is None or self.num_videos == num_videos


@dataclass(frozen=True)
class _Variant:
    suffix: str
    samples: int | None
    too_short: Literal["refuse", "cut"]
    meaning: str


VARIANTS = (
    _Variant(
        "official-25",
        25,
        "refuse",
        "25 futures a video: mean MoC over all of them; top-1 MoC with the best one of each video and "
        "horizon, picked with knowledge of the truth (GTDA, MANTA)",
    ),
    _Variant("official-any", None, "refuse", "the same with any number of futures"),
    _Variant("deterministic", 1, "refuse", "one future a video: MoC"),
    _Variant(
        "2018", 1, "cut", "one future a video: MoC; frames that a prediction does not reach are left out"
    ),
)


def _built_in() -> dict[str, AnticipationProtocol]:
    found = []
    for v in VARIANTS:
        kind: dict[str, Any] = {"samples": v.samples, "too_short": v.too_short}
        found.append(AnticipationProtocol(f"anticipation/{v.suffix}", **kind, description=v.meaning))
        for benchmark in BENCHMARKS:
            for split, num_videos in benchmark.splits.items():
                found.append(
                    AnticipationProtocol(
                        f"{benchmark.dataset}/{split}-anticipation-{v.suffix}",
                        benchmark.dataset,
                        **kind,
                        split=split,
                        num_videos=num_videos,
                        description=f"{benchmark.title}, {split}: every class counts; {v.meaning}",
                    )
                )
    return {p.name: p for p in sorted(found, key=lambda p: p.name)}


ANTICIPATION_PROTOCOLS: dict[str, AnticipationProtocol] = _built_in()


def register_anticipation_protocol(protocol: AnticipationProtocol) -> AnticipationProtocol:
    """Add a protocol under its name; a name that is taken by another one is refused."""
    if ANTICIPATION_PROTOCOLS.setdefault(protocol.name, protocol) != protocol:
        raise ValueError(
            f"protocol {protocol.name!r} is registered already, with other settings; choose another name"
        )
    return protocol


def get_anticipation_protocol(name: str) -> AnticipationProtocol:
    """The protocol of that name; an unknown one is refused with the nearest known name."""
    if name not in ANTICIPATION_PROTOCOLS:
        near = did_you_mean(name, ANTICIPATION_PROTOCOLS)
        general = ", ".join(list_anticipation_protocols("anticipation/*"))
        raise ValueError(f"unknown anticipation protocol {name!r}{near}; there are for example {general}")
    return ANTICIPATION_PROTOCOLS[name]


def list_anticipation_protocols(pattern: str = "*") -> list[str]:
    """Names that match a wildcard, for example `list_anticipation_protocols("breakfast/*")`."""
    return fnmatch.filter(ANTICIPATION_PROTOCOLS, pattern)
