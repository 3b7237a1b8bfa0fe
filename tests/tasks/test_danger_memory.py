"""A cube of any size is prepared, trained on and mapped with the memory that was allowed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("xarray")
pytest.importorskip("zarr")

# In a fresh process: peak memory beyond what the programs themselves take, in MB, after each step.
MEASURE = """
import json, resource, sys
from pathlib import Path
import torch
from framecast.data.cube import open_cube
from framecast.data.cube_prepare import prepare_cube
from framecast.infer.danger import DangerForecaster
from framecast.recipes.build import build_task, get_recipe
from framecast.train.config import apply_overrides

torch.set_num_threads(1)
source, out, date = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
found = {"start": peak()}
prepare_cube(open_cube(source), out, memory_mb=16, quiet=True)
found["prepared"] = peak()
recipe = apply_overrides(get_recipe("danger"), [f"data.root={out}", "data.keep_mb=0"])
task = build_task(recipe)
model = task.build_model()
for first in range(0, 32, 8):
    loss, _ = task.loss(model, task.collate([task.train_data[i] for i in range(first, first + 8)]))
    loss.backward()
found["trained"] = peak()
forecast = DangerForecaster(model, memory_mb=40)(open_cube(out), date)
found["mapped"] = peak()
print(json.dumps(found))
"""


def test_memory_does_not_grow_with_the_cube(tmp_path: Path) -> None:
    from framecast.data.synthetic_cubes import write_fire_cube

    peaks, sizes = [], []
    for days in (60, 420):
        cube = write_fire_cube(tmp_path / f"{days}", days, 80, start="2018-06-01")
        words = [sys.executable, "-c", MEASURE, str(cube), str(tmp_path / f"out{days}"), "2018-07-20"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        peaks.append(json.loads(done.stdout))
        sizes.append(days * 11 * 80 * 80 * 4 / 2**20)
    assert sizes[1] - sizes[0] > 90, "the larger cube is larger than what may be added"
    growth = {step: peaks[1][step] - peaks[0][step] for step in peaks[0]}
    assert max(growth.values()) < 40, growth
