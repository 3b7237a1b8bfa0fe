"""What a run writes for people: metrics.jsonl, summary.json, environment.json, TensorBoard, W&B, progress.

Only rank 0 writes. Lines of metrics.jsonl are {"kind": "train" | "eval", "step", "epoch", ...}; after a
resume they are those of an uninterrupted run (but for "seconds").
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from framecast.train.config import dump_recipe
from framecast.train.distributed import World
from framecast.train.recipe import Recipe
from framecast.writing import write_file


class Records:
    """The files of a run folder beside its checkpoints; does nothing on ranks other than 0."""

    def __init__(self, folder: Path, recipe: Recipe, world: World) -> None:
        self.folder, self.recipe, self.active = folder, recipe, world.is_main
        # Before anything is written, and on all ranks: none may wait for one that lacks a package.
        makers = {"tensorboard": _TensorBoard, "wandb": _WeightsAndBiases}
        self._writers = [makers[name](folder, recipe) for name in recipe.log]

    def begin(self, step: int, environment: dict[str, Any]) -> None:
        """Start, or go on after `step`: lines of later steps are dropped, they will come again."""
        if not self.active:
            return
        (self.folder / "summary.json").unlink(missing_ok=True)  # of a shorter run that now goes on
        write_file(self.folder / "config.yaml", dump_recipe(self.recipe))
        sessions = _read_json(self.folder / "environment.json", [])
        write_file(
            self.folder / "environment.json",
            json.dumps([*sessions[: None if step else 0], {"from_step": step, **environment}], indent=1),
        )
        lines = [json.dumps(row) for row in read_metrics(self.folder) if row["step"] <= step]
        write_file(self.folder / "metrics.jsonl", "".join(line + "\n" for line in lines))
        self._file = open(self.folder / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115  closed in `close`
        for writer in self._writers:
            writer.begin(step)

    def log(self, kind: str, step: int, values: dict[str, Any]) -> None:
        if not self.active:
            return
        try:
            self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, f"cannot write {self._file.name} ({error.strerror})") from None
        for writer in self._writers:
            writer.log(kind, step, {k: v for k, v in values.items() if isinstance(v, int | float)})

    def sync(self) -> None:
        """Metrics reach the disk before the checkpoint that counts on them."""
        if self.active:
            os.fsync(self._file.fileno())

    def summary(self, values: dict[str, Any]) -> None:
        if self.active:
            write_file(self.folder / "summary.json", json.dumps(values, indent=1))

    def close(self) -> None:
        if self.active and hasattr(self, "_file"):
            self._file.close()
            for writer in self._writers:
                writer.close()

    def __enter__(self) -> Records:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl; a last line that was cut off by a crash is left out."""
    path = folder / "metrics.jsonl"
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def read_summary(folder: Path) -> dict[str, Any] | None:
    """summary.json of a finished run, None where there is none."""
    return _read_json(folder / "summary.json", None)


def _read_json(path: Path, default: Any) -> Any:
    if not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{path} is not JSON; delete it or restore it, then start again") from None


def say(world: World, text: str) -> None:
    """One line for the person at the keyboard, from rank 0."""
    if world.is_main:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def progress_bar(world: World, done: int, total: int) -> Generator[Any]:
    """Yields `advance(text)`; silent where nobody watches."""
    if not world.is_main or not sys.stderr.isatty():
        yield lambda text: None
        return
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task("", completed=done, total=total)
        yield lambda text: progress.update(bar, advance=1, description=text)


class _TensorBoard:
    def __init__(self, folder: Path, recipe: Recipe) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError(_missing("tensorboard")) from None
        self._make = lambda step: SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def begin(self, step: int) -> None:
        self._writer = self._make(step)

    def log(self, kind: str, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, folder: Path, recipe: Recipe) -> None:
        try:
            import wandb  # ty: ignore[import-not-found]
        except ImportError:
            raise ValueError(_missing("wandb")) from None
        self._wandb, self._folder, self._recipe = wandb, folder, recipe

    def begin(self, step: int) -> None:
        file = self._folder / "wandb-id"  # the same curve goes on after a resume
        if not step or not file.is_file():
            write_file(file, self._wandb.util.generate_id() + "\n")
        self._run = self._wandb.init(
            project="framecast",
            name=self._folder.name,
            id=file.read_text(encoding="utf-8").strip(),
            resume="allow",
            dir=str(self._folder),
            config=self._recipe.model_dump(mode="json"),
        )

    def log(self, kind: str, step: int, values: dict[str, float]) -> None:
        self._run.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        self._run.finish()


def _missing(package: str) -> str:
    return (
        f"the recipe logs to {package}, which is not installed; "
        f'pip install "framecast[log]" or leave it out with --set log=[]'
    )
