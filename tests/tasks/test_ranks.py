"""An evaluation on two processes gives what one process gives, the same to the last digit on both."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

from framecast.metrics.recognition import RecognitionMetrics
from framecast.tasks.ranks import gather_over_ranks, merge_over_ranks, own_items

SHARED = """
import json, sys
import numpy as np
from framecast.metrics.recognition import RecognitionMetrics
from framecast.tasks.ranks import gather_over_ranks, merge_over_ranks, own_items
from framecast.train.distributed import start_world

def evaluate():
    metrics = RecognitionMetrics(num_classes=3)
    for i in own_items(7):
        p = np.random.default_rng(i).dirichlet(np.ones(3))
        metrics.update(p, i % 3, source=f"clip {i}")
    own = len(metrics)
    merged = merge_over_ranks(metrics, lambda: RecognitionMetrics(num_classes=3))
    return {"own": own, "scores": merged.compute(), "everywhere": gather_over_ranks(own)}

with start_world("cpu"):
    print(json.dumps(evaluate()))
"""


def evaluate(ranks: int) -> list[dict]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in range(ranks):
        place = {"WORLD_SIZE": str(ranks), "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        env = {**os.environ, **place, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", SHARED]
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


def test_one_process_looks_at_everything() -> None:
    metrics = RecognitionMetrics(num_classes=2)
    assert list(own_items(3)) == [0, 1, 2]
    assert merge_over_ranks(metrics, lambda: RecognitionMetrics(num_classes=2)) is metrics
    assert gather_over_ranks("x") == ["x"]
