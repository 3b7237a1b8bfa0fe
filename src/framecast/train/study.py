"""One recipe over many splits and seeds: which part of a difference is chance?

    run_study(lambda split, seed: recipe_of(split, seed), splits=[1, 2, 3, 4], seeds=[0, 1, 2],
              out="runs/study", make_task=SegmentationTask)

Runs come one after another, in out/split1-seed0 and so on; in out/seed0 where the data is not split (the
split is None). Finished ones are not repeated, a stopped one goes on, so the same command continues a study.
The figures of a study: for each seed the mean over the splits, then mean and sample standard deviation over
the seeds.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from framecast.tasks.ranks import together
from framecast.train.config import load_recipe
from framecast.train.distributed import start_world
from framecast.train.loop import SaveModel, train
from framecast.train.recipe import Recipe
from framecast.train.records import read_summary, say
from framecast.train.task import Task
from framecast.writing import write_file


def run_study(
    make_recipe: Callable[[int | None, int], Recipe],
    splits: Sequence[int | None],
    seeds: Sequence[int],
    out: str | Path,
    *,
    make_task: Callable[[Recipe], Task],
    device: str | torch.device | None = None,
    save_model: SaveModel | None = None,
) -> dict[str, Any]:
    """Train `make_recipe(split, seed)` for every combination; returns and writes out/summary.json.

    The summary is rewritten after every run; "complete" tells whether all are in it.
    """
    if not splits or not seeds:
        raise ValueError(f"a study needs splits and seeds, got splits {list(splits)} and seeds {list(seeds)}")
    out = Path(out)
    plans = [(split, seed) for seed in seeds for split in splits]
    runs: list[dict[str, Any]] = []
    with start_world(device) as world:
        for number, (split, seed) in enumerate(plans, start=1):
            parts = [f"seed {seed}"] if split is None else [f"split {split}", f"seed {seed}"]
            folder = out / "-".join(parts).replace(" ", "")
            with together():
                recipe = make_recipe(split, seed)
                summary = _finished(folder, recipe)
                task = make_task(recipe) if summary is None else None
            if task is not None:
                say(world, f"run {number} of {len(plans)}: {', '.join(parts)}, in {folder}")
                summary = train(recipe, task, folder, device=device, save_model=save_model)
            assert summary is not None
            runs.append({"split": split, "seed": seed, **_brief(summary)})
            study = summarise(runs) | {"complete": len(runs) == len(plans)}
            if world.is_main:
                write_file(out / "summary.json", json.dumps(study, indent=1))
    return study


def summarise(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over seeds of the split average, and means per split.

    runs: {"split", "seed", "metrics": {name: value}}; split is None where the data is not split. Only seeds
    that have all splits count for mean and std; std is None for a single seed. Metrics that some run lacks
    are left out.
    """
    splits = sorted({run["split"] for run in runs})
    table = {(run["split"], run["seed"]): run["metrics"] for run in runs}
    names = [name for name in runs[0]["metrics"] if all(name in run["metrics"] for run in runs)]
    whole = sorted({s for _, s in table if all((split, s) in table for split in splits)})
    averages = {
        name: [statistics.fmean(table[split, seed][name] for split in splits) for seed in whole]
        for name in names
    }
    return {
        "splits": [split for split in splits if split is not None],
        "seeds": whole,
        "mean": {name: statistics.fmean(values) for name, values in averages.items() if values},
        "std": {n: statistics.stdev(values) if len(values) > 1 else None for n, values in averages.items()},
        "per_split": {
            str(split): {
                name: statistics.fmean(metrics[name] for (k, _), metrics in table.items() if k == split)
                for name in names
            }
            for split in splits
            if split is not None
        },
        "runs": list(runs),
    }


def study_evidence(folder: str | Path) -> dict[str, Any] | None:
    """What to publish of a finished study: figures of every run and their means, wall time, environment.

    None while it is not complete. The command is left out of the environment: it holds local paths.
    """
    study = read_summary(Path(folder))
    if study is None or not study["complete"]:
        return None
    environment = json.loads(next(Path(folder).glob("*/environment.json")).read_text())
    environment = environment[-1] if isinstance(environment, list) else environment
    environment.pop("command", None)
    return {
        **{key: study[key] for key in ("splits", "seeds", "mean", "std")},
        "per_run": [{"split": r["split"], "seed": r["seed"], **r["metrics"]} for r in study["runs"]],
        "wall_seconds": round(sum(run["seconds"] for run in study["runs"])),
        "environment": environment,
    }


def _finished(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """Summary of a run that is done, without building its task again; None if there is work to do."""
    summary = read_summary(folder)
    if summary is None or not (folder / "config.yaml").is_file() or load_recipe(folder) != recipe:
        return None
    return summary


def _brief(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: summary[key] for key in ("metrics", "kept_epoch", "steps", "seconds")}
