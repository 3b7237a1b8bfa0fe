"""Searches blocks and budgets with which an adaptive model meets a target on given images.

How many tokens a budget leaves depends on the images, so nothing but images can tell. The budget is the same
number of tokens K in every block that samples, with K + 1 in the first few of them, which makes steps fine.
What it costs rises with it, so the search closes in from both ends; where the steps are still too coarse, the
last stages keep fewer.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from framecast.backbones.adaptive import adaptive
from framecast.backbones.adaptive_model import FEWEST, AdaptiveModel
from framecast.infer.token_calibration import Calibration, Spread, Unit
from framecast.infer.token_statistics import TokenStatistics, in_units, macs_around_blocks, token_statistics

TOLERANCE = {"macs": 0.01, "tokens": 0.01, "ms": 0.1}  # of the target; of tokens at least half a one
ROUNDS = 5  # of timing, the median counts
TRIES = 3  # where times have changed meanwhile


class Search:
    """Finds budgets for one target on one set of images."""

    def __init__(
        self,
        base: AdaptiveModel,
        pixels: Tensor,
        unit: Unit,
        value: float,
        tolerance: float | None,
        batch: int,
    ) -> None:
        self.base, self.unit, self.batch = base, unit, batch
        self.parts = pixels.split(batch)
        self.around = macs_around_blocks(base, pixels)
        self.answers = self.run(base.host)
        self.timing: dict[str, Any] | None = None
        self.num_patches = 0
        whole, _ = self.look(base)
        if unit == "ms":
            self.time(base.host)  # warm
            self.timing = {
                "unmodified_ms": self.time(base.host),
                "batch": batch,
                "threads": torch.get_num_threads(),
                "device": pixels.device.type,
            }
            full = self.timing["unmodified_ms"]
        else:
            full = whole.full_macs if unit == "macs" else whole.tokens
        self.target = value * full if value < 1 and unit != "ms" else value
        if self.target >= full:
            raise ValueError(
                f"{self.figure(self.target)} is wanted, and the unmodified model has {self.figure(full)}; "
                "ask for less"
            )
        share = TOLERANCE[unit] if tolerance is None else tolerance
        self.tolerance = max(share * self.target, 0.5 if unit == "tokens" and tolerance is None else 0.0)

    # What a setting costs

    @torch.inference_mode()
    def run(self, model: nn.Module) -> Tensor:
        return torch.cat([model(part).float().cpu() for part in self.parts])

    def look(self, model: AdaptiveModel) -> tuple[TokenStatistics, Tensor]:
        with model.record(with_ids=False) as record:
            answers = self.run(model)
        self.num_patches = record.num_patches
        return token_statistics(model, record, self.around), answers

    @torch.inference_mode()
    def time(self, model: nn.Module, rounds: int = ROUNDS) -> float:
        """Milliseconds of an input: of each batch the median over the rounds."""
        taken: list[list[float]] = [[] for _ in self.parts]
        for _ in range(rounds):
            for times, part in zip(taken, self.parts, strict=True):
                start = clock()
                model(part)
                if part.is_cuda:
                    torch.cuda.synchronize(part.device)
                times.append(1e3 * (clock() - start))
        return sum(statistics.median(times) for times in taken) / sum(map(len, self.parts))

    def measure(self, model: AdaptiveModel) -> float:
        if self.unit == "ms":
            return self.time(model)
        found, _ = self.look(model)
        if self.unit == "macs":
            return found.macs
        return found.left[-1] if found.left else float(found.tokens)

    # Settings

    def setting(self, blocks: Sequence[int], place: int) -> AdaptiveModel:
        """The model at a place of the dial, from 0 to `steps(blocks)`: budgets rise one by one."""
        return self.with_counts(blocks, self.counts(blocks, place))

    def counts(self, blocks: Sequence[int], place: int) -> list[int]:
        more, first = divmod(place, len(blocks))
        return [FEWEST + more + (i < first) for i in range(len(blocks))]

    def with_counts(self, blocks: Sequence[int], counts: Sequence[int]) -> AdaptiveModel:
        whole, digits = 1 + self.num_patches, 4 if self.num_patches < 2000 else 7
        return self.base.with_budget(tuple(round(min(n / whole, 1.0), digits) for n in counts), blocks)

    def steps(self, blocks: Sequence[int]) -> int:
        return max(1 + self.num_patches - FEWEST, 0) * len(blocks)

    def spreads(self, blocks: Sequence[int] | str | None) -> list[tuple[int, ...]]:
        """Blocks to try, in this order. One spread is met or refused, of several the first that can be."""
        if blocks is not None and not isinstance(blocks, str):
            return [self.base.with_budget(None, blocks).config.blocks]
        if blocks is not None and blocks != "search":
            raise ValueError(f"blocks is {blocks!r}; give numbers of blocks, or 'search'")
        able, depth = self.base.sampling_blocks(), self.base.depth
        if blocks == "search":
            firsts = [depth // 4, depth // 6, depth // 3, depth // 2]
            found = [tuple(i for i in able if i >= first)[::step] for step in (1, 3) for first in firsts]
            return list(dict.fromkeys([self.base.config.blocks, *filter(None, found)]))
        chosen = self.base.config.blocks
        if chosen != adaptive(self.base.host).config.blocks:  # somebody's choice
            return [chosen]
        return [chosen, *(chosen[i:] for i in range(1, len(chosen)) if chosen[i] < depth - 1)]

    # Outcome

    def meet(self, spreads: Sequence[tuple[int, ...]]) -> tuple[AdaptiveModel, Calibration]:
        """With the first of the spreads, each of which leaves more than the one before, that can be met."""
        known: dict[tuple[tuple[int, ...], int], float] = {}
        low, high = 0, len(spreads) - 1
        while low < high:  # the first that leaves enough
            middle = (low + high) // 2
            if self.at(spreads[middle], self.steps(spreads[middle]), known) >= self.target:
                high = middle
            else:
                low = middle + 1
        # Where that one leaves too much at any budget, the one before it with fewer blocks may be between.
        thinner = [spreads[low - 1][::step] for step in (2, 3, len(spreads[low - 1]))] if low else []
        for blocks in (spreads[low], *thinner):
            ends = [self.at(blocks, place, known) for place in (0, self.steps(blocks))]
            if ends[0] - self.tolerance <= self.target <= ends[1] + self.tolerance:
                break
        else:
            blocks = spreads[low]
            ends = [self.at(blocks, place, known) for place in (0, self.steps(blocks))]
            if low and self.target < ends[0]:
                below = self.at(spreads[low - 1], self.steps(spreads[low - 1]), known)
                raise ValueError(
                    f"{self.figure(self.target)} is wanted, but attention is so sharp that sampling leaves "
                    f"{self.figure(below)} from block {spreads[low - 1][0]} on and {self.figure(ends[0])} "
                    f"from block {blocks[0]} on; ask for one of these, or pass other blocks"
                )
            raise ValueError(self.out_of_reach(blocks, *ends, latest=len(spreads) > 1))
        for _ in range(TRIES):
            place = nearest(
                lambda place: self.at(blocks, place, known),
                self.target,
                self.steps(blocks),
                self.tolerance / 2,
            )
            made, reached = self.setting(blocks, place), known[blocks, place]
            if self.unit == "ms":
                reached = self.time(made, 2 * ROUNDS)
            elif abs(reached - self.target) > self.tolerance:
                above = min(at for (own, at), value in known.items() if own == blocks and value > self.target)
                made, reached = self.finer(blocks, self.counts(blocks, above))
            if self.unit != "ms" or abs(reached - self.target) <= self.tolerance:
                break
            known.clear()  # the machine has become slower or faster
        return made, self.report(made, reached)

    def finer(self, blocks: tuple[int, ...], counts: list[int]) -> tuple[AdaptiveModel, float]:
        """From counts that leave a little too much, those of the last stages fall."""
        spare = sum(counts) - FEWEST * len(counts)

        def lowered(by: int) -> AdaptiveModel:
            fewer = list(counts)
            for i in reversed(range(len(fewer))):
                cut = min(by, fewer[i] - FEWEST)
                fewer[i], by = fewer[i] - cut, by - cut
            return self.with_counts(blocks, fewer)

        known: dict[int, float] = {}

        def value(place: int) -> float:
            known[place] = self.measure(lowered(spare - place))
            return known[place]

        place = nearest(value, self.target, spare, self.tolerance / 2)
        return lowered(spare - place), known[place]

    def at(self, blocks: tuple[int, ...], place: int, known: dict[Any, float]) -> float:
        if (blocks, place) not in known:
            known[blocks, place] = self.measure(self.setting(blocks, place))
        return known[blocks, place]

    def best(self, spreads: Sequence[tuple[int, ...]]) -> tuple[AdaptiveModel, Calibration]:
        """Of all spreads with which the target is met, the one that moves the answers least."""
        found: list[tuple[AdaptiveModel, Calibration]] = []
        refused: list[str] = []
        for blocks in spreads:
            try:
                found.append(self.meet([blocks]))
            except ValueError as error:
                refused.append(str(error))
        if not found:
            raise ValueError(f"none of {len(spreads)} spreads meets the target; of the first, {refused[0]}")
        tried = tuple(Spread(r.sampling["blocks"], r.reached, r.moved) for _, r in found)
        made, report = min(found, key=lambda pair: (not pair[1].met, pair[1].moved))
        return made, replace(report, tried=tried)

    def report(self, made: AdaptiveModel, reached: float) -> Calibration:
        found, answers = self.look(made)
        classes = getattr(self.base.host, "head", None)
        several = answers.ndim == 2 and answers.shape[1] > 1 and isinstance(classes, nn.Linear)
        same = (answers.argmax(1) == self.answers.argmax(1)).double().mean() if several else None
        moved = (answers - self.answers).flatten(1).norm(dim=1) / self.answers.flatten(1).norm(dim=1)
        report = Calibration(
            unit=self.unit,
            wanted=self.target,
            reached=reached,
            tolerance=self.tolerance,
            sampling=made.config.sampling(),
            statistics=found,
            moved=float(moved.mean()),
            same_class=None if same is None else float(same),
            timing=self.timing,
        )
        if self.unit != "ms" and not report.met:
            raise ValueError(
                f"the nearest that can be met is {self.figure(reached)}, and {self.figure(self.target)} is "
                "wanted; give more images, or a larger tolerance"
            )
        return report

    def out_of_reach(self, blocks: tuple[int, ...], fewest: float, most: float, *, latest: bool) -> str:
        chosen = f"block{'s' * (len(blocks) > 1)} {', '.join(map(str, blocks))}"
        words = (
            f"sampling in {chosen} leaves between {self.figure(fewest)} and {self.figure(most)} on these "
            f"images, and {self.figure(self.target)} is wanted; "
        )
        if self.unit == "ms" and self.timing is not None:
            words += f"the unmodified model takes {self.timing['unmodified_ms']:.3g} ms; "
        if self.target < fewest:
            return words + "let earlier blocks sample too, ask for more, or take a smaller model"
        return words + ("" if latest else "let fewer or later blocks sample, or ") + "ask for less"

    def figure(self, value: float) -> str:
        if self.unit == "macs":
            return f"{in_units(value)} MACs"
        return f"{value:.3g} ms" if self.unit == "ms" else f"{value:.1f} tokens"


clock: Callable[[], float] = time.perf_counter


def nearest(value: Callable[[int], float], target: float, last: int, close: float) -> int:
    """Of the places 0 … last of a rising function one that is close to the target, else the nearest seen.

    Interpolation between the ends of the bracket; a step that does not halve it is followed by one that does.
    """
    seen = {place: value(place) for place in (0, last)}
    low, high, halve = 0, last, False
    while high - low > 1 and min(abs(v - target) for v in seen.values()) > close:
        rise = seen[high] - seen[low]
        share = 0.5 if halve or rise <= 0 else (target - seen[low]) / rise
        middle = min(max(low + round(share * (high - low)), low + 1), high - 1)
        seen[middle] = value(middle)
        width = high - low
        low, high = (middle, high) if seen[middle] < target else (low, middle)
        halve = high - low > width / 2
    return min(seen, key=lambda place: (abs(seen[place] - target), place))
