"""Named evaluation protocols: which frames and segments count, and how videos are averaged.

A score without its protocol means little: on a noisy fixture of the Breakfast labels, F1@10 is 48 as a
mean over videos and 10 when counts are pooled. Every score is therefore computed, printed and stored
under the name of a protocol from this file.

Two ways of leaving a class out are in use, and they differ:
- `ignored`: frames whose *target* is of that class are removed from target and prediction before anything
  is counted, and segments of that class are dropped (the LTContext release, for its ignore list).
- `background`: every frame counts for accuracy, and segments of that class are dropped from edit and F1
  (MS-TCN's evaluation, for a class literally called "background", as GTEA has; Breakfast's SIL and
  50Salads' action_start and action_end are ordinary classes).

Sources: MS-TCN (Abu Farha and Gall, CVPR 2019, https://arxiv.org/abs/1903.01945) for the pooled counts,
LTContext (Bahrami et al., ICCV 2023, https://arxiv.org/abs/2308.11358) for the means over videos.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Literal

from framecast.registry import did_you_mean

Averaging = Literal["videos", "pooled"]

AVERAGING: dict[Averaging, tuple[str, str]] = {
    "videos": ("mean-over-videos", "accuracy, edit and F1 of each video, then their plain mean over videos"),
    "pooled": (
        "pooled",
        "frames and matched segments are summed over videos before accuracy and F1; edit is a video mean",
    ),
}


@dataclass(frozen=True)
class Protocol:
    """What exactly a segmentation score means."""

    name: str  # "<data set>/<split>-<averaging>", for example "breakfast/s1-pooled"
    dataset: str  # "segmentation" where it fits any data set
    averaging: Averaging = "videos"
    split: str = ""  # "s1", "val", "" where any
    ignored: tuple[str, ...] = ()  # classes whose frames are removed
    background: tuple[str, ...] = ()  # classes whose segments are dropped from edit and F1
    frame_rate: str = "the rate of the labels"
    num_videos: int | None = None  # videos of the complete evaluation set, None = any
    description: str = ""

    def __post_init__(self) -> None:
        if self.averaging not in AVERAGING:
            raise ValueError(
                f"protocol {self.name}: averaging is {self.averaging!r}, not one of {list(AVERAGING)}"
            )

    def complete(self, num_videos: int) -> bool:
        """Whether a score over so many videos covers the whole evaluation set."""
        return self.num_videos is None or self.num_videos == num_videos


@dataclass(frozen=True)
class _Benchmark:
    """How a public data set is evaluated in the literature."""

    dataset: str
    title: str
    splits: dict[str, int]  # split -> number of test videos
    frame_rate: str
    classes_note: str
    background: tuple[str, ...] = ()


BENCHMARKS = (
    _Benchmark(
        "breakfast",
        "Breakfast (48 classes)",
        {"s1": 252, "s2": 451, "s3": 433, "s4": 576},
        "15 frames per second, every frame",
        "SIL counts as a class",
    ),
    _Benchmark(
        "50salads",
        "50Salads (19 classes)",
        {f"s{k}": 10 for k in range(1, 6)},
        "30 frames per second; predictions at 15 are repeated twice and cut to the length of the labels",
        "action_start and action_end count as classes",
    ),
    _Benchmark(
        "gtea",
        "GTEA (11 classes)",
        {f"s{k}": 7 for k in range(1, 5)},
        "15 frames per second, every frame",
        "segments of background are dropped from edit and F1, its frames count for accuracy",
        background=("background",),
    ),
    _Benchmark(
        "assembly101",
        "Assembly101 (202 coarse actions)",
        {"val": 1424},
        "30 frames per second, every frame",
        "there is no background class; every view of a sequence is a sample of its own",
    ),
)


def _built_in() -> dict[str, Protocol]:
    found: list[Protocol] = []
    for averaging, (suffix, meaning) in AVERAGING.items():
        found.append(
            Protocol(
                f"segmentation/{suffix}",
                "segmentation",
                averaging,
                description=f"every class counts; {meaning}",
            )
        )
        found.append(
            Protocol(
                f"segmentation/{suffix}-without-background",
                "segmentation",
                averaging,
                background=("background",),
                description=f"segments of 'background' are dropped from edit and F1; {meaning}",
            )
        )
        for benchmark in BENCHMARKS:
            for split, num_videos in benchmark.splits.items():
                found.append(
                    Protocol(
                        f"{benchmark.dataset}/{split}-{suffix}",
                        benchmark.dataset,
                        averaging,
                        split,
                        background=benchmark.background,
                        frame_rate=benchmark.frame_rate,
                        num_videos=num_videos,
                        description=f"{benchmark.title}, {split}: {benchmark.classes_note}; {meaning}",
                    )
                )
    return {p.name: p for p in sorted(found, key=lambda p: p.name)}


PROTOCOLS: dict[str, Protocol] = _built_in()


def register_protocol(protocol: Protocol) -> Protocol:
    """Add a protocol under its name; a name that is taken by another one is refused."""
    taken = PROTOCOLS.get(protocol.name)
    if taken is not None and taken != protocol:
        raise ValueError(
            f"protocol {protocol.name!r} is registered already, with other settings; choose another name"
        )
    PROTOCOLS[protocol.name] = protocol
    return protocol


def get_protocol(name: str) -> Protocol:
    """The protocol of that name; an unknown one is refused with the nearest known name."""
    if name not in PROTOCOLS:
        same_dataset = list_protocols(f"{name.split('/')[0]}/*") or ["segmentation/mean-over-videos"]
        raise ValueError(
            f"unknown protocol {name!r}{did_you_mean(name, PROTOCOLS)}; "
            f"there are for example {', '.join(same_dataset)}"
        )
    return PROTOCOLS[name]


def list_protocols(pattern: str = "*") -> list[str]:
    """Names of protocols that match a wildcard, for example `list_protocols("breakfast/*")`."""
    return fnmatch.filter(PROTOCOLS, pattern)


def protocols_for(dataset: str, split: int | str | None = None) -> list[str]:
    """Protocols that fit a split of a data set; those for any data set where it has none of its own."""
    part = f"s{split}" if isinstance(split, int) else split
    own = [p.name for p in PROTOCOLS.values() if p.dataset == dataset and (part is None or p.split == part)]
    return own or list_protocols("segmentation/*")
