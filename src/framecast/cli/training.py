"""`train`, `evaluate` and `submit`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from framecast.cli.output import AsJson, Device, show, show_json, table

RecipeName = Annotated[str, typer.Argument(help="A registered recipe, a recipe .yaml, or a run folder.")]
Data = Annotated[Path | None, typer.Option("--data", help="Folder of the data; sets data.root.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="key=value, for example optim.lr=3e-4; repeatable.")]
KEYS = ("accuracy", "edit", "f1@10", "f1@25", "f1@50")


def resolve_recipe(name: str, data: Path | None, changes: list[str] | None) -> Any:
    """The recipe of a name or file, with `--data` and `--set` applied."""
    from framecast.recipes.build import get_recipe
    from framecast.train.config import apply_overrides, load_recipe

    from_file = name.endswith((".yaml", ".yml")) or Path(name).is_dir()
    recipe = load_recipe(name) if from_file else get_recipe(name)
    overrides = ([f"data.root={data}"] if data is not None else []) + list(changes or [])
    return apply_overrides(recipe, overrides)


def train(
    recipe: RecipeName,
    data: Data = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder, runs/<recipe> by default.")] = None,
    set_: Set = None,
    splits: Annotated[str | None, typer.Option(help='"1,3" or "all": one run per split, then the mean.')] = None,
    seeds: Annotated[str, typer.Option(help='"0,1,2": one run per seed, then mean and deviation.')] = "",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Train a recipe; the same command goes on after an interruption, torchrun and Slurm run it too."""
    from framecast.recipes.build import build_task, split_names
    from framecast.train.config import apply_overrides
    from framecast.train.loop import train as run
    from framecast.train.study import run_study

    resolved = resolve_recipe(recipe, data, set_)
    folder = out or Path("runs") / resolved.name
    if splits is None and not seeds:
        summary = run(resolved, build_task(resolved), folder, device=None if device == "auto" else device)
        show_result(summary["metrics"], folder, as_json, summary)
        return
    chosen = [resolved.data.split] if splits is None else split_names(resolved, splits)
    numbers = [int(s) for s in seeds.split(",")] if seeds else [resolved.seed]
    summary = run_study(
        lambda split, seed: apply_overrides(resolved, [f"data.split={split}", f"seed={seed}"]),
        chosen,
        numbers,
        folder,
        make_task=build_task,
        device=None if device == "auto" else device,
    )
    show_result(summary["mean"], folder, as_json, summary)


def show_result(metrics: dict[str, float], folder: Path, as_json: bool, summary: dict[str, Any]) -> None:
    if as_json:
        show_json(summary | {"folder": str(folder)})
        return
    if metrics:
        show(scores_table(metrics))
    show(f"wrote {folder}")


def scores_table(metrics: dict[str, float], first: str = "mean over videos") -> str:
    """One row per protocol from keys such as "edit" and "breakfast/s1-pooled: edit"."""
    rows: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        protocol, _, name = key.rpartition(": ")
        rows.setdefault(protocol or first, {})[name] = value
    body = [[p, *(f"{row[k]:.1f}" if k in row else "" for k in KEYS)] for p, row in rows.items()]
    return table(("protocol", *KEYS), body)


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder, or a saved model folder.")],
    data: Data = None,
    split: Annotated[int | None, typer.Option(help="Test on this split; the run's own by default.")] = None,
    protocol: Annotated[list[str] | None, typer.Option(help="Evaluation protocol; repeatable.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="JSON file for the scores.")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Score a trained model on the test side of its data, under named protocols."""
    from framecast.infer.evaluation import evaluate_run

    result = evaluate_run(run, data=data, split=split, protocols=protocol, device=device)
    path = out or run / "scores.json"
    result.write(path)
    if as_json:
        show_json(result.to_json())
        return
    body = [[name, *(f"{scores[k]:.1f}" for k in KEYS)] for name, scores in result.scores.items()]
    show(table(("protocol", *KEYS), body))
    show(f"{result.num_videos} videos of {result.data}, written to {path}")


def submit(
    recipe: RecipeName,
    data: Data = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder, runs/<recipe> by default.")] = None,
    set_: Set = None,
    nodes: Annotated[int, typer.Option(min=1)] = 1,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs per node, one process each; 0 = CPU.")] = 1,
    cpus: Annotated[int, typer.Option(min=1, help="CPU cores per process.")] = 8,
    time: Annotated[str, typer.Option(help="Time limit, [days-]hours:minutes:seconds.")] = "24:00:00",
    partition: Annotated[str, typer.Option()] = "",
    account: Annotated[str, typer.Option()] = "",
    setup: Annotated[list[str] | None, typer.Option(help="Shell line before the command; repeatable.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the sbatch script, submit nothing.")] = False,
) -> None:
    """Train on a Slurm cluster; preempted jobs are requeued and go on where they were."""
    from framecast.train.config import save_recipe
    from framecast.train.slurm import Resources, submit

    resolved = resolve_recipe(recipe, data, set_)
    folder = (out or Path("runs") / resolved.name).resolve()
    resources = Resources(
        nodes=nodes, gpus_per_node=gpus, cpus_per_process=cpus, time=time, partition=partition, account=account,
        name=resolved.name, output=f"{folder}/slurm-%j.out", setup=tuple(setup or ()),
    )  # fmt: skip
    recipe_file = folder / "submitted.yaml"
    command = [sys.executable, "-m", "framecast", "train", str(recipe_file), "--out", str(folder)]
    if not dry_run:
        folder.mkdir(parents=True, exist_ok=True)
        save_recipe(resolved, recipe_file)
    job = submit(command, folder / "slurm", resources, dry_run=dry_run)
    if not dry_run:
        show(f"submitted job {job.job_id}, run folder {folder}")
