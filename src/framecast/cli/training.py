"""`train`, `evaluate` and `submit`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from framecast.cli.adaptation import tokens_table
from framecast.cli.output import (
    AsJson,
    Device,
    check_out,
    no_empty_folder,
    pick_device,
    show,
    show_json,
    table,
)

RecipeName = Annotated[str, typer.Argument(help="A registered recipe, a recipe .yaml, or a run folder.")]
Data = Annotated[Path | None, typer.Option("--data", help="Folder of the data; sets data.root.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="key=value, e.g. optim.lr=3e-4; repeatable.")]
RunFolder = Annotated[
    Path | None, typer.Option("--out", "-o", help="Run folder; runs/<recipe>, or the given run folder.")
]
SEGMENTATION_KEYS = ("accuracy", "edit", "f1@10", "f1@25", "f1@50")
ANTICIPATION_KEYS = ("moc", "mean_moc", "top1_moc", "accuracy", "diversity", "ece", "brier", "crps", "edit")
DANGER_KEYS = ("auroc", "auprc", "brier", "skill", "ece", "precision_fire", "recall_fire", "f1_fire")
MAP_KEYS = ("mae", "rmse", "r2", "correlation", "skill", "accuracy", "drought_f1")
ANSWER_KEYS = ("normalised", "f1", "contains", "choice", "type_mean", "num_answers")
RECOGNITION_KEYS = ("top1", "top5", "mean_class_accuracy", "ece", "nll")


def resolve_recipe(
    name: str, data: Path | None, changes: list[str] | None, out: Path | None
) -> tuple[Any, Path]:
    """The recipe of a name, file or run folder with `--data` and `--set` applied, and its run folder."""
    from framecast.recipes.build import get_recipe
    from framecast.registry import entries
    from framecast.train.config import apply_overrides, load_recipe

    registered = name in entries("recipe")
    from_file = name.endswith((".yaml", ".yml")) or Path(name).is_dir()
    recipe = load_recipe(name) if from_file and not registered else get_recipe(name)
    given = ["data.root=" + quoted(str(data))] if data is not None else []
    recipe = apply_overrides(recipe, [*given, *(changes or [])])
    goes_on = from_file and not registered and Path(name).is_dir()
    folder = out or (Path(name) if goes_on else Path("runs") / recipe.name)
    check_out(folder)
    return recipe, folder


def quoted(text: str) -> str:
    """The text as a YAML string: a folder may be called `1` or `null`."""
    return "'" + text.replace("'", "''") + "'"


def train(
    recipe: RecipeName,
    data: Data = None,
    out: RunFolder = None,
    set_: Set = None,
    splits: Annotated[
        str | None, typer.Option(help='"1,3" or "all": one run per split, then the mean.')
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help='"0,1,2": one run per seed, then mean and deviation.')
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Train a recipe; the same command goes on after an interruption, torchrun and Slurm run it too."""
    from framecast.recipes.build import build_task, split_names
    from framecast.tasks.ranks import together
    from framecast.train.config import apply_overrides
    from framecast.train.distributed import start_world
    from framecast.train.loop import train as run
    from framecast.train.study import run_study

    where = None if device == "auto" else pick_device(device)  # None: every process takes its own GPU
    with start_world(where):
        with together():  # what is wrong with data or recipe is said before the first run
            resolved, folder = resolve_recipe(recipe, data, set_, out)
            study = splits is not None or seeds is not None
            chosen = [resolved.data.split] if splits is None else split_names(resolved, splits)
            numbers = [resolved.seed] if seeds is None else seed_numbers(seeds)

            def recipe_of(split: int | None, seed: int) -> Any:
                changes = [f"data.split={'null' if split is None else split}", f"seed={seed}"]
                return apply_overrides(resolved, changes)

            task = build_task(recipe_of(chosen[0], numbers[0]) if study else resolved)
        with no_empty_folder(folder):
            if study:
                summary = run_study(recipe_of, chosen, numbers, folder, make_task=build_task, device=where)
            else:
                summary = run(resolved, task, folder, device=where)
    show_result(summary["mean" if study else "metrics"], folder, as_json, summary)


def seed_numbers(text: str) -> list[int]:
    """ "0,1,2" -> [0, 1, 2]."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise ValueError(f"--seeds {text!r} are not different whole numbers such as 0,1,2")
    return [int(part) for part in parts]


def show_result(metrics: dict[str, float], folder: Path, as_json: bool, summary: dict[str, Any]) -> None:
    if as_json:
        show_json(summary | {"folder": folder})
        return
    if metrics:
        show(scores_table(metrics, first_row(metrics)))
    show(f"wrote {folder}")


def first_row(metrics: dict[str, float]) -> str:
    """What the scores without a prefix are."""
    if "skill" in metrics and "auroc" not in metrics:
        return "mean"
    return "mean over videos" if "edit" in metrics and "mean_moc" not in metrics else "test"


def scores_table(metrics: dict[str, float], first: str) -> str:
    """One row per way of averaging, from keys such as "edit" and "pooled: edit"."""
    rows: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        averaging, _, name = key.rpartition(": ")
        rows.setdefault(averaging or first, {})[name] = value
    return protocol_table(rows)


def protocol_table(rows: dict[str, dict[str, float]], first: str = "protocol") -> str:
    """One row of scores per protocol or way of averaging, or whatever else `first` says."""
    if any("/" in key for row in rows.values() for key in row):
        return horizon_table(rows, first)
    keys = SEGMENTATION_KEYS
    for sign, others in (("top1", RECOGNITION_KEYS), ("normalised", ANSWER_KEYS)):
        if any(sign in row for row in rows.values()):
            keys = others
    for sign, titles in (("rmse", MAP_KEYS), ("auroc", DANGER_KEYS)):  # in units and shares, no percentages
        if any(sign in row for row in rows.values()):
            body = [[a, *(f"{row[k]:.4g}" if k in row else "" for k in titles)] for a, row in rows.items()]
            return table(("maps" if sign == "rmse" else first, *titles), body)
    body = [[a, *(figure(k, row[k]) if k in row else "" for k in keys)] for a, row in rows.items()]
    return table((first, *keys), body)


def horizon_table(rows: dict[str, dict[str, float]], first: str = "protocol") -> str:
    """Scores of anticipation: a row per observed share and horizon, from keys such as "mean_moc@20/50"."""
    titles = [key for key in ANTICIPATION_KEYS if any(key in row for row in rows.values())]
    body = []
    for protocol, row in rows.items():
        for setting in [*dict.fromkeys(key.rpartition("@")[2] for key in row if "/" in key), ""]:
            name = setting.replace("/", " % seen, next ") + " %" if setting else "mean"
            part = f"@{setting}" if setting else ""
            body.append([protocol, name, *(figure(k, row[k + part]) if k in row else "" for k in titles)])
    return table((first, "", *titles), body)


def figure(key: str, value: float) -> str:
    """Percentages to a tenth; calibration error and log-likelihood to three digits."""
    return f"{value:.3f}" if key in ("ece", "nll", "brier", "crps", "diversity") else f"{value:.1f}"


def evaluate(
    run: Annotated[
        str | None, typer.Argument(help="A run folder, a saved model folder or a hub id.", show_default=False)
    ] = None,
    data: Data = None,
    split: Annotated[int | None, typer.Option(help="Test on this split; the run's own by default.")] = None,
    protocol: Annotated[list[str] | None, typer.Option(help="Evaluation protocol; repeatable.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="JSON file for the scores.")] = None,
    corruptions: Annotated[
        str | None,
        typer.Option(
            help="Score on corrupted pixels instead: all (or no word), noise, blur, weather, digital, "
            "or names such as fog,jpeg."
        ),
    ] = None,
    severities: Annotated[
        str | None, typer.Option(help='Of the corruptions, "1,3,5"; all five by default.')
    ] = None,
    jpeg: Annotated[bool, typer.Option("--jpeg", help="Score along the quality of JPEG.")] = False,
    compare: Annotated[
        list[str] | None,
        typer.Option(help="A run that was scored so before, shown beside this one; repeatable."),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="Also score repeat_last, nearest_neighbour, ngram, grammar or transcript_sampler "
            "(anticipation; without a run with --data), climatology, persistence, linear, … (a run's own "
            "cube), or all of them, fitted on the training side; repeatable."
        ),
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Score a trained model on the test side of its data, under named protocols."""
    corrupted = bool(jpeg or compare or corruptions is not None or severities is not None)
    if baseline:
        from framecast.cli import anticipation, earth

        if corrupted:
            raise ValueError("baselines do not read pixels; score corrupted pixels without them")
        if run is not None and earth.task_of(run) in earth.TASKS:
            if split is not None or protocol:
                raise ValueError("a cube has one test side; leave --split and --protocol out")
            earth.evaluate_baselines(run, baseline, data, out, pick_device(device), as_json=as_json)
            return
        anticipation.evaluate_baselines(
            *(run, baseline, data, split, protocol, out, pick_device(device)), as_json=as_json
        )
        return
    if run is None:
        raise ValueError("nothing was given to score; pass a run folder, a model or --baseline NAME")
    if corrupted:
        from framecast.cli.robustness import evaluate_robustness

        evaluate_robustness(
            run,
            corruptions=corruptions,
            jpeg=jpeg,
            severities=severities,
            compare=compare or [],
            data=data,
            split=split,
            protocol=protocol,
            out=out,
            device=device,
            as_json=as_json,
        )
        return
    from framecast.infer.evaluation import evaluate_run

    path = out or (Path(run) if Path(run).is_dir() else Path()) / "scores.json"
    check_out(path.parent)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; --out names the JSON file for the scores")
    result = evaluate_run(run, data=data, split=split, protocols=protocol, device=pick_device(device))
    path.parent.mkdir(parents=True, exist_ok=True)
    result.write(path)
    plot = plot_danger(result, path.with_name(f"{path.stem}-reliability.png")) if result.bins else None
    if as_json:
        show_json(result.to_json() | {"written": path} | ({"plot": plot} if plot else {}))
        return
    if result.kind == "map":
        show(scores_table(result.scores["test"], "mean"))
    else:
        show(protocol_table(result.scores))
    for name, found in result.tokens.items():
        show(f"\ntokens left, {name}\n{tokens_table(found)}\n{found.cost()}\n")
    many = result.kind + "s"
    side = f"test {many}" if result.subset == "test" else f"{many}, training {many} among them,"
    show(f"{result.num_items} {side} of {result.data}, written to {path}")
    if plot:
        show(f"how far chances can be believed: {plot}")


def plot_danger(result: Any, path: Path) -> Path:
    """How often it burnt where a danger was foretold."""
    from framecast.viz.calibration import draw_calibration

    curve: Any = tuple(result.bins[key] for key in ("forecast", "observed", "counts"))
    return draw_calibration({Path(result.model).name: curve}, path, title="Danger foretold, and what burnt")


def submit(
    recipe: RecipeName,
    data: Data = None,
    out: RunFolder = None,
    set_: Set = None,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs per node, one process each; 0 = CPU.")] = 1,
    cpus: Annotated[int, typer.Option(min=1, help="CPU cores per process.")] = 8,
    time: Annotated[str, typer.Option(help="Time limit, [days-]hours:minutes:seconds.")] = "24:00:00",
    partition: Annotated[str, typer.Option(help="Slurm partition.")] = "",
    account: Annotated[str, typer.Option(help="Slurm account.")] = "",
    setup: Annotated[
        list[str] | None, typer.Option(help="Shell line before the command; repeatable.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the recipe, print the sbatch script, submit nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train on a Slurm cluster; preempted jobs are requeued and go on where they were."""
    from framecast.train.config import save_recipe
    from framecast.train.slurm import Resources, sbatch_script
    from framecast.train.slurm import submit as submit_job

    # A job may start in another folder than this one.
    resolved, folder = resolve_recipe(recipe, data.resolve() if data else None, set_, out)
    folder = folder.resolve()
    resources = Resources(
        nodes=nodes,
        gpus_per_node=gpus,
        cpus_per_process=cpus,
        time=time,
        partition=partition,
        account=account,
        name=resolved.name,
        output=f"{folder}/slurm-%j.out",
        setup=tuple(setup or ()),
    )
    recipe_file = folder / "submitted.yaml"
    command = [sys.executable, "-m", "framecast", "train", str(recipe_file), "--out", str(folder)]
    if dry_run:
        script = sbatch_script(command, resources)
        folder.mkdir(parents=True, exist_ok=True)  # Slurm does not make the folder of a job's output
        save_recipe(resolved, recipe_file)
        if as_json:
            show_json({"script": script, "folder": folder, "recipe": recipe_file})
        else:
            show(script.rstrip("\n"))
            print(f"wrote {recipe_file}, which the script trains; nothing is submitted", file=sys.stderr)
        return
    with no_empty_folder(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_recipe(resolved, recipe_file)
        try:
            job = submit_job(command, folder / "slurm", resources)
        except Exception:
            recipe_file.unlink()
            raise
    if as_json:
        show_json({"job": job.job_id, "folder": folder})
    else:
        show(f"submitted job {job.job_id}, run folder {folder}")
