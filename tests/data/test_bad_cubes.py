"""Cubes with one thing wrong: each is refused, or reported by check-data, in words that say what to do."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cube_factory as factory
from framecast.data.cube import open_cube
from framecast.data.cube_check import inspect_cube
from framecast.data.cube_settings import read_cube_settings

pytest.importorskip("xarray")


def changed(**variables: Callable[[Any], Any]) -> Any:
    """The whole cube with some variables replaced: t2m=lambda v: v + 1."""
    data = factory.dataset()
    for name, change in variables.items():
        data[name] = change(data[name].copy())
    return data


def put(values: Any, where: Any, value: float) -> Any:
    values[where] = value
    return values


def moved(name: str, values: Any) -> Any:
    return factory.dataset().assign_coords({name: values})


DAYS = np.datetime64("2020-06-01", "ns") + np.arange(factory.DAYS) * np.timedelta64(1, "D")
Y, X = 40.0 - 0.01 * np.arange(factory.ROWS), 21.0 + 0.01 * np.arange(factory.COLUMNS)


def swapped(values: np.ndarray, a: int, b: int) -> np.ndarray:
    values = values.copy()
    values[[a, b]] = values[[b, a]]
    return values


def twice(values: np.ndarray, place: int) -> np.ndarray:
    values = values.copy()
    values[place] = values[place - 1]
    return values


# name: data (None = as it is), changes of the YAML, words of the message; these cannot be opened
REFUSED: dict[str, tuple[Callable[[], Any] | None, dict[str, Any], str]] = {
    "variable missing": (lambda: factory.dataset().drop_vars("t2m"), {}, "no variable 't2m'"),
    "variable misspelt": (None, {"variables.t2m.name": "t2n"}, "did you mean 't2m'"),
    "unit of another kind": (None, {"variables.t2m.unit": "mm"}, "is in 'K', but the YAML expects 'mm'"),
    "unit unknown": (None, {"variables.rain.unit": "buckets"}, "expects 'buckets'"),
    "time twice": (lambda: moved("time", twice(DAYS, 7)), {}, "2020-06-07 is there twice"),
    "times not in order": (lambda: moved("time", swapped(DAYS, 4, 9)), {}, "times are not in order"),
    "times backwards": (lambda: factory.dataset().isel(time=slice(None, None, -1)), {}, "not in order"),
    "time without date": (lambda: moved("time", np.arange(factory.DAYS)), {}, "without a date"),
    "no dates": (lambda: factory.dataset().drop_vars("time"), {}, "has no coordinate"),
    "no time at all": (lambda: factory.dataset().isel(time=0, drop=True), {}, "no dimension 'time'"),
    "dimension named otherwise": (None, {"y": "latitud"}, "no dimension 'latitud'"),
    "target without a dimension": (
        lambda: factory.dataset().assign(burnt=("time", np.zeros(factory.DAYS))),
        {},
        "without y and x",
    ),
    "dynamic without time": (None, {"variables.dem.role": "dynamic"}, "no dimension 'time'"),
    "static with time": (None, {"variables.rain.role": "static"}, "changes along 'time'"),
    "further dimension": (lambda: changed(t2m=lambda v: v.expand_dims(level=3)), {}, "say which with `at:"),
    "text instead of numbers": (lambda: changed(dem=lambda v: v.astype(str)), {}, "not numbers"),
    "coordinate is text": (lambda: moved("y", Y.astype(str)), {}, "expected its positions as numbers"),
    "coordinate is NaN": (lambda: moved("x", put(X.copy(), 3, np.nan)), {}, "coordinate x is nan at 3"),
    "coordinate twice": (lambda: moved("x", twice(X, 3)), {}, "holds 21.02 twice"),
    "coordinate turns round": (lambda: moved("y", swapped(Y, 4, 5)), {}, "turns round"),
    "cells not evenly spaced": (lambda: moved("y", put(Y.copy(), -1, 39.7)), {}, "not evenly spaced"),
    "metres called degrees": (lambda: moved("y", 4e6 - 1000 * np.arange(factory.ROWS)), {}, "are no degrees"),
    "two systems": (
        lambda: factory.dataset().assign_attrs(crs="EPSG:32634"),
        {},
        "crs is 'EPSG:4326' in the YAML, but 'EPSG:32634'",
    ),
    "land missing": (None, {"land": "mask"}, "no variable 'mask'"),
    "wrong key": (None, {"variables.t2m.rolle": "dynamic"}, "did you mean 'variables.t2m.role'"),
    "wrong role": (None, {"variables.t2m.role": "dynamical"}, "variables.t2m.role"),
    "classes missing": (None, {"variables.cover.classes": None}, "say `classes: N`"),
    "least above largest": (None, {"variables.t2m.least": 5.0, "variables.t2m.largest": 1.0}, "not below"),
    "least alone": (None, {"variables.t2m.least": 5.0}, "together or none"),
    "region turned round": (
        None,
        {"splits.test.region": [22, 39, 21, 40]},
        "not [west, south, east, north]",
    ),
    "split ends before it starts": (None, {"splits.test.last": "2020-01-01"}, "comes after last"),
    "not a number": (None, {"num_days": "ten"}, "num_days"),
    "no variables": (None, {"variables": {}}, "variables is empty"),
    "store elsewhere": (None, {"store": "../other/cube.nc"}, "not below the YAML's own folder"),
    "store at the root": (None, {"store": "/etc/passwd"}, "not below the YAML's own folder"),
    "store is an address": (
        None,
        {"store": "https://example.org/cube.nc"},
        "not below the YAML's own folder",
    ),
    "store missing": (None, {"store": "cub.nc"}, "does not exist"),
    "store not named": (None, {"store": None}, "names no store"),
}

# the same, but these open, and check-data finds what is wrong
REPORTED: dict[str, tuple[Callable[[], Any] | None, dict[str, Any], str]] = {
    "latitude in another unit": (
        lambda: changed(t2m=lambda v: v - 273.15), {}, "cannot be in K; they look like degC"
    ),
    "infinite": (lambda: changed(t2m=lambda v: put(v, (3, 4, 5), np.inf)), {}, "t2m holds 1 infinite"),
    "unmarked gaps": (lambda: changed(rain=lambda v: put(v, (3, 4), -9999)), {}, "write `missing: -9999`"),
    "constant": (lambda: changed(t2m=lambda v: v * 0 + 290), {}, "t2m is 290 everywhere"),
    "target never changes": (lambda: changed(burnt=lambda v: v * 0), {}, "burnt is 0 everywhere"),
    "all unknown": (lambda: changed(rain=lambda v: v * np.nan), {}, "rain has no value on land at all"),
    "tiles of NaN": (
        lambda: changed(rain=lambda v: put(v, slice(16, 32), np.nan)), {}, "from 2020-06-17 to 2020-07-02"
    ),
    "codes out of range": (lambda: changed(cover=lambda v: put(v, (3, 4), 7)), {}, "codes 7; expected 0 … 2"),
    "codes between codes": (lambda: changed(cover=lambda v: v * 0.5), {}, "holds codes 0.5"),
    "shares do not add up": (lambda: changed(crop=lambda v: v * 0.5), {}, "shares of use add up to"),
    "split without times": (None, {"splits.test": {"years": [2031]}}, "split 'test' holds no time"),
    "region outside": (None, {"splits.test.region": [50, 10, 60, 20]}, "holds no cell; the cube reaches"),
    "splits overlap": (None, {"splits.test.first": "2020-06-20"}, "share cells at 5 times"),
    "no land": (lambda: changed(dem=lambda v: v * np.nan), {}, "no cell is land"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_when_opened(name: str, tmp_path: Path) -> None:
    data, changes, words = REFUSED[name]
    path = factory.save_cube(tmp_path, data() if data else None)
    factory.save_yaml(tmp_path, changes)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        open_cube(path)
    assert words in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
    problems = inspect_cube(path).problems
    assert any(words in str(problem) for problem in problems)


@pytest.mark.parametrize("name", REPORTED)
def test_found_by_the_check(name: str, tmp_path: Path) -> None:
    data, changes, words = REPORTED[name]
    path = factory.save_cube(tmp_path, data() if data else None, changes)
    problems = [str(problem) for problem in inspect_cube(path).problems]
    assert any(words in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_a_good_cube_has_no_problem(tmp_path: Path) -> None:
    report = inspect_cube(factory.save_cube(tmp_path))
    assert report.ok, report.problems
    assert report.summary()["steps"] == factory.DAYS


def test_all_problems_are_found_at_once(tmp_path: Path) -> None:
    data = changed(t2m=lambda v: put(v, (3, 4, 5), np.inf)).drop_vars("rain")
    path = factory.save_cube(tmp_path, data, {"splits.test": {"years": [2031]}, "variables.dem.unit": "K"})
    text = " ".join(map(str, inspect_cube(path).problems))
    for words in ("no variable 'rain'", "infinite", "holds no time", "expects 'K'"):
        assert words in text


def test_gap_is_noted_and_left_out_of_windows(tmp_path: Path) -> None:
    path = factory.save_cube(tmp_path, factory.dataset().isel(time=[*range(10), *range(15, 40)]))
    report = inspect_cube(path)
    assert report.ok
    assert "times jump from 2020-06-10 to 2020-06-16" in report.notes[0]
    whole = open_cube(path).without_gap(slice(None), before=3, after=1)
    assert np.flatnonzero(~whole).tolist() == [0, 1, 2, 9, 10, 11, 12, 34]


FILES = {
    "text": (b"Dear reader,", "is no NetCDF (it starts with b'Dear rea')"),
    "empty": (b"", "is empty"),
    "zip": (None, "a zip archive"),
    "gzip": (b"\x1f\x8b\x08\x00", "gzip"),
    "grib": (b"GRIB\x00\x00\x00\x02", "convert it to NetCDF"),
    "broken HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(50), "cannot be opened"),
    "broken NetCDF 3": (b"CDF\x01" + bytes(5), "cannot be opened"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_only_pretend(name: str, tmp_path: Path) -> None:
    path = factory.save_cube(tmp_path)
    data, words = FILES[name]
    if data is None:
        with zipfile.ZipFile(tmp_path / "cube.nc", "w") as archive:
            archive.writestr("a.txt", "a")
    else:
        (tmp_path / "cube.nc").write_bytes(data)
    with pytest.raises(ValueError, match=r"cube\.nc") as error:
        open_cube(path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.3, 0.97])
def test_truncated_netcdf(share: float, tmp_path: Path) -> None:
    path = factory.save_cube(tmp_path)
    whole = (tmp_path / "cube.nc").read_bytes()
    (tmp_path / "cube.nc").write_bytes(whole[: int(share * len(whole))])
    problems = inspect_cube(path).problems
    assert any("cannot be" in str(problem) and "cube" in str(problem) for problem in problems)


def test_truncated_zarr_chunk(tmp_path: Path) -> None:
    path = factory.save_cube(tmp_path, store="cube.zarr")
    for chunk in (tmp_path / "cube.zarr/t2m/c").rglob("0"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[:40])
    problems = inspect_cube(path).problems
    assert any("t2m cannot be read" in str(problem) for problem in problems), problems


def test_zarr_chunk_that_was_lost(tmp_path: Path) -> None:
    encoding = {"t2m": {"chunks": (16, factory.ROWS, factory.COLUMNS)}}
    path = factory.save_cube(tmp_path, store="cube.zarr", encoding=encoding)
    (tmp_path / "cube.zarr/t2m/c/1/0/0").unlink()
    problems = [str(problem) for problem in inspect_cube(path).problems]
    assert any("t2m has no value on land" in problem and "2020-06-17" in problem for problem in problems)


def test_zarr_of_python_objects_is_not_opened(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    path = factory.save_cube(tmp_path, store="cube.zarr")
    group = zarr.open_group(tmp_path / "cube.zarr", mode="w", zarr_format=2)
    array = group.create_array("evil", shape=(1,), chunks=(1,), dtype="f4")
    metadata = tmp_path / "cube.zarr/evil/.zarray"
    text = metadata.read_text().replace('"filters": null', '"filters": [{"id": "pickle", "protocol": 5}]')
    assert "pickle" in text, array
    metadata.write_text(text)
    with pytest.raises(ValueError, match=r"pickle|cannot be|readable"):
        open_cube(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("store: [", "is not valid YAML"),
        ("- a\n- b", "holds list"),
        ("store: a.nc\nstore: b.nc\nvariables: {}", "'store' is there twice"),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
        ("", "holds NoneType"),
    ],
)
def test_yaml_that_is_none(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "cube.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"cube\.yaml") as error:
        read_cube_settings(path)
    assert words in str(error.value)


def test_files_of_several_calendars(tmp_path: Path) -> None:
    xr = pytest.importorskip("xarray")
    folder = tmp_path / "months"
    folder.mkdir()
    for part, calendar in enumerate(("standard", "noleap")):
        times = xr.date_range(f"202{part}-06-01", periods=10, calendar=calendar, use_cftime=True)
        data = factory.dataset().isel(time=slice(10)).assign_coords(time=times)
        data.to_netcdf(folder / f"{part}.nc", engine="h5netcdf")
    path = factory.save_yaml(tmp_path, {"store": "months"})
    with pytest.raises(ValueError, match=r"several calendars \(noleap, standard\)"):
        open_cube(path)
