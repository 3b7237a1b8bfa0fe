"""Forecasts of labels that need no network: what every learned model has to be compared with.

All of them are fitted on label sequences and asked for what follows the observed part of a video whose length
is known, as the protocol of 2018 has it (https://arxiv.org/abs/1804.00892). Lengths are shares of a video.
With ground-truth observation, repeating the last action alone beats the published networks at the shortest
horizon.

    forecaster = create_forecaster("transcript_sampler").fit([labels, ...], num_classes=48)
    forecaster.forecast(labels[:200], num_future=500, total_length=1000, samples=25)      # (25, 500)

Legend: T frames, N segments, S samples, V training videos, U distinct transcripts, G grid points.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np

from framecast.models.label_encoding import checked_labels, runs_of
from framecast.registry import did_you_mean

Remaining = Literal["given_seen", "plain"]


class LabelForecaster:
    """What every forecaster of labels offers; networks that are trained elsewhere have `forecast` only."""

    num_classes: int

    def fit(self, sequences: Sequence[np.ndarray], num_classes: int) -> Self:
        """Learn from the labels (T,) of whole videos; returns self."""
        if not sequences:
            raise ValueError("there is no training video to learn from; pass at least one label sequence")
        self.num_classes = num_classes
        self.learn([checked_labels(labels, num_classes) for labels in sequences])
        return self

    def forecast(
        self,
        observed: np.ndarray,
        num_future: int,
        total_length: int,
        samples: int = 1,
        rng: np.random.Generator | None = None,
    ) -> np.ndarray:
        """(S, num_future) labels that follow observed labels (T_obs,) of a video of so many frames.

        One sample is the best guess; a forecaster that knows no other repeats it. rng: of what is drawn.
        """
        if not hasattr(self, "num_classes"):
            raise ValueError(f"{type(self).__name__} has learned nothing yet; call fit first")
        observed = checked_labels(observed, self.num_classes)
        if total_length < len(observed) or samples < 1 or num_future < 0:
            raise ValueError(
                f"cannot forecast {samples} x {num_future} frames after {len(observed)} of {total_length}; "
                "the whole video is at least as long as what was observed"
            )
        rng = np.random.default_rng(0) if rng is None else rng
        futures = self.futures(observed, num_future, total_length, samples, rng)
        return np.broadcast_to(futures, (samples, num_future)).astype(np.int64)

    def learn(self, sequences: list[np.ndarray]) -> None:
        raise NotImplementedError

    def futures(
        self, observed: np.ndarray, num_future: int, total_length: int, samples: int, rng: np.random.Generator
    ) -> np.ndarray:
        """(S, num_future) or (1, num_future) labels."""
        raise NotImplementedError


class RepeatLast(LabelForecaster):
    """The action that is running goes on for ever."""

    def learn(self, sequences: list[np.ndarray]) -> None:
        """There is nothing to learn."""

    def futures(
        self, observed: np.ndarray, num_future: int, total_length: int, samples: int, rng: np.random.Generator
    ) -> np.ndarray:
        return np.full((1, num_future), observed[-1])


class NearestNeighbour(LabelForecaster):
    """The future of the training video whose observed part agrees on most of `grid` points of a video.

    More samples are the futures of the next nearest videos.
    """

    def __init__(self, grid: int = 100) -> None:
        self.grid = grid

    def learn(self, sequences: list[np.ndarray]) -> None:
        self.sequences = sequences
        middles = (np.arange(self.grid) + 0.5) / self.grid
        self.points = np.stack([labels[(middles * len(labels)).astype(np.int64)] for labels in sequences])

    def futures(
        self, observed: np.ndarray, num_future: int, total_length: int, samples: int, rng: np.random.Generator
    ) -> np.ndarray:
        num_points = max(1, round(self.grid * len(observed) / total_length))
        seen = observed[((np.arange(num_points) + 0.5) / num_points * len(observed)).astype(np.int64)]
        agreement = (self.points[:, :num_points] == seen).mean(1)
        nearest = np.argsort(-agreement, kind="stable")[np.arange(samples) % len(agreement)]
        when = (len(observed) + np.arange(num_future) + 0.5) / total_length
        chosen = (self.sequences[video] for video in nearest)
        return np.stack([y[np.minimum((when * len(y)).astype(np.int64), len(y) - 1)] for y in chosen])


class ActionLengths:
    """How long actions take, as shares of a video, from the segments of training videos."""

    def __init__(self, transcripts: list[tuple[np.ndarray, np.ndarray]]) -> None:
        labels = np.concatenate([labels for labels, _ in transcripts])
        self.everything = np.concatenate([lengths for _, lengths in transcripts])
        self.of_action = {int(a): self.everything[labels == a] for a in np.unique(labels)}

    def typical(self, action: int, middle: Any, rng: np.random.Generator | None = None) -> float:
        """`middle` of the lengths (np.median or np.mean), or one of them by chance where an rng is given."""
        lengths = self.of_action.get(action, self.everything)
        return float(middle(lengths) if rng is None else rng.choice(lengths))

    def rest(
        self,
        action: int,
        seen: float,
        middle: Any,
        remaining: Remaining,
        rng: np.random.Generator | None = None,
    ) -> float:
        """How much longer an action goes on that was seen for so long; 0 if none lasted longer."""
        if remaining == "plain":
            return max(0.0, self.typical(action, middle, rng) - seen)
        lengths = self.of_action.get(action, self.everything)
        longer = lengths[lengths > seen]
        if not len(longer):
            return 0.0
        return float(middle(longer) if rng is None else rng.choice(longer)) - seen


def transcript_of(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) of the segments of a video, and their shares (N,) of it."""
    classes, lengths = runs_of(labels)
    return classes, lengths / len(labels)


def spelled_out(labels: Sequence[int], shares: Any, num_future: int, total_length: int) -> np.ndarray:
    """(num_future,) labels of segments in order; the last one goes on to the end."""
    ends = np.cumsum(shares) * total_length
    place = np.searchsorted(ends, np.arange(num_future) + 0.5, side="right")
    return np.asarray(labels)[np.minimum(place, len(labels) - 1)]


class NGram(LabelForecaster):
    """After the last n - 1 actions comes what came after them most often, or after fewer where they are new.

    Each action takes the median of its lengths, the running one what is left of it. remaining: the median of
    those that lasted longer than was seen ("given_seen"), or of all, less what was seen ("plain"). Several
    samples draw actions and lengths as often as they occurred.
    """

    END = -1

    def __init__(self, order: int = 6, remaining: Remaining = "given_seen") -> None:
        self.order = order
        self.remaining: Remaining = remaining

    def learn(self, sequences: list[np.ndarray]) -> None:
        transcripts = [transcript_of(labels) for labels in sequences]
        self.lengths = ActionLengths(transcripts)
        self.following: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for labels, _ in transcripts:
            path = [*labels.tolist(), self.END]
            for end in range(1, len(path)):
                for start in range(max(0, end - self.order + 1), end + 1):
                    self.following[tuple(path[start:end])][path[end]] += 1

    def next_action(self, history: list[int], rng: np.random.Generator | None) -> int:
        longest = min(self.order - 1, len(history))
        contexts = (tuple(history[len(history) - k :]) for k in range(longest, -1, -1))
        counts = next(self.following[c] for c in contexts if c in self.following)
        if rng is None:
            return counts.most_common(1)[0][0]
        chances = np.array(list(counts.values()), dtype=np.float64)
        return list(counts)[rng.choice(len(chances), p=chances / chances.sum())]

    def futures(
        self, observed: np.ndarray, num_future: int, total_length: int, samples: int, rng: np.random.Generator
    ) -> np.ndarray:
        labels, frames = runs_of(observed)
        drawn = rng if samples > 1 else None
        seen, wanted = frames[-1] / total_length, num_future / total_length
        out = []
        for _ in range(samples):
            history = labels.tolist()
            path = [history[-1]]
            shares = [self.lengths.rest(history[-1], seen, np.median, self.remaining, drawn)]
            while sum(shares) < wanted and (action := self.next_action(history, drawn)) != self.END:
                history.append(action)
                path.append(action)
                shares.append(self.lengths.typical(action, np.median, drawn))
            out.append(spelled_out(path, shares, num_future, total_length))
        return np.stack(out)


class Grammar(LabelForecaster):
    """Follows the training transcript that begins most like what was observed, the most frequent one of them.

    Alike means few insertions, deletions and substitutions of actions. Each action takes the mean of its
    lengths; remaining as for `NGram`. Several samples draw among the transcripts that begin as alike, as
    often as they occurred, and draw lengths.
    """

    def __init__(self, remaining: Remaining = "given_seen") -> None:
        self.remaining: Remaining = remaining

    def learn(self, sequences: list[np.ndarray]) -> None:
        transcripts = [transcript_of(labels) for labels in sequences]
        self.lengths = ActionLengths(transcripts)
        counts = Counter(tuple(labels.tolist()) for labels, _ in transcripts)
        self.transcripts = list(counts)
        self.counts = np.array(list(counts.values()), dtype=np.float64)
        longest = max(map(len, self.transcripts))
        self.table = np.array([[*t, *[-1] * (longest - len(t))] for t in self.transcripts])  # (U, N)

    def alignments(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(U,) edit distance of observed actions (N,) to the best beginning of a transcript; its length."""
        steps = np.arange(self.table.shape[1] + 1)
        row = np.tile(steps, (len(self.table), 1))
        for i, label in enumerate(labels, start=1):
            best = np.minimum(row[:, :-1] + (self.table != label), row[:, 1:] + 1)
            row = np.concatenate([np.full((len(row), 1), i), best], axis=1)
            row = np.minimum.accumulate(row - steps, axis=1) + steps
        row = np.where(steps > (self.table >= 0).sum(1)[:, None], len(labels) + len(steps), row)
        # Of beginnings that are as near, the one that ends with the running action, then the longest.
        running = np.pad(self.table == labels[-1], ((0, 0), (1, 0)))
        place = (3 * len(steps) * row - 2 * len(steps) * running - steps).argmin(1)
        return row[np.arange(len(row)), place], place

    def futures(
        self, observed: np.ndarray, num_future: int, total_length: int, samples: int, rng: np.random.Generator
    ) -> np.ndarray:
        labels, frames = runs_of(observed)
        distance, place = self.alignments(labels)
        nearest = np.flatnonzero(distance == distance.min())
        if samples == 1:
            drawn, chosen = None, nearest[[self.counts[nearest].argmax()]]
        else:
            chances = self.counts[nearest] / self.counts[nearest].sum()
            drawn, chosen = rng, rng.choice(nearest, samples, p=chances)
        running, out = int(labels[-1]), []
        for transcript in chosen:
            path = [running, *self.transcripts[transcript][place[transcript] :]]
            shares = [self.lengths.typical(action, np.mean, drawn) for action in path]
            seen = frames[-1] / total_length
            shares[0] = self.lengths.rest(running, seen, np.mean, self.remaining, drawn)
            out.append(spelled_out(path, shares, num_future, total_length))
        return np.stack(out)


class TranscriptSampler(LabelForecaster):
    """Continuations of training videos at places where the same actions came last, drawn with replacement.

    Of the last `context` actions, as many as occur at `min_matches` places or more where the running action
    lasted longer than was seen. Segments keep their shares of the video that they come from. More matches
    make samples more diverse: top-1 scores rise, mean scores fall.
    """

    def __init__(self, context: int = 4, min_matches: int = 1) -> None:
        self.context = context
        self.min_matches = min_matches

    def learn(self, sequences: list[np.ndarray]) -> None:
        self.transcripts = [transcript_of(labels) for labels in sequences]
        self.places: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
        for video, (labels, _) in enumerate(self.transcripts):
            path = labels.tolist()
            for end in range(1, len(path) + 1):
                for start in range(max(0, end - self.context), end + 1):
                    self.places[tuple(path[start:end])].append((video, end - 1))

    def matches(self, labels: np.ndarray, seen: float) -> list[tuple[int, int]]:
        """(video, segment) of the places to continue from; any place where the running action is new."""
        known: list[tuple[int, int]] = []
        longest = min(self.context, len(labels))
        for k in range(longest, 0, -1):
            places = self.places.get(tuple(labels[len(labels) - k :].tolist()), [])
            longer = [place for place in places if self.transcripts[place[0]][1][place[1]] > seen]
            if len(longer) >= self.min_matches:
                return longer
            known = longer or known or places
        return known or self.places[()]

    def futures(
        self, observed: np.ndarray, num_future: int, total_length: int, samples: int, rng: np.random.Generator
    ) -> np.ndarray:
        labels, frames = runs_of(observed)
        seen = frames[-1] / total_length
        places = self.matches(labels, seen)
        out = []
        for draw in rng.integers(len(places), size=samples):
            video, segment = places[draw]
            actions, shares = self.transcripts[video]
            path, shares = [labels[-1], *actions[segment + 1 :]], shares[segment:].copy()
            shares[0] = max(0.0, shares[0] - seen)
            out.append(spelled_out(path, shares, num_future, total_length))
        return np.stack(out)


FORECASTERS: dict[str, type[LabelForecaster]] = {
    "repeat_last": RepeatLast,
    "nearest_neighbour": NearestNeighbour,
    "ngram": NGram,
    "grammar": Grammar,
    "transcript_sampler": TranscriptSampler,
}


def create_forecaster(name: str, **settings: Any) -> LabelForecaster:
    """A forecaster by name; an unknown one is refused with the nearest known name."""
    if name not in FORECASTERS:
        near = did_you_mean(name, FORECASTERS)
        raise ValueError(f"unknown forecaster {name!r}{near}; there are {', '.join(FORECASTERS)}")
    return FORECASTERS[name](**settings)
