"""Maps are drawn north up, as wide as they are, on one scale, with what is unknown in grey."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from html_page import Page, assert_safe
from PIL import Image
from test_palette import SEEN_BY, nearest_pair

from forecast_maps import ROTATED, island
from framecast.structures import Forecast
from framecast.viz import coast, map_style, maps
from framecast.viz.map_animation import animation_frames, write_animation
from framecast.viz.map_points import draw_points
from framecast.viz.map_report import write_map_report
from framecast.viz.map_style import style_of
from framecast.viz.maps import aspect_of, degrees, draw_forecast, edges, map_pixels, map_png, panel_of


def rgb(color: str) -> np.ndarray:
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])


def find(pixels: np.ndarray, color: str) -> np.ndarray:
    """Rows and columns of pixels in a colour."""
    return np.argwhere((np.abs(pixels.astype(int) - rgb(color)) <= 1).all(-1))


def spots(values: np.ndarray) -> Forecast:
    """A map of zeros (grey where nan) with what the test puts on it."""
    height, width = values.shape
    return Forecast(
        {"danger": values[None].astype(np.float32)},
        np.array(["2021-07-02"], dtype="datetime64[D]"),
        60.0 - 0.5 * np.arange(height),
        10.0 + 0.5 * np.arange(width),
        {"danger": "1"},
    )


def test_north_is_up_and_west_is_left() -> None:
    values = np.zeros((10, 20))
    values[0, 0] = 1.0  # the north-west corner burns
    values[9, 19] = np.nan
    pixels = map_pixels([panel_of(spots(values), "danger")], title="")
    land = find(pixels, map_style.DANGER[0])
    burning = find(pixels, map_style.DANGER[-1])
    burning = burning[burning[:, 1] < land[:, 1].mean()]
    unknown = find(pixels, map_style.UNKNOWN)
    middle = land.mean(0)
    assert (burning.mean(0) < middle).all()
    assert (np.median(unknown[unknown[:, 0] < land[:, 0].max() + 2], axis=0) > middle).all()


def test_cells_are_as_wide_as_they_are_there() -> None:
    forecast = spots(np.zeros((20, 20)))  # 10 degrees each way round 55 degrees north
    land = find(map_pixels([panel_of(forecast, "danger")], title=""), map_style.DANGER[0])
    land = land[land[:, 1] < np.quantile(land[:, 1], 0.98)]  # without the colour bar
    height, width = np.ptp(land[:, 0]) + 1, np.quantile(land[:, 1], 0.999) - land[:, 1].min()
    assert height / width == pytest.approx(1 / np.cos(np.radians(55.25)), rel=0.06)
    assert aspect_of(island(crs="EPSG:32634")) == 1
    assert aspect_of(island(crs=ROTATED, y=0.05 - 0.01 * np.arange(12))) == pytest.approx(1, abs=1e-6)


def test_edges_lie_between_cells() -> None:
    np.testing.assert_allclose(edges(np.array([3.0, 2.0, 1.0])), [3.5, 2.5, 1.5, 0.5])
    np.testing.assert_allclose(edges(np.array([7.0])), [6.5, 7.5])


def test_degrees_have_their_letters() -> None:
    assert [degrees(v, "WE") for v in (-5.5, 0, 21.0, 190, 360)] == ["5.5° W", "0°", "21° E", "170° W", "0°"]
    assert degrees(np.float64(-33), "SN") == "33° S"


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32634", ROTATED, "our own"])
def test_every_system_is_drawn(crs: str, tmp_path: Path) -> None:
    with Image.open(draw_forecast(island(crs=crs), "danger", tmp_path / "map.png")) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300


def test_uneven_grids_and_long_ones_are_drawn() -> None:
    y = island().y - 0.02 * np.linspace(0, 1, 12) ** 2
    assert map_png([panel_of(island(y=y), "danger")], title="uneven")
    long = spots(np.zeros((3, 200)))
    assert map_pixels([panel_of(long, "danger")], title="long").shape[1] < 2000


def test_empty_edges_are_cut() -> None:
    forecast = island()
    found = maps.known_part(forecast, margin=1)
    assert found.shape == (3, 10, 16)  # of three rows of sea one is left
    assert found.y[0] == forecast.y[2]
    assert maps.known_part(forecast, [(39.5, 21.0)]).shape == forecast.shape
    assert maps.known_part(spots(np.full((5, 5), np.nan))).shape == (1, 5, 5)


def test_a_map_without_anything_known_is_grey(tmp_path: Path) -> None:
    assert draw_forecast(spots(np.full((5, 5), np.nan)), "danger", tmp_path / "map.png").is_file()


# Styles ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", SEEN_BY)
def test_classes_of_drought_are_apart_in_every_view(view: str) -> None:
    assert nearest_pair((*map_style.DROUGHT, map_style.UNKNOWN), view) > 0.05


@pytest.mark.parametrize("scale", ["DANGER", "SPREAD", "GREEN", "WET", "NEUTRAL"])
def test_scales_go_one_way_in_lightness(scale: str) -> None:
    light = [rgb(color) @ (0.2126, 0.7152, 0.0722) for color in getattr(map_style, scale)]
    assert (np.diff(light) < 0).all()


def test_scales_fit_what_is_drawn() -> None:
    danger = style_of("danger", "1", [np.array([0.2, 0.3])])
    assert (danger.least, danger.largest, danger.unit) == (0, 1, "probability")
    trend = style_of("VHI_trend", "per decade", [np.array([-3.0, 1.0])])
    assert (trend.least, trend.largest, trend.unit) == (-5, 5, "per decade")
    health = style_of("VHI", "1", [np.array([3.0, 90.0])])
    assert health.names[0] == "exceptional"
    assert [health.norm(v) for v in (5.9, 6.0, 39.9, 40.0, 100.0)] == [0, 1, 4, 5, 5]
    assert style_of("t2m", "K", [np.array([280.0, 300.0])]).unit == "K"
    assert style_of("drought_frequency_JJA", "1", [np.array([0.0, 0.37])]).largest == 0.5
    assert style_of("x", "", [np.full(3, np.nan)]).largest == 1
    assert style_of("danger", "1", [np.array([0.04])], spread=True).title == "spread of danger"


def test_the_scale_is_that_of_all_times() -> None:
    forecast = island()
    panels = [panel_of(forecast, "danger", i) for i in range(3)]
    assert len({panel.style for panel in panels}) == 1
    assert [panel.title for panel in panels] == list(forecast.dates)


# Coast lines ----------------------------------------------------------------------------------------


def test_without_files_there_are_no_coast_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coast, "coast_file", lambda: None)
    assert coast.coast_lines((0, 0, 10, 10)) == []


def test_coast_lines_of_a_file_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cartopy = pytest.importorskip("cartopy")
    shapefile = pytest.importorskip("shapefile")
    folder = tmp_path / "shapefiles/natural_earth/physical"
    folder.mkdir(parents=True)
    with shapefile.Writer(folder / "ne_50m_coastline", shapeType=shapefile.POLYLINE) as file:
        file.field("name", "C")
        for west in (21.02, 100.0):
            file.line([[[west, 39.41], [west + 0.1, 39.41], [west + 0.1, 39.48]]])
            file.record("coast")
    monkeypatch.setitem(cartopy.config, "pre_existing_data_dir", tmp_path)
    coast.coast_file.cache_clear()
    try:
        (line,) = coast.coast_lines((21.0, 39.0, 22.0, 40.0))  # the other one is elsewhere
        np.testing.assert_allclose(line[0], [21.02, 39.41])
        with_coast = map_pixels([panel_of(island(), "danger")], title="")
    finally:
        coast.coast_file.cache_clear()
    monkeypatch.setattr(maps, "coast_lines", lambda box: [])
    without = map_pixels([panel_of(island(), "danger")], title="")
    changed = (with_coast != without).any(-1)
    assert 100 < changed.sum() < 0.05 * changed.size


# Over time ------------------------------------------------------------------------------------------


def test_a_film_has_a_frame_per_day_of_one_size(tmp_path: Path) -> None:
    forecast = island()
    frames = list(animation_frames(forecast, "danger"))
    assert len({frame.shape for frame in frames}) == 1
    assert all(n % 2 == 0 for n in frames[0].shape[:2])
    with Image.open(write_animation(forecast, "danger", tmp_path / "a.gif", rate=4)) as film:
        assert getattr(film, "n_frames", 1) == 3
        assert film.info["duration"] == 250
    assert write_animation(forecast, "danger", tmp_path / "a.mp4").stat().st_size > 1000
    with pytest.raises(ValueError, match=r"\.gif or \.mp4"):
        write_animation(forecast, "danger", tmp_path / "a.avi")
    with pytest.raises(ValueError, match="two times"):
        write_animation(forecast.time(0), "danger", tmp_path / "a.gif")


def test_places_over_time(tmp_path: Path) -> None:
    path = draw_points(island(), "danger", [(39.45, 21.09), (39.4, 21.0)], tmp_path / "p.png")
    assert np.asarray(Image.open(io.BytesIO(path.read_bytes()))).std() > 5
    assert draw_points(island().time(1), "danger", [(39.45, 21.09)], tmp_path / "one.png").is_file()
    with pytest.raises(ValueError, match="outside"):
        draw_points(island(), "danger", [(50.0, 21.0)], tmp_path / "p.png")


def test_the_page_opens_alone(tmp_path: Path) -> None:
    (tmp_path / "maps.nc").write_bytes(b"")
    path = write_map_report(
        tmp_path / "page.html",
        island(attrs={"model": "<b>evil</b>"}),
        title="danger <script>",
        files=[tmp_path / "maps.nc"],
        facts={"command": "framecast predict cube.yaml"},
    )
    found = Page(path)
    assert_safe(found)
    assert [attributes["data-date"] for attributes, _ in found.all("figure")] == list(island().dates)
    assert "39.45° N 21.09° E" in found.source  # where the largest value is
    assert [attributes["href"] for attributes, _ in found.all("a")] == ["maps.nc"]
