"""What `framecast demo earth` does: wildfire danger on a made-up island, without any network.

The cube has the variables and units of FireCube, so the released LOAN weights can read it too (`--weights`);
without them a LOAN is trained on the island's own fires. No value is real.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from framecast.cli.earth import Asked, Place, forecast_days, map_records, write_maps
from framecast.cli.earth import describe as describe_map
from framecast.cli.output import show

DAYS, CELLS, SEED = 3 * 365, (64, 72), 0
AROUND = 4  # days before and after the worst one
QUICK = ("epochs=2", "eval_every=2", "save_every=100", "data.negatives=1", "data.test_negatives=1")


def earth_demo(
    out: Path, device: str, weights: str | None = None, *, days: int = DAYS, changes: Any = ()
) -> None:
    """Maps of danger round the day with most fires of the year that the model has not seen.

    weights: LOAN's checkpoint, ours or the release's. days: length of the cube. changes: of the recipe.
    """
    from framecast.data.cube import open_cube
    from framecast.data.synthetic_cubes import write_fire_cube

    path = out / "cube" / "cube.yaml"
    if not path.is_file():
        show(f"making up an island: {days} days of {CELLS[0]} x {CELLS[1]} cells")
        write_fire_cube(out / "cube", days, CELLS, SEED)
    cube = open_cube(path)
    model = imported(weights, out / "model") if weights else trained_here(path, out / "run", device, changes)
    day = worst_day(cube)
    steps = np.clip(cube.time_index(day) + np.array([-AROUND, AROUND]), 0, len(cube.times) - 1)
    first, last = (str(cube.times[step])[:10] for step in steps)
    asked = Asked(dates=f"{first}:{last}", members=8)
    forecast = forecast_days(cube, [str(model)], "danger", asked, device, quiet=False)
    places = contrasting_places(forecast, list(forecast.dates).index(day))
    facts = {
        "command": f"framecast demo earth{f' --weights {weights}' if weights else ''}",
        "data": "made up by framecast; no value is real",
        "model": f"LOAN, {'weights from ' + str(weights) if weights else 'trained here on the first years'}",
        "members": f"{asked.members} draws with dropout left on; spread is their standard deviation",
    }
    written, skipped = write_maps(forecast, out, places, facts)
    for row in map_records(forecast):
        show(describe_map(row))
    for reason in skipped:
        show(reason)
    page = next(file for file in written if file.suffix == ".html")
    film = next(file for file in written if file.suffix == ".gif")
    show(f"look at {page} and {film}; most fires of the unseen year: {day}")
    where = f"--date {day} --at {places[0].latitude:g},{places[0].longitude:g}"
    show(f"the same by hand: framecast predict {path} --model {model} {where}")


def trained_here(cube: Path, run: Path, device: str, changes: Any) -> Path:
    """A LOAN trained on the cube's fires, a minute or two on one core; a finished run is used again."""
    from framecast.cli.training import quoted
    from framecast.recipes.build import build_task, get_recipe
    from framecast.train.config import apply_overrides
    from framecast.train.loop import train

    recipe = apply_overrides(get_recipe("danger"), [f"data.root={quoted(str(cube))}", *QUICK, *changes])
    task = build_task(recipe)
    show("training a small LOAN on the island's fires")
    summary = train(recipe, task, run, device=device)
    score = summary.get("metrics", {}).get("auroc")
    if score is not None:
        show(f"area under the ROC curve on the year after: {score:.3f}")
    return run


def imported(weights: str, folder: Path) -> Path:
    """The released checkpoint as a saved model."""
    from framecast.checkpoints import save
    from framecast.importing import import_checkpoint

    return save(import_checkpoint("loan", weights), folder)


def worst_day(cube: Any) -> str:
    """The day of the split `test` on which most cells burnt."""
    days, rows, columns = cube.split("test")
    burnt = np.nansum(cube.target(cube.target_names[0], days, rows, columns), axis=(1, 2))
    return str(cube.times[days[int(burnt.argmax())]])[:10]


def contrasting_places(forecast: Any, index: int) -> tuple[Place, ...]:
    """The cell with the largest danger on a day, and the one with the least."""
    danger = forecast.values["danger"][index]
    places = []
    for name, chosen in (("highest", np.nanargmax(danger)), ("lowest", np.nanargmin(danger))):
        row, column = np.unravel_index(chosen, danger.shape)
        places.append(Place(name, round(float(forecast.y[row]), 4), round(float(forecast.x[column]), 4)))
    return tuple(places)
