"""A forecast of maps as a page that opens alone: maps behind a slider, places over time, figures, files."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from framecast.structures import Forecast
from framecast.viz.map_style import style_of
from framecast.viz.maps import degrees, known_part, map_png, panel_of, source_line
from framecast.viz.markup import Markup, element, join, page, relative_link
from framecast.viz.palette import readable
from framecast.viz.report import count, facts_card, header
from framecast.writing import write_file

MOST_MAPS = 60  # in one page; of more, evenly spread ones are shown


def write_map_report(
    path: str | Path,
    forecast: Forecast,
    *,
    title: str,
    points: Sequence[tuple[float, float]] = (),
    points_pictures: Mapping[str, Path] | None = None,
    files: Sequence[Path] = (),
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write one HTML file.

    points: (y, x) in the maps' coordinates, marked on them. points_pictures: PNG per variable, from
    `draw_points`. files: beside the page, listed with links. facts: how the maps were made; "command" is set
    as code.
    """
    dates = forecast.dates
    cells = f"{len(forecast.y)} × {len(forecast.x)} cells"
    chips = [dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}", cells]
    chips += [count(len(dates), "map"), *([source_line(forecast)] if source_line(forecast) else [])]
    pictures = [points_card(name, picture) for name, picture in (points_pictures or {}).items()]
    content = page(
        "maps.html",
        "maps.js",
        title=title,
        header=header(title, chips, None, None),
        maps=join([maps_card(forecast, name, points) for name in forecast.values]),
        points=join(pictures),
        table=figures_table(forecast),
        files=files_card(files, path),
        facts=facts_card(facts, None),
    )
    return write_file(path, content)


def maps_card(forecast: Forecast, name: str, points: Sequence[tuple[float, float]]) -> Markup:
    """Every time of a variable as a picture, with its spread beside it."""
    forecast = known_part(forecast, points)
    shown = np.unique(np.linspace(0, len(forecast) - 1, min(len(forecast), MOST_MAPS)).round().astype(int))
    style = style_of(name, forecast.units[name], [forecast.values[name]])
    spread = None
    if name in forecast.spread:
        spread = style_of(name, forecast.units[name], [forecast.spread[name]], spread=True)
    figures = []
    for index in shown:
        one, date = forecast.time(int(index)), forecast.dates[index]
        panels = [panel_of(one, name, style=style)]
        panels += [panel_of(one, name, spread=True, style=spread)] if spread is not None else []
        picture = map_png(panels, title=f"{readable(name)}, {date}", points=points)
        image = element("img", src=png_uri(picture), alt=f"Map of {readable(name)} on {date}")
        figures.append(element("figure", image, data_date=date))
    parts: list[str] = []
    if len(figures) > 1:
        label = f"Day of {readable(name)}"
        slider = element(
            "input", type="range", min=0, max=len(figures) - 1, value=0, aria_label=label, autocomplete="off"
        )
        parts.append(element("div", slider, element("output", ""), class_="slider", hidden=""))
    return element("section", *parts, *figures, class_="card maps", aria_label=f"Maps of {readable(name)}")


def points_card(name: str, picture: Path) -> Markup:
    image = element("img", src=png_uri(picture.read_bytes()), alt=f"{readable(name)} at the chosen places")
    return element("section", image, class_="card points", aria_label=f"{readable(name)} over time")


def png_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def figures_table(forecast: Forecast) -> Markup:
    """Mean, high values and where the largest one is, of every map."""
    titles = ("variable", "date", "mean", "95 % below", "largest", "where", "cells known")
    rows = [element("tr", *(element("th", text) for text in titles))]
    for name, maps in forecast.values.items():
        for date, values in zip(forecast.dates, maps, strict=True):
            known = np.isfinite(values)
            cells = [readable(name), date, "", "", "", "", f"{known.mean():.0%}"]
            if known.any():
                row, column = np.unravel_index(np.nanargmax(values), values.shape)
                numbers = (
                    values[known].mean(dtype=float),
                    np.quantile(values[known], 0.95),
                    values[row, column],
                )
                cells[2:5] = [f"{number:.3g}" for number in numbers]
                cells[5] = place_text(forecast, float(forecast.y[row]), float(forecast.x[column]))
            rows.append(element("tr", *(element("td", cell) for cell in cells)))
    return element("table", element("thead", rows[0]), element("tbody", *rows[1:]))


def place_text(forecast: Forecast, y: float, x: float) -> str:
    """ "39.2° N 21.3° E", or plain coordinates where they are no degrees."""
    if forecast.crs == "EPSG:4326":
        return f"{degrees(round(y, 3), 'SN')} {degrees(round(x, 3), 'WE')}"
    return f"y {y:.6g}, x {x:.6g}"


def files_card(files: Sequence[Path], path: str | Path) -> Markup:
    if not files:
        return Markup("")
    items = [element("li", element("a", file.name, href=relative_link(file, path))) for file in files]
    title = element("h2", "Files", id="files-title")
    return element(
        "section",
        title,
        element("ul", *items, class_="plain-list"),
        class_="card",
        aria_labelledby="files-title",
    )
