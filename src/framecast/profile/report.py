"""The report: one `ModelProfile` per model, several of them in one table, as text, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

import framecast
from framecast.infer.token_statistics import TokenStatistics
from framecast.ops import native_library
from framecast.profile.counting import Cost, Counts
from framecast.profile.memory import Memory
from framecast.profile.timing import Timing
from framecast.train.environment import describe_machine
from framecast.writing import write_file

NOT_MEASURABLE = "not measurable here"


@dataclass(frozen=True)
class ModelProfile:
    """What one model costs for one input. Counts are per input, times and memory per call with the batch."""

    name: str
    model: str  # registered name, or class
    input: str  # for example "224x224" or "2048x5000"
    counts: Counts  # every token through every layer, as papers count
    executed: Counts  # what the model really runs, which may be less: rows that nobody reads, dropped tokens
    executed_on: str  # "shapes", or "data" where the values of the input had a say
    data: str = ""  # where the input came from, "" = random numbers
    timing: Timing | None = None
    memory: Memory | None = None
    tokens: TokenStatistics | None = None  # what an adaptive model keeps, over all inputs
    scores: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # "energy", … -> why it was not measured

    @property
    def total(self) -> Cost:
        return self.counts.total

    @property
    def macs_run(self) -> float:
        """Of an input; of an adaptive model the mean over all of them."""
        return self.executed.total.macs if self.tokens is None else self.tokens.macs

    def to_json(self) -> dict[str, Any]:
        """Numbers in plain units: operations, bytes, milliseconds, joules."""
        modules: dict[str, dict[str, Any]] = {}
        for (path, part), flops in self.counts.flops.items():
            modules.setdefault(path, {})[part] = {"macs": flops // 2, "flops": flops}
        timing = self.timing
        return {
            "name": self.name,
            "model": self.model,
            "input": self.input,
            "data": self.data,
            "executed_on": self.executed_on,
            "total": _cost(self.total),
            "parts": {name: _cost(cost) for name, cost in self.counts.parts.items()},
            "executed": _cost(self.executed.total),
            "executed_parts": {name: _cost(cost) for name, cost in self.executed.parts.items()},
            "modules": modules,
            "timing": None if timing is None else asdict(timing) | {"per_second": timing.per_second},
            "memory": None if self.memory is None else asdict(self.memory),
            "tokens": None if self.tokens is None else self.tokens.to_json(),
            "scores": self.scores,
            "missing": self.missing,
        }


def _cost(cost: Cost) -> dict[str, int]:
    return {"params": cost.params, "macs": cost.macs, "flops": cost.flops}


def to_json(profiles: Sequence[ModelProfile]) -> dict[str, Any]:
    """All profiles with the machine that they were taken on."""
    return {
        "framecast": framecast.__version__,
        "torch": torch.__version__,
        "machine": describe_machine(),
        "native_kernels": native_library.available(),
        "profiles": [profile.to_json() for profile in profiles],
    }


# Tables -----------------------------------------------------------------------------------------------


def summary_rows(profiles: Sequence[ModelProfile], metric: str | None = None) -> list[dict[str, str]]:
    """One row per model with figures as people read them; columns that nobody fills are left out."""
    rows = []
    for p in profiles:
        t, m = p.timing, p.memory
        row = {"model": p.name, "input": p.input, "parameters": quantity(p.total.params)}
        row |= {"MACs": quantity(p.total.macs), "FLOPs": quantity(p.total.flops)}
        row["MACs run"] = quantity(p.macs_run) if runs_less(profiles) else ""
        row["latency"] = f"{figure(t.wall_ms)} ms" if t else _missing(p, "timing")
        row["CPU time"] = f"{figure(t.cpu_ms)} ms" if t else ""
        row["inputs/s"] = figure(t.per_second) if t else ""
        row["peak memory"] = f"{figure(m.peak / 2**20)} MiB" if m else _missing(p, "memory")
        joules = t.joules if t else None
        row["energy"] = f"{figure(joules)} J" if joules is not None else _missing(p, "energy")
        row[metric or "score"] = figure(p.scores[metric]) if metric in p.scores else ""
        rows.append(row)
    filled = {key for row in rows for key, value in row.items() if value}
    return [{key: value for key, value in row.items() if key in filled} for row in rows]


def _missing(profile: ModelProfile, what: str) -> str:
    return NOT_MEASURABLE if what in profile.missing else ""


def part_rows(profile: ModelProfile) -> list[dict[str, str]]:
    """One row per part, the total last."""
    total, less = profile.total, runs_less([profile])
    run = {**profile.executed.parts, "total": profile.executed.total}
    return [
        {
            "part": name,
            "parameters": quantity(cost.params),
            "MACs": quantity(cost.macs),
            "FLOPs": quantity(cost.flops),
            "share of MACs": f"{100 * cost.flops / max(total.flops, 1):.1f} %",
        }
        | ({"MACs run": quantity(run[name].macs if name in run else 0)} if less else {})
        for name, cost in {**profile.counts.parts, "total": total}.items()
    ]


def runs_less(profiles: Sequence[ModelProfile]) -> bool:
    """Whether a model runs something else than papers count."""
    return any(p.executed.total.flops != p.total.flops for p in profiles)


def method(profiles: Sequence[ModelProfile]) -> list[str]:
    """How the figures came about, in sentences."""
    lines = ['MACs: multiply-accumulates of one input, the "GFLOPs" of most papers; 1 MAC = 2 FLOPs']
    if any("scan" in p.counts.parts for p in profiles):
        lines.append("scan: about 9 FLOPs per step, channel and state, which most papers leave out")
    if runs_less(profiles):
        lines.append("MACs run: what the model really runs; rows that nobody reads are never made")
    sampling = [(p.name, p.tokens) for p in profiles if p.tokens]
    lines += [f"{name} samples tokens: {found.cost()}; parts are of the first" for name, found in sampling]
    timings = [p.timing for p in profiles if p.timing]
    if timings:
        threads = ", ".join(dict.fromkeys(_threads(t) for t in timings))
        runs = sorted({t.runs for t in timings})
        lines.append(
            f"latency: median wall-clock time of a warm call, batch {timings[0].batch}, {threads}, "
            f"{'–'.join(map(str, dict.fromkeys((runs[0], runs[-1]))))} runs, on {describe_machine()}"
        )
    if any(p.memory for p in profiles):
        lines.append("peak memory: of one call in a fresh process, on top of weights and input")
    reasons = dict.fromkeys((what, why) for p in profiles for what, why in p.missing.items())
    return [*lines, *(f"{what}: {NOT_MEASURABLE}; {why}" for what, why in reasons)]


def _threads(timing: Timing) -> str:
    words = f"{timing.threads} thread{'s' * (timing.threads != 1)}"
    return words if timing.device == "cpu" else f"{timing.device} with {words}"


def quantity(number: float) -> str:
    """Three or more digits with a unit prefix: 5.72 M, 17.56 G, 1.25 G."""
    for size, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= 0.9995 * size:
            return f"{number / size:.2f}{prefix}"
    return f"{number:g}"


def figure(value: float) -> str:
    """Three digits, and no fewer than the number has before its point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


# Files ------------------------------------------------------------------------------------------------

COLUMNS = (
    *("name", "model", "input", "data", "params", "macs", "flops"),
    *("macs_run", "flops_run", "batch", "threads", "device", "runs"),
    *("wall_ms", "cpu_ms", "per_second", "weights_bytes", "peak_bytes", "joules"),
)


def write_profiles(profiles: Sequence[ModelProfile], folder: Path, text: str) -> list[Path]:
    """profile.json, profile.csv (a row per model), parts.csv (a row per model and part), profile.txt."""
    return [
        write_file(folder / "profile.json", json.dumps(to_json(profiles), indent=1) + "\n"),
        write_file(folder / "profile.csv", models_csv(profiles)),
        write_file(folder / "parts.csv", parts_csv(profiles)),
        write_file(folder / "profile.txt", text + "\n"),
    ]


def models_csv(profiles: Sequence[ModelProfile]) -> str:
    """Plain units; empty where not measured. Scores stand in columns of their own behind."""
    metrics = list(dict.fromkeys(key for p in profiles for key in p.scores))
    rows: list[list[Any]] = [[*COLUMNS, *metrics]]
    for p in profiles:
        t, m = p.timing, p.memory
        values: dict[str, Any] = {"name": p.name, "model": p.model, "input": p.input, "data": p.data}
        values |= {**_cost(p.total), "macs_run": p.executed.total.macs, "flops_run": p.executed.total.flops}
        if t:
            values |= {**asdict(t), "per_second": t.per_second}
        if m:
            values |= {"weights_bytes": m.weights, "peak_bytes": m.peak}
        values |= p.scores
        rows.append([_blank(values.get(column)) for column in rows[0]])
    return _csv(rows)


def parts_csv(profiles: Sequence[ModelProfile]) -> str:
    rows: list[list[Any]] = [["name", "part", "params", "macs", "flops"]]
    for p in profiles:
        rows += [[p.name, part, *_cost(cost).values()] for part, cost in p.counts.parts.items()]
    return _csv(rows)


def _blank(value: Any) -> Any:
    return "" if value is None else value


def _csv(rows: list[list[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
