"""`python run_tiny.py JOBS` trains the tiny task in this process, alone or as one of several.

JOBS is a JSON list of {"run": folder, "changes": of the recipe, "task": arguments of TinyTask, and
"crash": call of the loss, "nan": [rank, call], "unbuilt": rank without a model or "slow": seconds per
call}. A job that fails writes its error to RUN/error-RANK.txt and the next one starts.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from framecast.train.distributed import start_world
from framecast.train.loop import train
from train.tiny_task import TinyModel, TinyTask, save_tiny, tiny_recipe

RANK = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0)))


class TroubledTask(TinyTask):
    def __init__(self, job: dict[str, Any]) -> None:
        arguments = dict(job.get("task", {}))
        if "dtype" in arguments:
            arguments["dtype"] = getattr(torch, arguments["dtype"])
        super().__init__(**arguments)
        self.job, self.calls = job, 0

    def build_model(self) -> TinyModel:
        if self.job.get("unbuilt") == RANK:
            raise FileNotFoundError("weights.pth does not exist")
        return super().build_model()

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        self.calls += 1
        time.sleep(self.job.get("slow", 0))
        if self.calls == self.job.get("crash"):
            raise RuntimeError("crash")
        if [RANK, self.calls] == self.job.get("nan"):
            batch = {**batch, "features": batch["features"] * torch.nan}
        return super().loss(model, batch)


if __name__ == "__main__":
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
    with start_world():
        for job in json.loads(sys.argv[1]):
            try:
                train(tiny_recipe(**job["changes"]), TroubledTask(job), job["run"], save_model=save_tiny)
            except Exception as error:
                Path(job["run"], f"error-{RANK}.txt").write_text(f"{type(error).__name__}: {error}")
