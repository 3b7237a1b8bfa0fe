"""What sampled futures have in common, and futures as CSV and JSON files.

Frames and seconds in the files count from the start of the video, so the first frame to come follows the
last one observed. Legend: S samples, T coming steps, K classes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from framecast.data.tables import segment_records
from framecast.structures import Futures, Segments
from framecast.writing import write_file

BRIEF = 100  # runs shorter than this part of the horizon are flicker, not actions
FILLED = 0.9  # of the time, by the runs that last; where they fill less the brief ones count as well
LIKELY_RANGE = (0.1, 0.9)  # quantiles of when a class starts


@dataclass(frozen=True)
class FutureGroup:
    """Samples in which the same actions come in the same order, whenever they start."""

    transcript: tuple[int, ...]  # class of each action, without runs shorter than 1/100 of the horizon
    members: tuple[int, ...]  # indices of the samples; the first one agrees most with the others

    def __len__(self) -> int:
        return len(self.members)


def future_groups(futures: Futures) -> list[FutureGroup]:
    """The samples by the order of their actions: the largest group first, then the more typical one."""
    members: dict[tuple[int, ...], list[int]] = {}
    for sample in futures.ranked():
        members.setdefault(transcript(futures.samples[sample]), []).append(int(sample))
    groups = []
    for actions, samples in members.items():
        if len(samples) > 2:  # the typical member has typical lengths as well
            part = Futures(futures.observed, futures.samples[samples])
            samples = [samples[i] for i in part.ranked()]
        groups.append(FutureGroup(actions, tuple(samples)))
    return sorted(groups, key=lambda group: -len(group))


def transcript(labels: np.ndarray) -> tuple[int, ...]:
    """Classes of the runs of frame-wise labels (T,), without runs shorter than T / 100 steps.

    Where these fill more than a tenth of the time they are what happens, and stay.
    """
    edges = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1], True])
    lengths, actions = np.diff(edges), labels[edges[:-1]]
    lasting = lengths * BRIEF >= len(labels)
    if lengths[lasting].sum() >= FILLED * len(labels):
        actions = actions[lasting]
    return tuple(int(label) for label, _ in groupby(actions))


@dataclass(frozen=True)
class ClassOutlook:
    """Whether and when a class comes; steps count from now."""

    label: int
    probability: float  # that it occurs at all before the horizon ends
    start: float  # step at which it occurs first: the median of the futures that have it
    earliest: float  # 10 % of these futures have it by then
    latest: float  # 90 %
    steps: float  # how many steps of it there are on average, in the futures that have it


def class_outlook(futures: Futures) -> list[ClassOutlook]:
    """Every class that may come, the most probable first, then the one that starts earlier.

    Counted over the samples. A model that draws one sample but gives probabilities per step says nothing on
    whether a class occurs at all; there the probability is that of its best step, which it is at least, and
    the start is where the class reaches half of that.
    """
    found = _outlook_of_steps(futures) if is_single(futures) else _outlook_of_samples(futures)
    return sorted(found, key=lambda one: (-one.probability, one.start, one.label))


def is_single(futures: Futures) -> bool:
    """Whether probabilities come from the model's own steps, because there is only one sample."""
    return len(futures) == 1 and futures.step_probs is not None


def _outlook_of_samples(futures: Futures) -> Iterator[ClassOutlook]:
    for label in np.unique(futures.samples[futures.samples >= 0]):
        there = futures.samples == label
        having = there.any(1)
        first = there[having].argmax(1)
        early, middle, late = np.quantile(first, (LIKELY_RANGE[0], 0.5, LIKELY_RANGE[1]))
        share, steps = float(having.mean()), float(there[having].sum(1).mean())
        yield ClassOutlook(int(label), share, float(middle), float(early), float(late), steps)


def _outlook_of_steps(futures: Futures) -> Iterator[ClassOutlook]:
    for label, p in enumerate(futures.probabilities):
        peak = float(p.max())
        if peak > 0:
            start = float((p >= peak / 2).argmax())
            yield ClassOutlook(label, peak, start, start, start, float(p.sum() / peak))


# --- Writing -----------------------------------------------------------------------------------------------

COLUMNS = ("video", "sample", "start", "end", "start_s", "end_s", "label", "confidence", "log_likelihood")


def write_futures_csv(futures: Futures | Iterable[Futures], path: str | Path) -> Path:
    """Write every segment of every sample of one or many videos as CSV; sample counts from 0.

    confidence: mean probability of the label inside the segment, over all samples. Rows of one sample are a
    table of segments as `read_segments_csv` takes it.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for one in _several(futures):
        likelihood = _rounded(one.likelihood)
        for sample, segments in enumerate(sample_segments(one)):
            more = {"sample": sample, "log_likelihood": None if likelihood is None else likelihood[sample]}
            writer.writerows(record | more for record in future_records(one, segments))
    return write_file(path, text.getvalue())


def write_futures_json(futures: Futures | Iterable[Futures], path: str | Path) -> Path:
    """Write futures of one or many videos as JSON, with what they have in common.

    Per video: where the future begins, the most probable class of every step as segments, the groups of
    samples with the same order of actions, probability and start of every class, every sample, and per step
    the entropy in bits and the probability of the classes that have any.
    """
    videos = ",\n".join(_video_json(one) for one in _several(futures))
    return write_file(path, f'{{"videos": [\n{videos}\n]}}\n')


def sample_segments(futures: Futures) -> Iterator[Segments]:
    """Every sample as segments; as `Futures.segments`, with the probabilities worked out once."""
    shared = replace(futures, step_probs=futures.probabilities)
    return (shared.segments(sample) for sample in range(len(futures)))


def future_records(futures: Futures, segments: Segments) -> Iterator[dict[str, Any]]:
    """Records of segments whose frame 0 is the first to come, counted from the start of the video."""
    observed = futures.observed.num_frames
    for record in segment_records(segments):
        yield record | {"start": record["start"] + observed, "end": record["end"] + observed}


def _video_json(futures: Futures) -> str:
    classes, likelihood = futures.classes, _rounded(futures.likelihood)

    def listed(segments: Segments) -> list[dict[str, Any]]:
        return [{k: v for k, v in r.items() if k != "video"} for r in future_records(futures, segments)]

    samples: list[dict[str, Any]] = [{"segments": listed(one)} for one in sample_segments(futures)]
    if likelihood is not None:
        samples = [{"log_likelihood": own} | one for own, one in zip(likelihood, samples, strict=True)]
    parts = {
        "video": futures.observed.video,
        "classes": list(classes),
        "observed_frames": futures.observed.num_frames,
        "num_steps": futures.num_steps,
        "start_s": None if futures.step_s is None else round(futures.start_s, 6),
        "step_s": futures.step_s,
        "most_probable": listed(futures.segments()),
        "groups": [
            {
                "share": round(len(group) / len(futures), 6),
                "labels": [classes[k] if k >= 0 else "unlabelled" for k in group.transcript],
                "samples": list(group.members),
            }
            for group in future_groups(futures)
        ],
        "outlook": [_outlook_json(futures, one) for one in class_outlook(futures)],
        "samples": samples,
        "entropy_bits": _rounded(futures.entropy, 4),
        "probabilities": {
            name: _rounded(p, 4) for name, p in zip(classes, futures.probabilities, strict=True) if p.any()
        },
    }
    # A line per part: vectors over steps would take a line per number with an indent.
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in parts.items()]
    return "{" + ",\n ".join(lines) + "}"


def _outlook_json(futures: Futures, one: ClassOutlook) -> dict[str, Any]:
    values: dict[str, Any] = {"label": futures.classes[one.label], "probability": round(one.probability, 6)}
    for key in ("start", "earliest", "latest"):
        step = getattr(one, key)
        values[key] = futures.observed.num_frames + step
        if futures.step_s is not None:
            values[f"{key}_s"] = round(futures.start_s + futures.step_s * step, 6)
    return values | {"steps": round(one.steps, 3)}


def _rounded(values: np.ndarray | None, digits: int = 6) -> list[float | None] | None:
    """Plain numbers; None for what JSON cannot write, such as the logarithm of 0."""
    if values is None:
        return None
    return [round(float(value), digits) if np.isfinite(value) else None for value in values]


def _several(futures: Futures | Iterable[Futures]) -> Iterable[Futures]:
    return [futures] if isinstance(futures, Futures) else futures
