"""What two processes share gives what one process gives, the same to the last digit on both."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from framecast.data.synthetic_recognition import write_recognition_lookalike
from framecast.metrics.recognition import RecognitionMetrics
from framecast.tasks.ranks import gather_over_ranks, merge_over_ranks, own_items

SHARED = """
import json, sys
import numpy as np
from framecast.metrics.recognition import RecognitionMetrics
from framecast.tasks.ranks import gather_over_ranks, merge_over_ranks, own_items, own_rank, together
from framecast.train.distributed import start_world

def fail_on(rank):
    try:
        with together():
            if own_rank() == rank:
                raise OSError("the disk is full")
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def evaluate():
    metrics = RecognitionMetrics(num_classes=3)
    for i in own_items(7):
        p = np.random.default_rng(i).dirichlet(np.ones(3))
        metrics.update(p, i % 3, source=f"clip {i}")
    own = len(metrics)
    merged = merge_over_ranks(metrics, lambda: RecognitionMetrics(num_classes=3))
    failed = [fail_on(rank) for rank in (1, 0, 7)]
    return {"failed": failed, "own": own, "scores": merged.compute(), "everywhere": gather_over_ranks(own)}

with start_world("cpu"):
    print(json.dumps(evaluate()))
"""


FROZEN = """
import json, sys
import torch
import framecast as fc
from framecast.data.recognition import open_recognition
from framecast.data.recognition_samples import RecognitionViews
from framecast.metrics.view_protocols import get_view_protocol
from framecast.tasks.linear_probe import freeze_features
from framecast.train.distributed import start_world

class Counting(RecognitionViews):
    read = 0
    def __getitem__(self, index):
        self.read += 1
        return super().__getitem__(index)

torch.manual_seed(0)
sizes = dict(width=24, depth=2, num_heads=3, image_size=16, patch_size=8, num_classes=0)
model = fc.create_model("vit_tiny", **sizes)
options = dict(image_size=16, mean=(0.5,) * 3, std=(0.5,) * 3, num_frames=None)
views = Counting(open_recognition(sys.argv[1]), get_view_protocol("image/resize"), **options)
with start_world("cpu"):
    known = {}
    for _ in range(2):  # the second time everything is known
        frozen = freeze_features(model.eval(), views, torch.device("cpu"), known)
print(json.dumps({"read": views.read, "features": frozen.values.tolist()}))
"""


def evaluate(ranks: int, code: str = SHARED, *arguments: str) -> list[dict]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in range(ranks):
        place = {"WORLD_SIZE": str(ranks), "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        env = {**os.environ, **place, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", code, *arguments]
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
    return [json.loads(process.communicate(timeout=100)[0]) for process in started]


def test_two_processes_share_the_items_and_know_all_results() -> None:
    (alone,) = evaluate(1)
    first, second = evaluate(2)
    assert [alone["own"], first["own"], second["own"]] == [7, 4, 3]
    assert first["scores"] == second["scores"]  # bit by bit: ranks decide by it what to keep
    assert first["scores"]["num_samples"] == 7
    assert {k: round(v, 9) for k, v in first["scores"].items()} == {
        k: round(v, 9) for k, v in alone["scores"].items()
    }
    assert first["everywhere"] == second["everywhere"] == [4, 3]


def test_an_error_of_one_process_is_one_of_all() -> None:
    (alone,) = evaluate(1)
    first, second = evaluate(2)
    told = "OSError: the disk is full"
    assert alone["failed"] == [None, told, None]
    assert first["failed"] == [f"ValueError: process 1 of 2 failed ({told})", told, None]
    assert second["failed"] == [told, f"ValueError: process 0 of 2 failed ({told})", None]


def test_frozen_features_are_made_once(tmp_path: Path) -> None:
    data = str(write_recognition_lookalike("folders", tmp_path / "data", kind="image"))
    (alone,) = evaluate(1, FROZEN, data)
    first, second = evaluate(2, FROZEN, data)
    assert first["features"] == second["features"] == alone["features"]
    assert first["read"] + second["read"] == alone["read"] == len(alone["features"])
    assert abs(first["read"] - second["read"]) <= 1


def test_one_process_looks_at_everything() -> None:
    metrics = RecognitionMetrics(num_classes=2)
    assert list(own_items(3)) == [0, 1, 2]
    assert merge_over_ranks(metrics, lambda: RecognitionMetrics(num_classes=2)) is metrics
    assert gather_over_ranks("x") == ["x"]
