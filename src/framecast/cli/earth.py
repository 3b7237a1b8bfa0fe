"""`predict` with a model of the Earth: from a cube to maps of danger, vegetation or drought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from framecast.cli.output import no_empty_folder, show, show_json
from framecast.structures import Forecast

TASKS = ("danger", "maps")
SHOWN, LISTED = 12, 8  # lines of figures and names of files that are printed


@dataclass(frozen=True)
class Place:
    """A point that is asked for by name, latitude and longitude."""

    name: str
    latitude: float
    longitude: float


@dataclass(frozen=True)
class Asked:
    """What a user wants of a cube."""

    date: str | None = None
    dates: str | None = None  # "2021-07-01:2021-07-10", both inclusive
    members: int = 1  # draws with dropout left on, per model
    seed: int = 0
    places: tuple[Place, ...] = ()
    drought: bool = False  # the whole cube as a projection, and drought counted
    reference: Path | None = None  # cube with the observations of the same grid
    threads: int = 1  # danger: tiles at a time
    memory_mb: float | None = None  # danger: what tiles may take


def task_of(model: str) -> str:
    """As the card says; models of danger that were imported without one are known by their name."""
    from framecast.checkpoints import model_folder, read_about
    from framecast.registry import entries

    about = read_about(model_folder(model))
    task = about.get("card", {}).get("task", "")
    entry = entries("model").get(str(about.get("model", "")))
    return task or ("danger" if entry is not None and "danger" in entry.tags else "")


def parse_places(texts: Sequence[str]) -> tuple[Place, ...]:
    """ "37.98,23.73" or "Athens=37.98,23.73": latitude and longitude in degrees."""
    places = []
    for text in texts:
        name, _, numbers = text.rpartition("=")
        parts = numbers.split(",")
        try:
            latitude, longitude = (float(part) for part in parts)
        except ValueError:
            latitude = longitude = float("nan")
        if not (abs(latitude) <= 90 and abs(longitude) <= 360):
            raise ValueError(
                f"--at {text!r} is no place; write latitude,longitude in degrees, as in 37.98,23.73 or "
                "Athens=37.98,23.73"
            )
        places.append(Place(name.strip(), latitude, longitude))
    return tuple(places)


def predict_maps(
    inputs: Sequence[str],
    models: Sequence[str],
    asked: Asked,
    out: Path,
    device: str,
    command: str,
    *,
    pages: bool,
    as_json: bool,
) -> None:
    """Print figures of every map; write NetCDF, GeoTIFF, tables, pictures and a page into the folder."""
    from framecast.data.cube import open_cube

    if len(inputs) != 1:
        raise ValueError(f"{len(inputs)} inputs for a model of maps; pass one cube, for example cube.yaml")
    cube = open_cube(inputs[0])
    task = task_of(models[0])
    facts = {"command": command, "model": ", ".join(models), "cube": str(cube.path)}
    if asked.drought:
        if task != "maps":
            raise ValueError(
                "--drought is for models that write vegetation maps (framecast train vegetation)"
            )
        forecasts = project_drought(cube, models, asked, device)
    else:
        forecasts = {"": forecast_days(cube, models, task, asked, device, quiet=as_json)}
    written: list[Path] = []
    skipped: list[str] = []
    with no_empty_folder(out):
        for name, forecast in forecasts.items():
            found = write_maps(forecast, out, asked.places, facts, stem=name, pages=pages)
            written += found[0]
            skipped += found[1]
    records = [row for forecast in forecasts.values() for row in map_records(forecast)]
    if as_json:
        show_json({"maps": records, "written": written, "left_out": skipped})
        return
    for row in records[:SHOWN]:
        show(describe(row))
    if len(records) > SHOWN:
        show(f"… ({len(records)} maps)")
    for reason in skipped:
        show(reason)
    if len(written) > LISTED:
        looked_at = ", ".join(str(path) for path in written if path.suffix == ".html")
        show(f"wrote {len(written)} files into {out}" + (f"; look at {looked_at}" if looked_at else ""))
    else:
        show(f"wrote {', '.join(path.name for path in written)} into {out}")


def evaluate_baselines(
    run: str, names: Sequence[str], data: Path | None, out: Path | None, device: str, *, as_json: bool
) -> None:
    """Print the scores of a run and of baselines on its cube; write them with --out."""
    from framecast.cli.training import scores_table
    from framecast.infer.earth_baselines import evaluate_earth_baselines
    from framecast.infer.evaluation import evaluate_run
    from framecast.writing import json_text, write_file

    found = evaluate_earth_baselines(names, run, data)
    found = {run: evaluate_run(run, data=data, device=device), **found}
    values = {name: one.to_json() for name, one in found.items()}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_file(out, json_text(values) + "\n")
    if as_json:
        show_json({"scores": values, "written": out})
        return
    for name, one in found.items():
        show(name)
        show(scores_table(one.scores["test"], "test"))
    one = found[run]
    show(f"{one.num_items} test {one.kind}s of {one.data}" + (f", written to {out}" if out else ""))


# Forecasts ------------------------------------------------------------------------------------------


def forecast_days(
    cube: Any, models: Sequence[str], task: str, asked: Asked, device: str, *, quiet: bool = False
) -> Forecast:
    """Danger of one or several days; of vegetation all leads of one date, or the first lead of several."""
    from framecast.progress import track

    if asked.dates is None and asked.date is None:
        first, last = (day[:10] for day in cube_days(cube)[:: len(cube.times) - 1 or 1][:2])
        raise ValueError(f"say which day, for example --date {last}; {cube.path} has {first} to {last}")
    days = [str(asked.date)] if asked.dates is None else dates_between(cube, asked.dates)
    if task == "danger":
        from framecast.infer.danger import DangerForecaster

        options: dict[str, Any] = {"threads": asked.threads, "memory_mb": asked.memory_mb}
        danger = DangerForecaster(models, samples=asked.members, seed=asked.seed, **options)
        return danger.days(cube, days)
    from framecast.infer.map_forecaster import MapForecaster

    maps = MapForecaster(models, samples=asked.members, seed=asked.seed, device=device)
    series = maps.series(cube, reference=asked.reference)
    if asked.dates is None:
        return maps(cube, days[0], series=series)
    found = [maps(cube, day, series=series).time(0) for day in track(days, "drawing maps", quiet=quiet)]
    return joined(found)


def cube_days(cube: Any) -> list[str]:
    from framecast.data.cube_axes import dates_of

    return dates_of(cube.times)


def dates_between(cube: Any, text: str) -> list[str]:
    """The cube's dates from A to B of "A:B", both inclusive."""
    first, colon, last = text.partition(":")
    days = cube_days(cube)
    if not colon or len(first) != 10 or len(last) != 10 or first > last:
        raise ValueError(
            f"--dates {text!r} is no range of dates; write the first and last: {days[0]}:{days[-1]}"
        )
    found = [day for day in days if first <= day[:10] <= last]
    if not found:
        raise ValueError(f"{cube.path} has no date in {text}; it runs from {days[0]} to {days[-1]}")
    return found


def joined(forecasts: Sequence[Forecast]) -> Forecast:
    """Forecasts of the same cells one after the other in time."""
    parts = {
        key: {
            name: np.concatenate([getattr(one, key)[name] for one in forecasts])
            for name in getattr(forecasts[0], key)
        }
        for key in ("values", "spread")
    }
    attrs = {key: value for key, value in forecasts[0].attrs.items() if key != "issued"}
    times = np.concatenate([one.times for one in forecasts])
    return replace(forecasts[0], **parts, times=times, attrs=attrs)


def project_drought(cube: Any, models: Sequence[str], asked: Asked, device: str) -> dict[str, Forecast]:
    """Drought frequency per season and decade, and trends, over the whole cube."""
    from framecast.infer.map_forecaster import MapForecaster
    from framecast.infer.projection import project

    forecaster = MapForecaster(models, samples=asked.members, seed=asked.seed, device=device)
    projection = project(forecaster, cube, reference=asked.reference)
    frequency, trends = projection.forecast(), projection.trend_maps()
    about = {"model": ", ".join(models)}
    decades = about | {"note": "a map per decade, named by its first day"}
    change = about | {"note": f"change per decade, {projection.years[0]} to {projection.years[-1]}"}
    return {
        "drought": replace(frequency, attrs=frequency.attrs | decades),
        "trends": replace(trends, attrs=trends.attrs | change),
    }


# Files ----------------------------------------------------------------------------------------------


def write_maps(
    forecast: Forecast,
    out: Path,
    places: Sequence[Place],
    facts: dict[str, str],
    *,
    stem: str = "",
    pages: bool = True,
) -> tuple[list[Path], list[str]]:
    """All files of a forecast, and why one was left out.

    Names carry the dates, so that the maps of several days can share a folder; stem: instead of the
    variable's name where one file holds several.
    """
    from framecast.data.map_systems import to_grid
    from framecast.extras import MissingExtra
    from framecast.infer.map_files import write_geotiff, write_netcdf, write_points_csv

    points = [to_grid(forecast, place.latitude, place.longitude) for place in places]
    for y, x in points:
        forecast.cell(y, x)  # outside the maps: said before anything is written
    label = "_".join(dict.fromkeys(day.replace(":", "") for day in (forecast.dates[0], forecast.dates[-1])))
    names = list(forecast.values)
    stem = f"{stem or (names[0] if len(names) == 1 else 'maps')}_{label}"
    written, skipped = [write_netcdf(forecast, out / f"{stem}.nc")], []
    try:
        written += write_geotiff(forecast, out, f"_{label}")
    except (MissingExtra, ValueError) as error:
        skipped.append(f"no GeoTIFF: {error}")
    if places:
        listed = [(place.name, place.latitude, place.longitude) for place in places]
        written.append(write_points_csv(forecast, listed, out / f"{stem}_points.csv"))
    if pages:
        written += write_pictures(forecast, out, places, points, facts, written, stem, label)
    return written, skipped


def write_pictures(
    forecast: Forecast,
    out: Path,
    places: Sequence[Place],
    points: Sequence[tuple[float, float]],
    facts: dict[str, str],
    files: Sequence[Path],
    stem: str,
    label: str,
) -> list[Path]:
    """A picture per variable, a film where there are several days, places over time, and the page."""
    from framecast.viz.map_animation import write_animation
    from framecast.viz.map_points import draw_points
    from framecast.viz.map_report import write_map_report
    from framecast.viz.maps import draw_forecast

    titles = [place_title(i, place) for i, place in enumerate(places, start=1)]
    written, over_time = [], {}
    for name in forecast.values:
        written.append(draw_forecast(forecast, name, out / f"{name}_{label}.png", points=points))
        if len(forecast) > 2:
            written.append(write_animation(forecast, name, out / f"{name}_{label}.gif", points=points))
        if points:
            path = out / f"{name}_points_{label}.png"
            over_time[name] = draw_points(forecast, name, points, path, labels=titles)
    written += over_time.values()
    page = write_map_report(
        out / f"{stem}.html",
        forecast,
        title=stem.replace("_", " "),
        points=points,
        points_pictures=over_time,
        files=[*files, *written],
        facts=facts,
    )
    return [*written, page]


def place_title(number: int, place: Place) -> str:
    """ "1 Athens" """
    return f"{number} {place.name or f'{place.latitude:g}, {place.longitude:g}'}"


def map_records(forecast: Forecast) -> list[dict[str, Any]]:
    """Figures of every map, for JSON and for people."""
    rows = []
    for name, maps in forecast.values.items():
        for step, (date, values) in enumerate(zip(forecast.dates, maps, strict=True)):
            known = np.isfinite(values)
            row: dict[str, Any] = {"variable": name, "date": date, "known": float(known.mean())}
            if known.any():
                place = np.unravel_index(np.nanargmax(values), values.shape)
                row |= {"mean": float(values[known].mean(dtype=float)), "largest": float(values[place])}
                row |= {"y": float(forecast.y[place[0]]), "x": float(forecast.x[place[1]])}
                if name in forecast.spread:
                    row["mean_spread"] = float(np.nanmean(forecast.spread[name][step]))
            rows.append(row)
    return rows


def describe(row: dict[str, Any]) -> str:
    """ "danger 2021-07-02: mean 0.21, largest 0.93 at y 39.21, x 21.3" """
    if "mean" not in row:
        return f"{row['variable']} {row['date']}: nothing is known"
    spread = f", spread {row['mean_spread']:.2g}" if "mean_spread" in row else ""
    return (
        f"{row['variable']} {row['date']}: mean {row['mean']:.3g}{spread}, largest {row['largest']:.3g} "
        f"at y {row['y']:.6g}, x {row['x']:.6g}"
    )
