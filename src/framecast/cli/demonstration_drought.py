"""What `framecast demo drought` does: from a projection of a made-up climate to drought maps.

A network learns on ten years how plants follow the climate, and is applied to thirty warmer ones; nothing is
downloaded. As the land is made up, what grew in those years is known too, and says how far the network can be
trusted. No value is real.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from framecast.cli.earth import Asked, project_drought, write_maps
from framecast.cli.output import show

YEARS, CELLS, SEED = (10, 30), (24, 28), 0
RECIPE = (  # a projection has no satellite: no target is read, and the map of the same week is written
    "data.leads=[0]",
    "data.past_targets=false",
    "data.corrects=false",
    "data.periods=52",
    "data.vegetation=NDVI",
    "data.temperature=BT",
)
QUICK = ("epochs=5", "eval_every=5", "save_every=100", "batch_size=8", "optim.lr=2e-3")
QUICK += ("model.config.dropout=0.0", "augment.noise=0.1")


def drought_demo(out: Path, device: str, *, changes: Any = ()) -> None:
    """Maps of drought by season and decade, and of trends. changes: of the recipe."""
    from framecast.data.cube import open_cube
    from framecast.data.synthetic_drought import write_projection_cubes

    past, future = out / "past" / "cube.yaml", out / "future" / "cube.yaml"
    if not (past.is_file() and future.is_file()):
        show(f"making up a land: {YEARS[0]} years of the past and {YEARS[1]} of a warmer future")
        write_projection_cubes(out, YEARS, CELLS, SEED)
    run = trained_here(past, out / "run", device, changes)
    show(f"skill in {YEARS[1]} years of a warmer climate: {skill_there(run, future, past, device)}")
    facts = {
        "command": "framecast demo drought",
        "data": "made up by framecast; no value is real",
        "model": "a small Focal-TSMP, trained here on the past",
    }
    asked = Asked(drought=True, reference=past)
    pages = []
    for name, forecast in project_drought(open_cube(future), [str(run)], asked, device).items():
        written, skipped = write_maps(forecast, out / "drought", (), facts, stem=name)
        pages += [str(file) for file in written if file.suffix == ".html"]
        for reason in skipped:
            show(reason)
    show(f"look at {' and '.join(pages)}")
    show(
        f"the same by hand: framecast predict {future} --model {run} --drought --reference {past} "
        f"--out {out / 'drought'}"
    )


def trained_here(cube: Path, run: Path, device: str, changes: Any) -> Path:
    """A small Focal-TSMP of the past, a minute on one core; a finished run is used again."""
    from framecast.cli.training import quoted
    from framecast.recipes.build import build_task, get_recipe
    from framecast.train.config import apply_overrides
    from framecast.train.loop import train

    settings = [f"data.root={quoted(str(cube))}", *RECIPE, *QUICK, *changes]
    recipe = apply_overrides(get_recipe("vegetation"), settings)
    show("training a small network on the plants of the past")
    summary = train(recipe, build_task(recipe), run, device=device)
    if (skill := summary.get("metrics", {}).get("skill")) is not None:
        show(f"skill in the year that chose the weights: {skill:.2f}")
    return run


def skill_there(run: Path, future: Path, past: Path, device: str) -> str:
    """Skill of every target, against the usual value of the season in the past, on what really grew."""
    from framecast.infer.map_forecaster import MapForecaster
    from framecast.tasks.map_forecast import score_maps

    forecaster = MapForecaster(run, device=device)
    series = forecaster.series(future.with_name("grown.yaml"), reference=past, split="test")
    found = score_maps(forecaster.models[0], series, forecaster.scoring, device).compute(())
    return ", ".join(f"{name} {found[f'{name}: skill']:.2f}" for name in forecaster.window.targets)
