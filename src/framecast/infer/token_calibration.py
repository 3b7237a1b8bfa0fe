"""What the dial found: the target, what is reached, and on which evidence."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from framecast.infer.token_statistics import TokenStatistics, in_units
from framecast.writing import write_file

Unit = Literal["macs", "tokens", "ms"]


@dataclass(frozen=True)
class Spread:
    """One choice of blocks, and how near the search came with it."""

    blocks: tuple[int, ...]
    reached: float
    moved: float  # as in the calibration


@dataclass(frozen=True)
class Calibration:
    """What was asked for, what is reached, and on which evidence."""

    unit: Unit
    wanted: float  # MACs of an input, tokens left after the last stage, or milliseconds
    reached: float  # mean over the images
    tolerance: float  # in the same unit
    sampling: dict[str, Any]  # arguments of `fc.adaptive`
    statistics: TokenStatistics
    moved: float  # |change of the answer| / |answer| of the unmodified model, mean
    same_class: float | None  # share of the images whose first class is that of the unmodified model
    timing: dict[str, Any] | None = None  # batch, threads, device, ms of the unmodified model
    tried: tuple[Spread, ...] = ()  # where blocks were searched

    @property
    def met(self) -> bool:
        return abs(self.reached - self.wanted) <= self.tolerance

    def dial(self) -> str:
        """Target and outcome in one sentence."""
        if self.unit == "macs":
            full = self.statistics.full_macs
            text = f"{in_units(self.wanted)} MACs wanted ({self.wanted / full:.1%} of the unmodified model), "
            text += f"{in_units(self.reached)} reached ({self.reached / full:.1%})"
        else:
            name = "tokens left" if self.unit == "tokens" else "ms"
            text = f"{self.wanted:.4g} {name} wanted, {self.reached:.4g} reached"
        within = f"{100 * self.tolerance / self.wanted:.2g} %"
        return f"{text} on {self.statistics.inputs} inputs (tolerance {within})"

    def __str__(self) -> str:
        lines = [self.dial()]
        for row in self.statistics.rows():
            lines.append("  " + "  ".join(f"{key} {value}" for key, value in row.items()))
        return "\n".join([*lines, *self.notes()])

    def notes(self) -> list[str]:
        """Cost, time and answers in sentences."""
        lines = [self.statistics.cost()]
        if (t := self.timing) is not None:
            lines.append(
                f"{self.reached:.3g} ms per input, {t['unmodified_ms']:.3g} ms unmodified; batch "
                f"{t['batch']}, {t['device']}, {t['threads']} threads"
            )
        if self.same_class is not None:
            lines.append(f"same first class as the unmodified model: {self.same_class:.1%} of the images")
        if self.tried:
            chosen = ", ".join(map(str, self.sampling["blocks"]))
            lines.append(f"of {len(self.tried)} spreads blocks {chosen} move the answers least")
        return lines

    def to_json(self) -> dict[str, Any]:
        tried = [asdict(spread) for spread in self.tried]
        numbers = {"statistics": self.statistics.to_json(), "tried": tried, "met": self.met}
        return asdict(self) | numbers

    def write(self, path: str | Path) -> Path:
        """As JSON; for a model that `fc.save` does not take, such as timm's:

        fc.adaptive(model, **json.loads(Path("sampling.json").read_text())["sampling"])
        """
        return write_file(Path(path), json.dumps(self.to_json(), indent=2) + "\n")
