"""Finds every problem of a cube in one pass, before any training starts.

Settings, axes, variables, units, splits and then all values are looked at, in boxes that fit into memory.
Problems make training wrong or impossible; notes are things that a person should know.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from framecast.data.cube import Cube
from framecast.data.cube_axes import dates_of, find_crs, read_axes
from framecast.data.cube_boxes import boxes, chunk_of, plan_box
from framecast.data.cube_layouts import find_cube
from framecast.data.cube_prepare import layout_notes
from framecast.data.cube_settings import CubeSettings
from framecast.data.cube_store import CubeError, Store, is_zarr
from framecast.data.cube_units import implausible
from framecast.data.cube_variables import bind_land, bind_variables
from framecast.data.cube_writing import CHUNK
from framecast.data.problems import Problem
from framecast.data.tsmp_weeks import is_tsmp

# Marks for "unknown" that stores use without saying so.
MARKS = (-9999.0, -999.0, -99999.0, -32768.0, -3.4028234663852886e38, 9.969209968386869e36, 1e20, 1e30)
SHARES_OFF = 0.02  # from 1, by which shares may miss


@dataclass
class CubeReport:
    """What a cube holds and what is wrong with it."""

    root: Path
    layout: str = "cube"
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures = ("steps", "rows", "columns", "dynamic", "static", "targets")
    cube: Cube | None = None

    @property
    def ok(self) -> bool:
        return not self.problems

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "root": str(self.root),
            "layout": self.layout,
            "problems": len(self.problems),
            "notes": self.notes,
        }
        if self.cube is None:
            return found | dict.fromkeys(self.figures, 0)
        cube = self.cube
        first, last = dates_of(cube.times[[0, -1]])
        return found | {
            **dict(zip(("steps", "rows", "columns"), cube.shape, strict=True)),
            "dynamic": len(cube.dynamic_names),
            "static": len(cube.static_names),
            "targets": len(cube.target_names),
            "first": first,
            "last": last,
            "crs": cube.crs,
            "land_cells": int(cube.land.sum()),
        }


def is_cube(path: Path) -> bool:
    """Whether a path is a cube's YAML or store by its name or content."""
    if path.suffix.lower() in (".yaml", ".yml", ".nc", ".nc4", ".zarr"):
        return True
    return path.is_dir() and (is_zarr(path) or (path / "cube.yaml").is_file() or is_tsmp(path))


def inspect_cube(path: str | Path, *, memory_mb: float = 256) -> CubeReport:
    """Check everything of a cube; nothing but a bug or a missing package raises."""
    path = Path(path)
    report = CubeReport(path)

    def say(message: str) -> None:
        problem = Problem(path, None, message.removeprefix(f"{path}: "))
        if problem not in report.problems:
            report.problems.append(problem)

    try:
        store, settings, _ = find_cube(path)
        axes = read_axes(store, settings, say)
    except ImportError:
        raise
    except (ValueError, OSError) as error:
        say(str(error))
        return report
    bound = bind_variables(store, settings, axes, say)
    find_crs(store, settings, axes, say)
    try:
        bind_land(store, settings, axes)
    except CubeError as error:
        say(str(error).removeprefix(f"{store.path}: "))
        settings = settings.model_copy(update={"land": None})
    cube = _without_problems(store, settings, path, set(bound))
    if cube is None:
        return report
    report.cube = cube
    report.notes += _gaps(cube) + layout_notes(cube)
    check_splits(cube, say)
    size = cube.settings.window_cells
    if size > min(cube.shape[1:]):
        report.notes.append(
            f"window_cells is {size}, but the cube has {cube.shape[1]} x {cube.shape[2]} cells, so that no "
            "window fits; models of whole maps are not concerned"
        )
    try:
        if not cube.land.any():
            say(f"no cell is land by {cube.settings.land!r}; it must be above 0, or known, on land")
            return report
        for key in bound:
            _check_values(cube, key, memory_mb, say, report.notes)
        _check_shares(cube, say)
    except (ValueError, OSError) as error:
        say(str(error).removeprefix(f"{store.path}: "))
    return report


def _without_problems(store: Store, settings: CubeSettings, path: Path, good: set[str]) -> Cube | None:
    """The cube with the variables that can be read, so that these are checked as well."""
    kept = {key: variable for key, variable in settings.variables.items() if key in good}
    if not kept:
        return None
    try:
        return Cube(store, settings.model_copy(update={"variables": kept}), path)
    except ValueError:
        return None  # its axes are at fault, which has been said


def _gaps(cube: Cube) -> list[str]:
    gaps = np.flatnonzero(~cube.without_gap(slice(1, None), before=1))
    if not len(gaps):
        return []
    before, after = dates_of(cube.times[[gaps[0], gaps[0] + 1]])
    more = f", and {len(gaps) - 1} more gaps" if len(gaps) > 1 else ""
    return [f"times jump from {before} to {after}{more}; windows that reach over a gap are left out"]


def check_splits(cube: Cube, say: Any) -> None:
    """Empty splits, and cells at times that two splits share."""
    found = {}
    for name in cube.settings.splits:
        try:
            found[name] = cube.split(name)
        except ValueError as error:
            say(str(error))
    names = list(found)
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            shared = np.intersect1d(found[name][0], found[other][0])
            places = [
                max(a.start, b.start) < min(a.stop, b.stop)
                for a, b in zip(found[name][1:], found[other][1:], strict=True)
            ]
            if len(shared) and all(places):
                when = dates_of(cube.times[shared[[0, -1]]])
                say(
                    f"splits {name!r} and {other!r} share cells at {len(shared)} times "
                    f"({when[0]} … {when[1]}); keep them apart"
                )


def _check_values(cube: Cube, key: str, memory_mb: float, say: Any, notes: list[str]) -> None:
    """All values of a variable on land: infinities, marks, what is empty, constant, or cannot be."""
    variable = cube.settings.variables[key]
    stored = cube.maps[key].of_year(int(dates_of(cube.times[-1:])[0][:4]))
    size = cube.shape if stored.in_time else (1, *cube.shape[1:])
    infinite, known, total = 0, 0, 0
    marks: Counter[float] = Counter()
    empty: list[tuple[slice, slice, slice]] = []
    least, largest = np.inf, -np.inf
    strange: set[float] = set()
    for box in boxes(size, plan_box(size, chunk_of(stored), CHUNK, memory_mb)):
        cells = cube.land[box[1:]]
        if not cells.any():
            continue
        when = box[0] if stored.in_time else 0
        raw = stored.read(cube.store, when, *box[1:], clean=False)[..., cells].astype(np.float64)
        infinite += int(np.isinf(raw).sum())
        for mark in MARKS:
            if mark not in variable.missing:
                marks[mark] += int(np.count_nonzero(np.isclose(raw, mark, rtol=1e-6, atol=0.0)))
        values = stored.clean(raw)
        here = values[np.isfinite(values)]
        total, known = total + values.size, known + here.size
        if not here.size:
            empty.append(box)
            continue
        least, largest = min(least, float(here.min())), max(largest, float(here.max()))
        if variable.classes is not None:
            strange |= {float(c) for c in np.unique(here) if c != int(c) or not 0 <= c < variable.classes}
    if infinite:
        say(f"{key} holds {infinite} infinite values, which count as unknown; correct them in the store")
    for mark, count in marks.items():
        if count:
            say(f"{key} holds {mark:g} in {count} places, which looks like a mark; write `missing: {mark:g}`")
    if not known:
        say(f"{key} has no value on land at all")
        return
    if empty:
        where = _where(cube, empty[0], stored.in_time)
        say(f"{key} has no value on land in {where}{_more(len(empty) - 1)}")
    if strange:
        listed = ", ".join(f"{code:g}" for code in sorted(strange)[:5])
        say(f"{key} holds codes {listed}; expected 0 … {(variable.classes or 0) - 1}")
    elif least == largest:
        say(f"{key} is {least:g} everywhere; a variable that never changes tells nothing")
    odd = implausible(stored.unit, least, largest) if not any(marks.values()) else ""
    if odd:
        say(f"{key}: {odd}")
    if known < 0.5 * total and variable.role != "target":
        notes.append(f"{key} is unknown in {1 - known / total:.0%} of land cells and times")


def _where(cube: Cube, box: tuple[slice, slice, slice], in_time: bool) -> str:
    time, rows, columns = box
    first, last = dates_of(cube.times[[time.start, time.stop - 1]])
    days = f" from {first} to {last}" if in_time else ""
    return f"rows {rows.start}–{rows.stop - 1}, columns {columns.start}–{columns.stop - 1}{days}"


def _more(count: int) -> str:
    return f", nor in {count} more such boxes" if count else ""


def _check_shares(cube: Cube, say: Any) -> None:
    """Shares of one kind add up to 1 on land."""
    groups: dict[str, list[str]] = defaultdict(list)
    for key, variable in cube.settings.variables.items():
        if variable.share_of is not None and not cube.maps[key].in_time:
            groups[variable.share_of].append(key)
    year = int(dates_of(cube.times[-1:])[0][:4])
    for name, keys in groups.items():
        total = np.zeros(cube.shape[1:])
        for key in keys:
            stored = cube.maps[key].of_year(year)
            total += stored.read(cube.store, 0, slice(None), slice(None))
        known = cube.land & np.isfinite(total)
        off = known & (np.abs(total - 1) > SHARES_OFF)
        if off.any():
            row, column = np.argwhere(off)[0]
            say(
                f"shares of {name} add up to {total[row, column]:.3g} in row {row}, column {column} "
                f"and are off in {int(off.sum())} of {int(known.sum())} cells; they must add up to 1"
            )
