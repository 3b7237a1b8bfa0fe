"""`predict`: from videos to timelines, labels and futures, and from cubes to maps."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from framecast.cli import anticipation, asking, classification, earth
from framecast.cli.data import Size, Weights, parse_size
from framecast.cli.output import (
    AsJson,
    Device,
    check_out,
    each_file,
    no_empty_folder,
    pick_device,
    show,
    show_failures,
    show_json,
)
from framecast.cli.results import Result, write_results
from framecast.structures import FeatureTrack, Segments

AHEAD_ONLY = ("anticipate", "samples", "timeline", "segmenter", "seed", "expected_length")
MAPS_ONLY = ("date", "dates", "members", "at", "drought", "reference", "threads", "memory_mb")
BASELINE_ONLY = ("data", "split")
LABEL_FREE_ONLY = ("segments", "min_segment", "backbone", "size", "step", "feature_dim")


def predict(
    context: typer.Context,
    inputs: Annotated[
        list[str] | None, typer.Argument(help="Videos, folders, quoted patterns or feature files.")
    ] = None,
    model_: Annotated[
        list[str] | None,
        typer.Option("--model", help="Run folder, saved model or hub id; repeatable for maps: an ensemble."),
    ] = None,
    unsupervised: Annotated[
        bool, typer.Option("--unsupervised", help="Label-free segments, no model.")
    ] = False,
    segments: Annotated[
        int | None, typer.Option(help="Label-free: how many different segments.", min=1)
    ] = None,
    min_segment: Annotated[float, typer.Option(help="Label-free: shortest segment in seconds.", min=0)] = 1.0,
    backbone: Annotated[str, typer.Option(help="Label-free: backbone of the features.")] = "vit_small_dinov2",
    weights: Weights = None,
    size: Size = None,
    step: Annotated[float, typer.Option(help="Label-free: seconds between features.", min=1e-3)] = 0.2,
    feature_dim: Annotated[
        int | None, typer.Option(help="Label-free: channels of feature files made elsewhere.", min=1)
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Recognition: how to look, e.g. kinetics/3x4 for 12 views.")
    ] = None,
    show_tokens: Annotated[
        bool, typer.Option("--show-tokens", help="Recognition: draw which patches an adaptive model keeps.")
    ] = False,
    anticipate: Annotated[
        str | None, typer.Option(help="Anticipation: how far to look ahead, e.g. 60s or 2m.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Anticipation: how many futures.", min=1)] = 25,
    timeline: Annotated[
        Path | None, typer.Option(help="Anticipation: CSV or text of what was seen so far.")
    ] = None,
    segmenter: Annotated[
        str | None, typer.Option(help="Anticipation: trained model that labels what is seen in a video.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Anticipation: of the random futures.", min=0)] = 0,
    expected_length: Annotated[
        str | None,
        typer.Option(help="Anticipation: how long the whole video may be; without it, to the horizon."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="Anticipation without a model: repeat_last, nearest_neighbour, ngram, grammar, …"),
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Labels that the baseline learns from.")] = None,
    split: Annotated[
        int | None, typer.Option(help="Baseline: learn from this split's training side alone.")
    ] = None,
    date: Annotated[str | None, typer.Option(help="Maps: the day, as 2021-07-02.")] = None,
    dates: Annotated[
        str | None, typer.Option(help="Maps: several days, 2021-07-01:2021-07-10; makes a film too.")
    ] = None,
    members: Annotated[
        int, typer.Option(help="Maps: draws with dropout left on, for the spread.", min=1)
    ] = 1,
    at: Annotated[
        list[str] | None, typer.Option(help="Maps: a place, LAT,LON or NAME=LAT,LON; repeatable.")
    ] = None,
    drought: Annotated[
        bool, typer.Option("--drought", help="Maps: drought frequency and trends of a whole projection.")
    ] = False,
    reference: Annotated[
        Path | None, typer.Option(help="Maps: cube of observations that has the usual values.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Danger maps: tiles at a time.", min=1)] = 1,
    memory_mb: Annotated[float | None, typer.Option(help="Danger maps: what tiles may take.", min=1)] = None,
    ask: Annotated[
        list[str] | None, typer.Option(help="A question about every video or image; repeatable.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("predictions"),
    pages: Annotated[bool, typer.Option(help="Draw pictures and write HTML pages.")] = True,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say which action runs when, what is to be seen, what comes next, or draw maps ahead: files, pages.

    framecast predict cooking.mp4 --model runs/kitchen
    framecast predict clip.mp4 --model runs/gestures
    framecast predict photo.jpg --model runs/adaptive --show-tokens
    framecast predict --timeline seen.csv --model breakfast_futures --anticipate 60s
    framecast predict greece/cube.yaml --model runs/danger --date 2021-07-02
    framecast predict clip.mp4 --model runs/panda --ask "How many cups are on the table?"
    framecast predict "holiday/*.mp4" --unsupervised
    """
    model = model_[0] if model_ else None
    if (model is not None) + unsupervised + (baseline is not None) != 1:
        raise ValueError(
            "pass either --model RUN for a trained model, --baseline NAME for a simple forecast of what "
            "comes next, or --unsupervised for label-free segments"
        )
    if baseline is None:
        refuse_options(context, BASELINE_ONLY, "--baseline NAME, which learns from the labels of a folder")
    if not unsupervised:
        refuse_options(context, LABEL_FREE_ONLY, "label-free segments; a model knows how features are made")
    check_out(out)
    where = pick_device(device)
    inputs = inputs or []
    command = shlex.join(["framecast", "predict", *inputs, *given_options(context)])
    task = earth.task_of(model) if model is not None else ""
    if model_ and task in earth.TASKS:
        places = earth.parse_places(at or [])
        asked = earth.Asked(date, dates, members, seed, places, drought, reference, threads, memory_mb)
        earth.predict_maps(inputs, model_, asked, out, where, command, pages=pages, as_json=as_json)
        return
    refuse_options(context, MAPS_ONLY, "maps: a model of danger, vegetation or drought, and a cube")
    if model_ and len(model_) > 1:
        raise ValueError("several models together are for maps; pass one --model")
    if show_tokens and task != "recognition":
        raise ValueError("--show-tokens is for recognition models that fc.adaptive(model) has made adaptive")
    if task == "video_qa":
        if not ask:
            raise ValueError('this model answers questions; ask one, for example --ask "What happens?"')
        if not inputs:
            raise ValueError("nothing was given to look at; pass videos, images, folders or patterns")
        refuse_options(context, AHEAD_ONLY, "looking ahead; a model of questions has --ask")
        asking.answer_files(inputs, ask, str(model), out, where, command, pages=pages, as_json=as_json)
        return
    if ask:
        raise ValueError("--ask is for models that answer questions: `framecast train video_panda_…`")
    if task == "anticipation" or baseline is not None:
        if anticipate is None:
            what = "this model" if baseline is None else f"the baseline {baseline}"
            raise ValueError(f"{what} looks ahead; say how far, for example --anticipate 60s")
        whole = None
        if expected_length is not None:
            whole = anticipation.parse_horizon(expected_length, "--expected-length")
        ahead = anticipation.Ahead(anticipation.parse_horizon(anticipate), samples, seed, whole)
        if baseline is None:
            forecaster, facts = anticipation.trained_forecaster(str(model), segmenter, weights, where)
        else:
            forecaster, facts = anticipation.baseline_forecaster(
                baseline, data, split, segmenter, weights, where
            )
        facts = {"command": command} | facts
        anticipation.predict_futures(
            inputs, timeline, forecaster, ahead, out, facts, pages=pages, as_json=as_json
        )
        return
    refuse_options(context, AHEAD_ONLY, "looking ahead; train a model with `framecast train anticipation`")
    if not inputs:
        raise ValueError("nothing was given to look at; pass videos, folders, patterns or feature files")
    if model is not None and task == "recognition":
        if weights is not None:
            raise ValueError("--weights is for models on features; a recognition model has its own weights")
        classification.predict_labels(
            *(inputs, model, protocol, out, where, command),
            show_tokens=show_tokens,
            pages=pages,
            as_json=as_json,
        )
        return
    if protocol is not None:
        raise ValueError("--protocol is for recognition models; this predicts segments")
    sources = find_sources(inputs)
    if model is not None:
        segment, facts = trained(model, weights, where)
    else:
        segment, facts = label_free(
            backbone, weights, size, step, segments, min_segment, where, feature_dim=feature_dim
        )
    facts["command"] = command
    results, failed = segment_all(sources, segment, as_json)
    with no_empty_folder(out):
        written = write_results(results, out, facts, pages=pages) if results else []
    if as_json:
        from framecast.data.tables import segment_records

        rows = [row for result in results for row in segment_records(result.segments)]
        show_json({"segments": rows, "failed": failed, "written": written})
    else:
        for result in results:
            show(f"{result.segments.video}: {describe(result.segments)}")
        show(f"wrote {', '.join(p.name for p in written)} into {out}" if written else "nothing was written")
    show_failures(failed)
    if failed:
        raise typer.Exit(1)


def given_options(context: typer.Context) -> list[str]:
    """The options of the command as they were given, without those that change only what is printed."""
    words: list[str] = []
    for option in context.command.params:
        name, value = option.name or "", context.params.get(option.name or "")
        source = getattr(context.get_parameter_source(name), "name", "")
        if option.param_type_name != "option" or source != "COMMANDLINE" or name == "as_json":
            continue
        if isinstance(value, bool):
            words.append((option.opts if value else option.secondary_opts)[0])
        elif isinstance(value, list | tuple):
            words += [word for one in value for word in (option.opts[0], str(one))]
        else:
            words += [option.opts[0], str(value)]
    return words


def refuse_options(context: typer.Context, names: Sequence[str], purpose: str) -> None:
    """ValueError where an option was given that would change nothing."""
    given = [n for n in names if getattr(context.get_parameter_source(n), "name", "") == "COMMANDLINE"]
    if given:
        option = "--" + given[0].replace("_", "-")
        raise ValueError(f"{option} is for {purpose}")


# Sources --------------------------------------------------------------------------------------------


def is_track(path: Path) -> bool:
    from framecast.data.features import FEATURE_SUFFIXES

    return path.suffix in FEATURE_SUFFIXES


def find_sources(inputs: Iterable[str]) -> list[Path]:
    """Videos and feature files of files, folders and patterns; a folder without videos may hold features."""
    from framecast.data.video import find_videos

    found: list[Path] = []
    for text in inputs:
        folder = Path(text)
        tracks = sorted(p for p in folder.glob("*") if is_track(p)) if folder.is_dir() else []
        try:
            found += find_videos(text)
        except FileNotFoundError:
            if not tracks:
                raise
            found += tracks
    if not found:
        raise FileNotFoundError(f"{', '.join(inputs)}: no videos and no feature files")
    names = [p.stem for p in found]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(
            f"several inputs are called {twice[0]!r}, their results would overwrite each other; rename one"
        )
    if len(names) > 1 and "index" in names:
        raise ValueError("an input is called 'index', as the page that lists all videos; rename it")
    return found


# Segmenters -----------------------------------------------------------------------------------------


class Segmenter(Protocol):
    """From a video or a feature file to its segments."""

    def __call__(self, path: Path) -> Result: ...

    @property
    def backbone(self) -> Any:
        """What videos need; opened before the first one, so that its errors are not every video's."""
        ...


@dataclass
class LabelFree:
    """Temporally weighted clustering of backbone features; nothing is trained."""

    settings: Any  # FeatureSettings
    num_segments: int | None
    min_segment_s: float
    device: str
    feature_dim: int | None = None

    @cached_property
    def backbone(self) -> tuple[Any, Any]:
        from framecast.infer.backbone import backbone_factory
        from framecast.infer.frame_features import provenance_of

        model = backbone_factory(self.settings)
        return model, provenance_of(model, self.settings)

    def __call__(self, path: Path) -> Result:
        from framecast.infer.unsupervised import segment_unsupervised

        track = self.track(path)
        found = segment_unsupervised(track, self.num_segments, min_segment_s=self.min_segment_s)
        return Result(path, replace(found, video=path.stem), track.provenance)

    def track(self, path: Path) -> FeatureTrack:
        from framecast.data.features import load_track
        from framecast.infer.frame_features import extract_features

        if is_track(path):
            return load_track(path, feature_dim=self.feature_dim)
        model, provenance = self.backbone
        return extract_features(model, path, self.settings, self.device, provenance=provenance)


def label_free(
    backbone: str,
    weights: str | None,
    size: str | None,
    step_s: float,
    num_segments: int | None,
    min_segment_s: float,
    device: str,
    *,
    feature_dim: int | None = None,
) -> tuple[Segmenter, dict[str, str]]:
    """The label-free segmenter, and what a report says of it."""
    from framecast.infer.backbone import feature_settings

    settings = feature_settings(backbone, weights, image_size=parse_size(size), step_s=step_s)
    facts = {
        "method": "label-free: temporally weighted clustering of frame features (TW-FINCH); "
        "every video has letters of its own",
        "backbone": f"{backbone}, weights from {settings.weights}",
    }
    return LabelFree(settings, num_segments, min_segment_s, device, feature_dim), facts


@dataclass
class Trained:
    """A trained model with the backbone of its training features."""

    predictor: Any  # Predictor

    @property
    def backbone(self) -> Any:
        return self.predictor.backbone

    def __call__(self, path: Path) -> Result:
        return Result(path, self.predictor(path), self.predictor.card.features)


def trained(model: str, weights: str | None, device: str) -> tuple[Segmenter, dict[str, str]]:
    """The segmenter of a trained model, and what a report says of it."""
    from framecast.infer.predictor import Predictor

    predictor = Predictor(model, weights=weights, device=device)
    return Trained(predictor), {"model": f"{predictor.model.registered_name} from {model}"}


def segment_all(sources: list[Path], segment: Segmenter, quiet: bool) -> tuple[list[Result], dict[str, str]]:
    """Results, and why a video could not be read."""
    if not all(is_track(path) for path in sources):
        _ = segment.backbone
    return each_file(sources, segment, "segmenting", quiet=quiet)


def describe(segments: Segments) -> str:
    """ "0:00 pour, 0:12 stir, …" """
    if segments.limits_s is None:
        starts = [f"frame {start}" for start in segments.starts]
    else:
        starts = [f"{int(start) // 60}:{int(start) % 60:02d}" for start in segments.limits_s[:, 0]]
    parts = [f"{start} {name}" for start, name in zip(starts, segments.names, strict=True)]
    return ", ".join(parts[:12]) + (f", … ({len(parts)} segments)" if len(parts) > 12 else "")
