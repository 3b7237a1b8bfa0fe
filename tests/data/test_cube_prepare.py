"""Preparing a cube: the same values in other chunks, right statistics, memory as promised."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cube_factory as factory
from framecast.data.cube import open_cube
from framecast.data.cube_boxes import WASTE, boxes, plan_box, waste
from framecast.data.cube_prepare import prepare_cube
from framecast.data.cube_statistics import RunningStatistics, compute_statistics

xr: Any = pytest.importorskip("xarray")


def test_prepared_cube_holds_the_same(tmp_path: Path) -> None:
    data = factory.dataset().isel(y=slice(None, None, -1))
    data["t2m"] = (data.t2m - 273.15).assign_attrs(units="degC")
    data["rain"][3, 4, 5] = np.nan
    source = open_cube(factory.save_cube(tmp_path / "source", data))
    report = prepare_cube(source, tmp_path / "out", memory_mb=16, quiet=True)
    for path in (tmp_path / "out", tmp_path / "out/cube.yaml", tmp_path / "out/cube.zarr", report.path):
        cube = open_cube(path)
        np.testing.assert_array_equal(
            cube.dynamic(slice(None), scaled=False), source.dynamic(slice(None), scaled=False)
        )
    np.testing.assert_array_equal(cube.static(scaled=False), source.static(scaled=False))
    np.testing.assert_array_equal(cube.land, source.land)
    np.testing.assert_array_equal(cube.target("burnt", [3]), source.target("burnt", [3]))
    assert cube.crs == source.crs
    assert np.isfinite(cube.dynamic(slice(None))).all()
    with xr.open_zarr(tmp_path / "out/cube.zarr", consolidated=False, chunks=None) as plain:
        assert plain.t2m.attrs["units"] == "K"
        assert plain.y.attrs["standard_name"] == "latitude"


def test_statistics_are_of_land_and_training_days(tmp_path: Path) -> None:
    cube = open_cube(factory.save_cube(tmp_path))
    found = compute_statistics(cube, memory_mb=0.01, quiet=True)  # many small boxes
    values = factory.dataset().t2m.values[:24][:, cube.land].astype(np.float64)
    t2m = found["t2m"]
    np.testing.assert_allclose((t2m.mean, t2m.std), (values.mean(), values.std()), rtol=1e-10)
    assert (t2m.least, t2m.largest, t2m.count) == (values.min(), values.max(), values.size)
    assert found["dem"].count == cube.land.sum()
    scaled = cube.with_statistics(found).dynamic(slice(24))[0][:, cube.land]
    assert (scaled.min(), scaled.max()) == (0, 1)
    assert "cover" not in found


def test_merging_pieces_is_exact_for_large_offsets() -> None:
    values = np.random.default_rng(0).normal(1e6, 0.01, 3000)
    running = RunningStatistics()
    for piece in np.split(np.append(values, np.nan), [7, 700, 701]):
        running.update(piece)
    result = running.result()
    assert result is not None
    np.testing.assert_allclose(result.std, values.std(), rtol=1e-6)
    assert (result.count, result.unknown) == (3000, 1)
    assert RunningStatistics().result() is None


@pytest.mark.parametrize("chunk", [None, (1, 50, 60), (400, 1, 1), (7, 9, 11)])
@pytest.mark.parametrize("memory_mb", [0.001, 0.1, 100])
def test_boxes_cover_everything_once_within_memory(chunk: Any, memory_mb: float) -> None:
    size = (400, 50, 60)
    box = plan_box(size, chunk, (16, 32, 32), memory_mb)
    assert np.prod(box) * 40 <= max(memory_mb * 2**20, 40)
    seen = np.zeros(size, dtype=np.uint8)
    for part in boxes(size, box):
        seen[part] += 1
    assert (seen == 1).all()


def test_bad_chunks_are_noted(tmp_path: Path) -> None:
    assert waste((16, 64, 64), (1000, 900, 900), (10, 25, 25)) < WASTE
    assert waste((1, 900, 900), (1000, 900, 900), (10, 25, 25)) > 1000
    data = xr.concat([factory.dataset()] * 30, dim="time", data_vars="minimal", coords="minimal")
    data = data.assign_coords(
        time=np.datetime64("2020-06-01", "ns") + np.arange(1200) * np.timedelta64(1, "D")
    )
    encoding = {name: {"chunks": (1200, 12, 10)} for name in ("t2m", "rain")}
    cube = open_cube(factory.save_cube(tmp_path, data, store="cube.zarr", encoding=encoding))
    report = prepare_cube(cube, tmp_path / "out", memory_mb=16, quiet=True)
    assert "t2m, rain: chunks of 1200 x 12 x 10" in report.notes[0]
    with pytest.raises(ValueError, match="allow at least --memory-mb"):
        prepare_cube(cube, tmp_path / "out", memory_mb=0.5, quiet=True)


def test_other_folders_are_not_replaced(tmp_path: Path) -> None:
    cube = open_cube(factory.save_cube(tmp_path / "source"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="is not empty and holds no prepared cube"):
        prepare_cube(cube, tmp_path / "mine", quiet=True)
    (tmp_path / "source/cube.zarr").mkdir()
    with pytest.raises(ValueError, match="holds the source"):
        prepare_cube(cube, tmp_path / "source", quiet=True)
    prepare_cube(cube, tmp_path / "out", quiet=True)
    prepare_cube(cube, tmp_path / "out", quiet=True)  # its own former result is


MEASURE = """
import json, resource, sys
from pathlib import Path
import numpy as np
from framecast.data.cube import open_cube
from framecast.data.cube_prepare import prepare_cube
from framecast.data.cube_statistics import read_boxes
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
small = open_cube(sys.argv[1])
prepare_cube(small, sys.argv[3] + "_small", memory_mb=16, quiet=True)  # so that everything is loaded
cube = open_cube(sys.argv[2])
before = peak()
prepare_cube(cube, sys.argv[3], memory_mb=16, quiet=True)
after = peak()
steps, height, width = cube.shape
print(json.dumps({"grown": after - before, "cube": 4 * steps * height * width / 2**20}))
"""


def test_a_cube_larger_than_memory_is_prepared(tmp_path: Path) -> None:
    """160 MB of one variable with 16 MB for its boxes: the process grows by a fraction of the cube."""
    from framecast.data.cube_writing import ZarrWriter

    days, side = 640, 256
    times = np.datetime64("2020-01-01") + np.arange(days)
    y, x = 40 - 0.01 * np.arange(side), 20 + 0.01 * np.arange(side)
    settings = "store: {}\nvariables: {{rain: {{role: dynamic, scale: standard}}}}\n"
    for name, count in (("large", days), ("small", 16)):
        writer = ZarrWriter(tmp_path / f"{name}.zarr", times[:count], y, x, chunk=(1, side, side))
        writer.add("rain", ("time", "y", "x"))
        plane = np.arange(side * side, dtype=np.float32).reshape(side, side)
        for day in range(count):
            writer.put("rain", (plane + day)[None], slice(day, day + 1))
        (tmp_path / f"{name}.yaml").write_text(settings.format(f"{name}.zarr"))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *(str(tmp_path / n) for n in ("small.yaml", "large.yaml", "out"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["cube"] == 160
    assert measured["grown"] < 40, measured
    cube = open_cube(tmp_path / "out")
    np.testing.assert_array_equal(cube.values("rain", [639])[0], plane + 639)
    statistics = cube.statistics
    assert statistics is not None
    np.testing.assert_allclose(statistics["rain"].mean, plane.astype(np.float64).mean() + 319.5)
