"""`predict --anticipate`: what may follow what was seen of a video."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from framecast.cli.output import each_file, no_empty_folder, show, show_failures, show_json
from framecast.structures import Futures

SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600}


@dataclass(frozen=True)
class Source:
    """A video, a feature file, or what a timeline says of one video."""

    path: Path
    seen: Any  # path, or Segments

    def __str__(self) -> str:
        return str(self.path if self.seen is self.path else f"{self.path}: {self.seen.video}")


def parse_horizon(text: str) -> float:
    """ "60s", "2m" or plain seconds; ValueError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h)?\s*", text)
    seconds = float(match[1]) * SECONDS[match[2] or "s"] if match else 0.0
    if seconds <= 0:
        raise ValueError(f"--anticipate {text!r} is no time span; write for example 60s or 2m")
    return seconds


def predict_futures(
    inputs: Sequence[str],
    timeline: Path | None,
    model: str,
    segmenter: str | None,
    weights: str | None,
    horizon_s: float,
    samples: int,
    seed: int,
    out: Path,
    device: str,
    command: str,
    *,
    pages: bool,
    as_json: bool,
) -> None:
    """Print the likeliest future of every source; write futures.csv, futures.json, pictures and pages."""
    from framecast.data.futures_files import write_futures_csv, write_futures_json
    from framecast.infer.forecaster import Forecaster
    from framecast.infer.predictor import Predictor

    own = None if segmenter is None else Predictor(segmenter, weights=weights, device=device)
    forecaster = Forecaster(model, segmenter=own, weights=weights, device=device)
    sources = list(find_sources(inputs, timeline, forecaster))

    def forecast(source: Source) -> Futures:
        return forecaster(source.seen, horizon_s, samples=samples, seed=seed)

    results, failed = each_file(sources, forecast, "anticipating", quiet=as_json)
    facts = {
        "command": command,
        "model": f"{forecaster.model.registered_name} from {model}",
        "observes": forecaster.observe + (f", labelled by {segmenter}" if segmenter else ""),
        "horizon": f"{horizon_s:g} s, {samples} futures, seed {seed}",
    }
    written: list[Path] = []
    with no_empty_folder(out):
        if results:
            out.mkdir(parents=True, exist_ok=True)
            written = [
                write_futures_csv(results, out / "futures.csv"),
                write_futures_json(results, out / "futures.json"),
            ]
            if pages:
                names = [path.name for path in written]
                written += [page for one in results for page in write_pages(one, out, facts, names)]
    if as_json:
        found = json.loads((out / "futures.json").read_text())["videos"] if results else []
        show_json({"futures": found, "failed": failed, "written": written})
    else:
        for futures in results:
            show(f"{futures.observed.video}: {describe(futures)}")
        show(f"wrote {', '.join(p.name for p in written)} into {out}" if written else "nothing was written")
    show_failures(failed)
    if failed:
        raise typer.Exit(1)


def find_sources(inputs: Sequence[str], timeline: Path | None, forecaster: Any) -> Iterator[Source]:
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


def write_pages(futures: Futures, out: Path, facts: dict[str, str], files: Sequence[str]) -> list[Path]:
    from framecast.viz.futures import draw_futures
    from framecast.viz.futures_report import write_futures_report

    name = futures.observed.video or "futures"
    picture = draw_futures(futures, out / f"{name}.png", title=name)
    page = write_futures_report(out / f"{name}.html", futures, files=files, facts=facts)
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
