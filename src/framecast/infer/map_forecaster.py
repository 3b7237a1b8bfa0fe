"""From a cube to the maps that follow: a trained network, or several whose spread is told.

    forecaster = MapForecaster(["runs/ndvi/seed0", "runs/ndvi/seed1"])
    forecast = forecaster(open_cube("my_region/cube.yaml"), "2015-06-23")
    forecast.values["ndvi"]                       # (L, H, W), one map per lead, north first

The climatology that departures start from is that of the cube's own training split, or of another cube of the
same grid (`reference`), for cubes that have no observations: simulations of the future.
Shapes: M members, N outputs, L leads, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from framecast.checkpoints import card_of, load
from framecast.data.cube import Cube, open_cube
from framecast.data.map_scaling import MapScaling, MapWindow, fit_climatology, fit_damping, window_of
from framecast.data.map_series import MapSeries
from framecast.data.vegetation_indices import Climatology
from framecast.structures import Forecast
from framecast.tasks.map_forecast import MapScoring, predict_maps, valid_times


@contextmanager
def dropout_active(model: nn.Module) -> Generator[None]:
    """Dropout draws as in training, everything else stays as it is in use."""
    layers = [m for m in model.modules() if isinstance(m, nn.Dropout) and m.p > 0]
    if not layers:
        raise ValueError("the model has no dropout to draw from; give several models for a spread")
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()


class MapForecaster:
    """Networks that were trained for maps of one cube, alike in what they read and write.

    models: run folders, saved models or modules. samples: draws with dropout left on, per model; 1 = none.
    Raises ValueError where a model was not trained for maps, or the models read different things.
    """

    def __init__(
        self,
        models: nn.Module | str | Path | Sequence[nn.Module | str | Path],
        *,
        samples: int = 1,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        given = [models] if isinstance(models, nn.Module | str | Path) else list(models)
        if not given or samples < 1:
            raise ValueError(f"{len(given)} models with {samples} samples each; give at least one of both")
        self.models = [load(m, device) if isinstance(m, str | Path) else m.to(device).eval() for m in given]
        self.device, self.samples, self.seed = device, samples, seed
        cards = [card_of(model) for model in self.models]
        for card, model in zip(cards, self.models, strict=True):
            if card.task != "maps" or "window" not in card.notes:
                name = getattr(model, "registered_name", type(model).__name__)
                raise ValueError(
                    f"{name} was not trained for maps; load a run folder of `framecast train vegetation`"
                )
            if card.notes["window"] != cards[0].notes["window"]:
                raise ValueError("the models read or write different things; they make no ensemble")
        self.card = cards[0]
        self.window: MapWindow = window_of(self.card.notes)
        self._scalings = [card.notes["scaling"] for card in cards]

    @property
    def scoring(self) -> MapScoring:
        """Which targets make VCI and TCI."""
        return MapScoring(self.card.notes.get("vegetation"), self.card.notes.get("temperature"))

    def series(
        self,
        cube: Cube | str | Path,
        *,
        reference: Cube | str | Path | None = None,
        train: str = "train",
        climatology: dict[str, Climatology] | None = None,
        **options: Any,
    ) -> MapSeries:
        """Samples of a cube as these models read them; options: those of `MapSeries`.

        reference: cube whose split `train` gives the climatology, by default the cube itself. climatology:
        what is known of it already. Raises ValueError where the cube lacks a variable or the grids differ.
        """
        cube = cube if isinstance(cube, Cube) else open_cube(cube)
        source = cube if reference is None else reference
        source = source if isinstance(source, Cube) else open_cube(source)
        if climatology is None and (self.window.anomalies or self.window.place or reference is not None):
            climatology = fit_climatology(source, self.window, train)
        if climatology is None and train in cube.settings.splits:
            climatology = fit_climatology(cube, self.window, train)
        for name, found in (climatology or {}).items():
            if found.count.shape[1:] != (len(cube.y), len(cube.x)):
                raise ValueError(
                    f"the climatology of {name} has {found.count.shape[1:]} cells and {cube.path} has "
                    f"{(len(cube.y), len(cube.x))}; take a reference on the same grid"
                )
        damping = None
        if self.window.corrects:
            damping = fit_damping(source, self.window, climatology or {}, train)
        scaling = MapScaling.from_json(self._scalings[0], climatology, damping)
        return MapSeries(cube, self.window, scaling, **options)

    def members(self, series: MapSeries, issues: Sequence[int] | np.ndarray) -> np.ndarray:
        """(M, I, N, H, W) in units, of every model and draw."""
        found = []
        for model, scaling in zip(self.models, self._scalings, strict=True):
            known = series.scaling
            series.scaling = MapScaling.from_json(scaling, known.climatology, known.damping)
            if self.samples == 1:
                found.append(predict_maps(model, series, issues, self.device))
                continue
            with torch.random.fork_rng(), dropout_active(model):
                torch.manual_seed(self.seed)
                found += [predict_maps(model, series, issues, self.device) for _ in range(self.samples)]
        return np.stack(found)

    def __call__(
        self,
        cube: Cube | str | Path,
        date: Any,
        *,
        series: MapSeries | None = None,
        reference: Cube | str | Path | None = None,
        train: str = "train",
    ) -> Forecast:
        """The maps that follow what was known on a date of the cube; nothing later is read.

        series: one that `series` made, for many dates of the same cube. Cells that are not land are NaN.
        """
        cube = cube if isinstance(cube, Cube) else open_cube(cube)
        series = series or self.series(cube, reference=reference, train=train)
        issue = cube.time_index(date)
        members = self.members(series, [issue])[:, 0]
        members[:, :, ~series.land] = np.nan
        leads = np.array(self.window.leads)
        mean, spread = members.mean(0), members.std(0)
        parts = {
            name: slice(index * len(leads), (index + 1) * len(leads))
            for index, name in enumerate(self.window.targets)
        }
        units = self.card.notes.get("units", {})
        return Forecast(
            values={name: mean[part] for name, part in parts.items()},
            times=valid_times(series, issue, leads),
            y=cube.y,
            x=cube.x,
            units={name: str(units.get(name, "")) for name in parts},
            spread={name: spread[part] for name, part in parts.items()} if len(members) > 1 else {},
            crs=cube.crs or "EPSG:4326",
            attrs={
                "model": ", ".join(sorted({str(getattr(m, "registered_name", "")) for m in self.models})),
                "source": str(cube.path),
                "issued": str(series.times([issue])[0])[:10],
            },
        )
