"""`predict --anticipate`: what may follow what was seen of a video."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from framecast.cli.output import each_file, no_empty_folder, show, show_failures, show_json
from framecast.structures import Futures, Segments

if TYPE_CHECKING:
    from framecast.infer.forecaster import Forecaster
    from framecast.infer.predictor import Predictor

SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600}


@dataclass(frozen=True)
class Source:
    """A video, a feature file, or what a timeline says of one video."""

    path: Path
    seen: Any  # path, or Segments

    def __str__(self) -> str:
        return str(self.path if self.seen is self.path else f"{self.path}: {self.seen.video}")


def parse_horizon(text: str, option: str = "--anticipate") -> float:
    """ "60s", "2m" or plain seconds; ValueError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h)?\s*", text)
    seconds = float(match[1]) * SECONDS[match[2] or "s"] if match else 0.0
    if seconds <= 0:
        raise ValueError(f"{option} {text!r} is no time span; write for example 60s or 2m")
    return seconds


@dataclass(frozen=True)
class Ahead:
    """How far to look ahead, and how often."""

    horizon_s: float
    samples: int
    seed: int
    length_s: float | None = None  # of the whole video, None = it ends with the horizon

    def __str__(self) -> str:
        taken = f", of a video of {self.length_s:g} s" if self.length_s else ""
        return f"{self.horizon_s:g} s{taken}, {self.samples} futures, seed {self.seed}"


def trained_forecaster(
    model: str, segmenter: str | None, weights: str | None, device: str
) -> tuple[Forecaster, dict[str, str]]:
    """The forecaster of a trained model, and what a page says of it."""
    from framecast.infer.forecaster import Forecaster

    labels_by = labelling(segmenter, weights, device)
    forecaster = Forecaster(model, segmenter=labels_by, weights=weights, device=device)
    facts = {
        "model": f"{forecaster.model.registered_name} from {model}",
        "observes": forecaster.observe + (f", labelled by {segmenter}" if segmenter else ""),
    }
    return forecaster, facts


def baseline_forecaster(
    name: str, data: Path | None, split: int | None, segmenter: str | None, weights: str | None, device: str
) -> tuple[Forecaster, dict[str, str]]:
    """The forecaster of a baseline that is fitted now, and what a page says of it."""
    from framecast.infer.baselines import fit_baseline
    from framecast.infer.forecaster import Forecaster
    from framecast.train.anticipation_recipe import AnticipationDataSettings

    if data is None:
        raise ValueError(f"the baseline {name} learns from labels; pass them with --data FOLDER")
    fitted = fit_baseline(name, AnticipationDataSettings(root=str(data), split=split))
    forecaster = Forecaster(fitted, segmenter=labelling(segmenter, weights, device), device=device)
    side = f", split {split}" if split is not None else ""
    facts = {"model": f"baseline {name}, {fitted.card.source} ({data}{side})", "observes": "labels"}
    return forecaster, facts


def labelling(segmenter: str | None, weights: str | None, device: str) -> Predictor | None:
    """The segmentation model that labels what is seen, for models that observe labels."""
    from framecast.infer.predictor import Predictor

    return None if segmenter is None else Predictor(segmenter, weights=weights, device=device)


def predict_futures(
    inputs: Sequence[str],
    timeline: Path | None,
    forecaster: Forecaster,
    ahead: Ahead,
    out: Path,
    facts: dict[str, str],
    *,
    pages: bool,
    as_json: bool,
) -> None:
    """Print the likeliest future of every source; write futures.csv, futures.json, pictures and pages."""
    sources = list(find_sources(inputs, timeline, forecaster))
    check_names(sources)

    def forecast(source: Source) -> tuple[Source, Futures]:
        return source, look_ahead(forecaster, source.seen, ahead)

    results, failed = each_file(sources, forecast, "anticipating", quiet=as_json)
    facts = facts | {"horizon": str(ahead)}
    with no_empty_folder(out):
        written = write_futures(results, out, facts, pages=pages) if results else []
    if as_json:
        found = json.loads((out / "futures.json").read_text())["videos"] if results else []
        show_json({"futures": found, "failed": failed, "written": written})
    else:
        for _, futures in results:
            show(f"{futures.observed.video}: {describe(futures)}")
        show(f"wrote {', '.join(p.name for p in written)} into {out}" if written else "nothing was written")
    show_failures(failed)
    if failed:
        raise typer.Exit(1)


def look_ahead(forecaster: Forecaster, seen: Any, ahead: Ahead) -> Futures:
    return forecaster(seen, ahead.horizon_s, samples=ahead.samples, seed=ahead.seed, length_s=ahead.length_s)


def write_futures(
    results: Sequence[tuple[Source, Futures]], out: Path, facts: dict[str, str], *, pages: bool
) -> list[Path]:
    """futures.csv and .json for all videos; a picture and a page for each; index.html for several."""
    from framecast.data.futures_files import write_futures_csv, write_futures_json
    from framecast.viz.futures_index import FuturesEntry, write_futures_index

    out.mkdir(parents=True, exist_ok=True)
    every = [futures for _, futures in results]
    written = [write_futures_csv(every, out / "futures.csv"), write_futures_json(every, out / "futures.json")]
    if not pages:
        return written
    names = [path.name for path in written]
    index = out / "index.html" if len(results) > 1 else None
    entries = []
    for source, futures in results:
        pictures, times = past_film(source.path, futures)
        written += write_pages(futures, out, facts, names, pictures=pictures, times=times, index=index)
        last = pictures[-1] if pictures else None
        entries.append(FuturesEntry(written[-1], futures, thumbnail=last))
    if index is not None:
        written.append(write_futures_index(index, entries, facts=facts))
    return written


def past_film(path: Path, futures: Futures) -> tuple[list[Any], Any]:
    """Pictures of the part of a video's past that is shown, the last one of now; none of other sources."""
    import numpy as np

    from framecast.cli.results import STRIP_PICTURES, film
    from framecast.data.features import FEATURE_SUFFIXES
    from framecast.data.timelines import TIMELINE_SUFFIXES
    from framecast.viz.futures_view import shown_past

    if path.suffix in (*FEATURE_SUFFIXES, *TIMELINE_SUFFIXES) or futures.step_s is None:
        return [], None
    first, now = shown_past(futures)
    times = first + (np.arange(STRIP_PICTURES) + 0.5) / STRIP_PICTURES * (now - first)
    return film(path, times), times


def find_sources(inputs: Sequence[str], timeline: Path | None, forecaster: Forecaster) -> Iterator[Source]:
    """Every video of every timeline, and every video and feature file."""
    from framecast.cli import prediction
    from framecast.data.timelines import TIMELINE_SUFFIXES, read_timelines

    tables = [Path(text) for text in inputs if Path(text).suffix in TIMELINE_SUFFIXES]
    others = [text for text in inputs if Path(text).suffix not in TIMELINE_SUFFIXES]
    if timeline is None and not inputs:
        raise ValueError("nothing was seen so far; pass a video, a feature file or --timeline seen.csv")
    rate = forecaster.card.notes.get("frames_per_second")
    for path in [*([timeline] if timeline else []), *tables]:
        for seen in read_timelines(path, forecaster.card.classes, rate):
            yield Source(path, seen)
    if others:
        for path in prediction.find_sources(others):
            yield Source(path, path)


def check_names(sources: Sequence[Source]) -> None:
    """ValueError where results of one video would overwrite those of another, or the list of all."""
    names = [one.seen.video if isinstance(one.seen, Segments) else one.path.stem for one in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"several inputs have a video {twice[0]!r}, their results would overwrite each other; rename one"
        )
    if len(names) > 1 and "index" in names:
        raise ValueError("a video is called 'index', as the page that lists all videos; rename it")


def write_pages(
    futures: Futures,
    out: Path,
    facts: dict[str, str],
    files: Sequence[str],
    *,
    truth: Segments | None = None,
    pictures: Sequence[Any] = (),
    times: Any = None,
    index: Path | None = None,
    title: str = "",
) -> list[Path]:
    """A picture and a page, named like the video; pictures: frames of what was seen, at these times."""
    from framecast.viz.futures import draw_futures
    from framecast.viz.futures_report import write_futures_report

    name = futures.observed.video or "futures"
    shown = list(pictures) or None
    picture = draw_futures(
        futures,
        out / f"{name}.png",
        title=title or name,
        truth=truth,
        thumbnails=shown,
        thumbnail_times=times,
    )
    page = write_futures_report(
        out / f"{name}.html",
        futures,
        video={"name": title or name},
        truth=truth,
        filmstrip=shown,
        filmstrip_times=times,
        files=[out / file for file in files],
        facts=facts,
        index=index,
    )
    return [picture, page]


def describe(futures: Futures) -> str:
    """ "seen up to 1:20 (stir), then most likely fry_egg 87 % (from 1:25), …" """
    from framecast.data.futures_files import class_outlook

    last = futures.observed.names[-1]
    coming = []
    for one in class_outlook(futures)[:4]:
        step = futures.step_s or 0.0
        when = f" (+{step * one.start:.0f} s)" if futures.step_s else f" (+{one.start:.0f} steps)"
        coming.append(f"{futures.classes[one.label]} {one.probability:.0%}{when}")
    return f"seen up to {last!r}, then {', '.join(coming)}"


def evaluate_baselines(
    run: str | None,
    names: Sequence[str],
    data: Path | None,
    split: int | None,
    protocols: list[str] | None,
    out: Path | None,
    device: str,
    *,
    as_json: bool,
) -> None:
    """Print the scores of baselines, below those of a run where one is given; write them with --out."""
    from framecast.cli.training import protocol_table
    from framecast.infer import baselines
    from framecast.infer.evaluation import evaluate_run
    from framecast.writing import json_text, write_file

    names = baselines.baseline_names(names)
    if run is None and data is None:
        raise ValueError(
            "baselines learn from labels; pass them with --data FOLDER, or a run that names its data"
        )
    settings, sampling = data_of(run, data, split)
    found = {}
    if run is not None:
        found[run] = evaluate_run(run, data=data, split=split, protocols=protocols, device=device)
        protocols = protocols or list(found[run].scores)
    found |= baselines.evaluate_baselines(names, settings, sampling, protocols)
    if out is not None:
        text = json_text({name: one.to_json() for name, one in found.items()})
        out.parent.mkdir(parents=True, exist_ok=True)
        write_file(out, text + "\n")
    if as_json:
        show_json({"scores": {name: one.to_json() for name, one in found.items()}, "written": out})
        return
    for protocol in next(iter(found.values())).scores:
        show(protocol)
        show(protocol_table({name: one.scores[protocol] for name, one in found.items()}, first="model"))
    one = next(iter(found.values()))
    side = f"split {one.split} of {one.data}" if one.split is not None else one.data
    show(f"{one.num_items} test videos, {side}" + (f", written to {out}" if out is not None else ""))


def data_of(run: str | None, data: Path | None, split: int | None) -> tuple[Any, Any]:
    """What a run was scored on, with --data and --split applied."""
    from framecast.checkpoints import ModelCard, model_folder, read_about
    from framecast.infer.evaluation import anticipation_settings
    from framecast.train.config import load_recipe

    recipe, card = None, ModelCard()
    if run is not None:
        card = ModelCard.from_json(read_about(model_folder(run)).get("card", {}))
        recipe = load_recipe(run) if (Path(run) / "config.yaml").is_file() else None
        if card.task != "anticipation":
            raise ValueError(
                f"{run} is no anticipation model; baselines stand beside one, or alone with --data"
            )
    settings, sampling = anticipation_settings(card, recipe)
    changes: dict[str, Any] = {"root": str(data)} if data is not None else {}
    changes |= {"split": split} if split is not None else {}
    return settings.model_copy(update=changes), sampling
