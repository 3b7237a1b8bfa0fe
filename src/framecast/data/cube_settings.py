"""What a cube's YAML says: which variables it has, what each is for, units, scaling, splits.

store: greece.zarr
land: dem
variables:
  temperature: {role: dynamic, name: t2m, unit: K, scale: standard}
  dem: {role: static, unit: m}
  land_cover: {role: categorical, classes: 10}
  burned_areas: {role: target}
splits:
  train: {years: [2018, 2019]}
  test: {years: [2020], region: [20.0, 36.0, 24.0, 40.0]}
"""

from __future__ import annotations

from datetime import date
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from framecast.settings import Settings, read_yaml, validated, yaml_text
from framecast.writing import write_file

Role = Literal["dynamic", "static", "categorical", "target"]


class CubeVariable(Settings):
    """One variable of a cube."""

    model_config = ConfigDict(coerce_numbers_to_str=True)  # unit: 1 and name: 10 are texts, too

    role: Role
    name: str | None = None  # in the store; None = as the key says
    unit: str | None = None  # that the values shall have; converted from the store's where that is known
    scale: Literal["range", "standard", "none"] = "range"  # to 0..1, or to mean 0 and deviation 1
    least: float | None = None  # None = from the statistics of the training split
    largest: float | None = None
    mean: float | None = None
    std: float | None = Field(None, gt=0)
    classes: int | None = Field(None, ge=2, le=1000)  # codes 0 … classes-1 become one channel each
    per_year: bool = False  # a map per year: name holds {year}, and the nearest year is taken
    missing: tuple[float, ...] = ()  # more values that mean "unknown", where the store does not say so
    at: dict[str, float | str] = Field(default_factory=dict)  # place along further dimensions, {level: 850}
    share_of: str | None = None  # variables with the same word here are shares that add up to 1

    @model_validator(mode="before")
    @classmethod
    def _one_missing(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("missing"), int | float):
            return values | {"missing": (values["missing"],)}
        return values

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.role == "categorical") != (self.classes is not None):
            wanted = (
                "say `classes: N`" if self.classes is None else "`classes` is for `role: categorical` only"
            )
            raise ValueError(f"a variable with role {self.role}: {wanted}")
        if self.per_year and (
            self.role not in ("static", "categorical") or "{year}" not in (self.name or "")
        ):
            raise ValueError("per_year is for static variables whose name holds {year}, as in POP_{year}")
        for low, high in ((self.least, self.largest), (self.mean, self.std)):
            if (low is None) != (high is None):
                raise ValueError("give least and largest (mean and std) together or none of them")
        if self.least is not None and self.largest is not None and self.least >= self.largest:
            raise ValueError(f"least is {self.least:g}, which is not below largest, {self.largest:g}")
        return self


class CubeSplit(Settings):
    """Days whose maps are asked for, and where: all conditions that are given hold together."""

    years: tuple[int, ...] | None = None
    first: date | None = None
    last: date | None = None  # inclusive
    region: tuple[float, float, float, float] | None = None  # west, south, east, north in the cube's x and y

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.first and self.last and self.first > self.last:
            raise ValueError(f"first is {self.first}, which comes after last, {self.last}")
        if self.region is not None:
            west, south, east, north = self.region
            if west >= east or south >= north:
                raise ValueError(f"region {list(self.region)} is not [west, south, east, north]")
        return self


class Statistics(Settings):
    """Of one variable over the land and days of the training split, in the variable's unit."""

    least: float
    largest: float
    mean: float
    std: float
    count: int  # known values
    unknown: int = 0


class CubeSettings(Settings):
    """A cube as its YAML describes it."""

    store: str = ""  # path of the store, relative to the YAML
    time: str = "time"
    y: str = "y"
    x: str = "x"
    crs: str | None = None  # "EPSG:4326" and the like; None = as the store says
    land: str | None = None  # variable of the store: above 0, or known at all, on land
    variables: dict[str, CubeVariable]
    splits: dict[str, CubeSplit] = Field(default_factory=dict)
    window_cells: int = Field(25, ge=1)  # side of the window round a cell
    num_days: int = Field(10, ge=1)  # time steps that a model looks back
    lead: int = Field(1, ge=0)  # time steps from the last one that is read to the one that is asked
    statistics: dict[str, Statistics] = Field(default_factory=dict)  # written by `framecast prepare`

    @model_validator(mode="after")
    def _has_variables(self) -> Self:
        if not self.variables:
            raise ValueError("variables is empty; name at least one")
        return self

    def with_role(self, *roles: Role) -> dict[str, CubeVariable]:
        return {key: variable for key, variable in self.variables.items() if variable.role in roles}


def read_cube_settings(path: str | Path) -> CubeSettings:
    """Settings from a YAML file; ValueError names the file, every wrong key and the nearest known one."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a YAML that describes a cube")
    values = read_yaml(path, "store: cube.zarr")
    settings = parse_cube_settings(values, str(path))
    if settings.store:
        inside_folder(settings.store, path)
    return settings


def parse_cube_settings(values: dict[str, Any], source: str) -> CubeSettings:
    """Settings from a dictionary; source: where it came from, for messages."""
    return validated(CubeSettings, values, source)


def dump_cube_settings(settings: CubeSettings) -> str:
    """YAML text that `read_cube_settings` reads back to equal settings."""
    values = settings.model_dump(mode="json", exclude_defaults=True)
    return yaml_text(values, default_flow_style=None, width=110)


def save_cube_settings(settings: CubeSettings, path: str | Path) -> None:
    write_file(Path(path), dump_cube_settings(settings))


def inside_folder(store: str, yaml_path: Path) -> Path:
    """The store's path; ValueError where it would lie outside the YAML's folder, or is an address."""
    parts = (*PurePosixPath(store).parts, *PureWindowsPath(store).parts)
    absolute = PurePosixPath(store).is_absolute() or PureWindowsPath(store).is_absolute()
    if absolute or ".." in parts or "://" in store:
        raise ValueError(
            f"{yaml_path}: store {store!r} is not below the YAML's own folder; "
            "put the YAML beside the store, or a link to the store beside the YAML"
        )
    return yaml_path.parent / store
