"""Variables of a cube bound to what a store holds: dimensions put in order, units converted, gaps marked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from framecast.data.cube_axes import Axes, Say, flipped, refuse_in
from framecast.data.cube_settings import CubeSettings, CubeVariable
from framecast.data.cube_store import CubeError, Store, StoredVariable
from framecast.data.cube_units import converter, unit_name
from framecast.registry import did_you_mean

Part = slice | int


@dataclass(frozen=True)
class StoredMap:
    """How maps of one variable are read."""

    key: str
    name: str  # in the store; of per-year variables the latest
    axes: Axes
    stored: StoredVariable
    unit: str
    convert: Callable[[np.ndarray], np.ndarray] | None = None
    missing: tuple[float, ...] = ()
    fixed: dict[str, int] = field(default_factory=dict)  # place along further dimensions
    years: dict[int, str] = field(default_factory=dict)  # of per-year variables: year -> name
    codes: int | None = None

    @property
    def in_time(self) -> bool:
        return self.axes.time in self.stored.dims and self.axes.time not in self.fixed

    def of_year(self, year: int) -> StoredMap:
        """The map of the nearest year, of two that are as near the earlier."""
        if not self.years:
            return self
        return replace(self, name=self.years[min(self.years, key=lambda y: (abs(y - year), y))])

    def read(
        self, store: Store, times: Part, rows: slice, columns: slice, *, clean: bool = True
    ) -> np.ndarray:
        """(T, H, W) float32 of variables in time, (H, W) of others; NaN where unknown; north, west first.

        clean=False: as the store has it, with infinities, marks and its own unit, for checks.
        """
        axes = self.axes
        order = [axes.time] * self.in_time + [axes.y_name, axes.x_name]
        at_y = flipped(rows, len(axes.y), axes.y_flipped)
        at_x = flipped(columns, len(axes.x), axes.x_flipped)
        index = {axes.time: times, axes.y_name: at_y, axes.x_name: at_x, **self.fixed}
        values = store.read(self.name, {dim: index[dim] for dim in self.stored.dims})
        left = [dim for dim in self.stored.dims if dim not in self.fixed]
        values = values.transpose([left.index(dim) for dim in order if dim in left])
        for axis, dim in enumerate(order):
            if dim not in left:  # one value per day, everywhere
                values = np.expand_dims(values, axis)
        if axes.y_flipped:
            values = values[..., ::-1, :]
        if axes.x_flipped:
            values = values[..., ::-1]
        if clean:
            values = self.clean(values)
        shape = *values.shape[: self.in_time], at_y.stop - at_y.start, at_x.stop - at_x.start
        return values if values.shape == shape else np.broadcast_to(values, shape).copy()

    def clean(self, values: np.ndarray) -> np.ndarray:
        """float32 in our unit, NaN for marks and infinities."""
        gaps = None
        for code in self.missing:
            here = np.isclose(values, code, rtol=1e-6, atol=0.0)
            gaps = here if gaps is None else gaps | here
        if self.convert is not None:
            values = self.convert(values.astype(np.float64))
        values = np.ascontiguousarray(values, dtype=np.float32)
        unknown = ~np.isfinite(values)
        if gaps is not None:
            unknown |= gaps
        if unknown.any():
            values = np.where(unknown, np.float32(np.nan), values)
        return values


def bind_variables(
    store: Store, settings: CubeSettings, axes: Axes, say: Say | None = None
) -> dict[str, StoredMap]:
    """Every variable of the settings; the first problem is raised, or all are told to `say`."""
    say = say or refuse_in(store.path)
    found = {}
    for key, variable in settings.variables.items():
        try:
            found[key] = bind_variable(store, axes, key, variable)
        except CubeError as error:
            say(str(error).removeprefix(f"{store.path}: "))
    return found


def bind_land(store: Store, settings: CubeSettings, axes: Axes) -> StoredMap | None:
    """The map that tells land from sea: a variable of the settings or of the store."""
    if settings.land is None:
        return None
    variable = settings.variables.get(settings.land)
    if variable is None:
        variable = CubeVariable(role="static")
    variable = variable.model_copy(update={"name": variable.name or settings.land})
    return bind_variable(store, axes, "land", variable, any_role=True)


def bind_variable(
    store: Store, axes: Axes, key: str, variable: CubeVariable, any_role: bool = False
) -> StoredMap:
    """CubeError where the store has no such variable, or it does not fit its role or unit."""
    name, years = variable.name or key, {}
    if variable.per_year:
        years = _years(store, key, name)
        name = years[max(years)]
    if name not in store.variables:
        known = [n for n, v in store.variables.items() if axes.y_name in v.dims or axes.x_name in v.dims]
        of = f" (of {key})" if name != key else ""
        raise CubeError(
            f"{store.path}: no variable {name!r}{of}{did_you_mean(name, known)}; it has {_list(known)}"
        )
    stored = store.variables[name]
    if stored.dtype.kind not in "fiub":
        raise CubeError(f"{store.path}: {name} holds {stored.dtype}, not numbers")
    fixed = _fixed(store, axes, name, stored, variable)
    in_time, on_map = axes.time in stored.dims, {axes.y_name, axes.x_name} <= set(stored.dims)
    if not any_role:
        if variable.role in ("dynamic", "target") and not in_time:
            raise CubeError(
                f"{store.path}: {name} has role {variable.role}, but no dimension {axes.time!r} "
                f"(it has {', '.join(stored.dims)}); give it `role: static`"
            )
        if variable.role in ("static", "categorical") and in_time and axes.time not in fixed:
            raise CubeError(
                f"{store.path}: {name} has role {variable.role}, but changes along {axes.time!r}; "
                "give it `role: dynamic`"
            )
    if axes.time in stored.dims and any_role:
        fixed[axes.time] = 0
    if not on_map and not (variable.role == "dynamic" and stored.dims == (axes.time,)):
        missing = [dim for dim in (axes.y_name, axes.x_name) if dim not in stored.dims]
        raise CubeError(f"{store.path}: {name} has dimensions {stored.dims}, without {' and '.join(missing)}")
    unit, convert = _unit(store, name, stored, variable)
    return StoredMap(key, name, axes, stored, unit, convert, variable.missing, fixed, years, variable.classes)


def _years(store: Store, key: str, name: str) -> dict[int, str]:
    pattern = re.compile(re.escape(name).replace(re.escape("{year}"), r"(\d{4})"))
    years = {int(m[1]): n for n in store.variables if (m := pattern.fullmatch(n))}
    if not years:
        near = did_you_mean(name, store.variables)
        raise CubeError(f"{store.path}: no variable like {name!r} (of {key}) with a year in it{near}")
    return years


def _fixed(
    store: Store, axes: Axes, name: str, stored: StoredVariable, variable: CubeVariable
) -> dict[str, int]:
    """Places along dimensions other than time, y and x."""
    fixed = {}
    for dim, size in stored.sizes.items():
        if dim in (axes.y_name, axes.x_name) or (dim == axes.time and variable.role in ("dynamic", "target")):
            continue
        if dim in variable.at:
            fixed[dim] = _place(store, name, dim, size, variable.at[dim])
        elif size == 1:
            fixed[dim] = 0
        elif dim != axes.time:
            raise CubeError(
                f"{store.path}: {name} has a further dimension {dim!r} of {size}; "
                f"say which with `at: {{{dim}: VALUE}}`"
            )
    unknown = [dim for dim in variable.at if dim not in stored.dims]
    if unknown:
        raise CubeError(f"{store.path}: {name} has no dimension {unknown[0]!r}; it has {stored.dims}")
    return fixed


def _place(store: Store, name: str, dim: str, size: int, value: float | str) -> int:
    coordinate = store.coordinate(dim)
    values = np.arange(size) if coordinate is None else coordinate
    if isinstance(value, str):
        same = np.flatnonzero(values.astype(str) == value)
    elif values.dtype.kind in "fiu":
        same = np.flatnonzero(np.isclose(values.astype(np.float64), value, rtol=1e-6))
    else:
        same = np.array([], dtype=int)
    if not len(same):
        raise CubeError(
            f"{store.path}: {name} has no {dim} {value}; it has {_list([str(v) for v in values])}"
        )
    return int(same[0])


def _unit(
    store: Store, name: str, stored: StoredVariable, variable: CubeVariable
) -> tuple[str, Callable[[np.ndarray], np.ndarray] | None]:
    declared = str(stored.attrs.get("units", stored.attrs.get("unit", ""))).strip()
    wanted = variable.unit
    if wanted is None or not declared:
        return wanted or declared, None
    if unit_name(declared) == unit_name(wanted):
        return wanted, None
    try:
        return wanted, converter(declared, wanted)
    except ValueError as error:
        raise CubeError(
            f"{store.path}: {name} is in {declared!r}, but the YAML expects {wanted!r} ({error})"
        ) from None


def _list(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
