"""Sampling futures with GTDA and MANTA: ours against the way the releases sample.

    python benchmarks/anticipation.py [--quick] [--json FILE] [--models gtda manta]

A Breakfast video of 2000 frames (T = 667 at every third), features of 2048 channels, 48 classes, 25 samples,
50 DDIM steps. The reference stands all samples in one batch, concatenates labels and features for every stage
of every step, keeps nothing between steps, and scans MANTA's frames in a Python loop. Both hold the same
random weights and start from the same noise; what comes out is compared.
CPU time of one thread. The full run walks all 50 steps once, of which the reference of MANTA takes half an
hour; --quick walks the first ones only and says so in the names of its rows. Extra peak memory is that of one
step in fresh processes.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
from pairing import in_fresh_process, paired_times, peak_memory, ratio, report, reset_peak_memory, row
from reference_anticipation import reference_gtda, reference_manta, reference_sampling
from torch import Tensor

import framecast as fc
from framecast.models.label_diffusion import sample
from framecast.nn.diffusion import sampling_times

FRAMES, SEEN, SAMPLES, STEPS = 667, 190, 25, 50
LARGEST_ERROR = 1e-5  # of the samples, relative to the largest number in them
SPEED_GOALS = {"gtda": 4.5, "manta": None}
TIMES = sampling_times(1000, STEPS)
REFERENCES = {"gtda": reference_gtda, "manta": reference_manta}


def build(name: str, **sizes: int) -> tuple[Any, Any]:
    """The reference and our model with its weights."""
    torch.manual_seed(0)
    reference = REFERENCES[name](**sizes).eval()
    return reference, fc.import_checkpoint(name, reference.state_dict())


def inputs(frames: int = FRAMES) -> tuple[Tensor, Tensor]:
    """Observation (1, D0, T), zero beyond the past, and noise (N, 1, C, T)."""
    torch.manual_seed(1)
    observed = torch.randn(1, 2048, frames) * (torch.arange(frames) < SEEN)
    return observed, torch.randn(SAMPLES, 1, 48, frames)


def ours(model: Any, observed: Tensor, noise: Tensor, steps: int) -> Tensor:
    """The walk's last x̂_0, (N, C, T); after all steps it is the sample."""
    return sample(model, observed, samples=len(noise), steps=TIMES[:steps], noise=noise)[:, 0]


def theirs(model: Any, observed: Tensor, noise: Tensor, steps: int) -> Tensor:
    return reference_sampling(model, observed.mT, noise[:, 0].mT, steps=STEPS, first=steps).mT


def seconds(run: Any) -> tuple[float, Tensor]:
    start = time.process_time()
    out = run()
    return time.process_time() - start, out


def walk_rows(name: str, steps: int) -> list[dict]:
    """Both samplers once over the first so many of 50 steps, preparation included."""
    reference, model = build(name)
    observed, noise = inputs()
    ours(model, observed, noise, 1)  # warm
    fast, answer = seconds(lambda: ours(model, observed, noise, steps))
    slow, expected = seconds(lambda: theirs(reference, observed, noise, steps))
    again, _ = seconds(lambda: ours(model, observed, noise, steps))
    fast = (fast + again) / 2  # before and after, as the machine's pace changes
    share = f"{STEPS} steps" if steps == STEPS else f"first {steps} of {STEPS}"
    title = f"{name.upper()}, {SAMPLES} samples x {share}"
    goal = SPEED_GOALS[name]
    rows = [row(f"{title}, times faster", fast, slow, "s", slow / fast, f">= {goal}" if goal else "")]
    error = float((answer - expected).abs().max() / expected.abs().max())
    same = float((answer.argmax(1) == expected.argmax(1)).double().mean())
    rows.append(row(f"{title}, relative error", error, 1.0, "", error, f"<= {LARGEST_ERROR}"))
    rows.append(row(f"{title}, share of same labels", same, 1.0, "", same))
    return rows


def layer_rows(rounds: int) -> list[dict]:
    """One step of a MANTA of 10 layers beside its reference and beside a step of our GTDA."""
    reference, ten = build("manta", num_layers=10)
    _, gtda = build("gtda")
    observed, noise = inputs()
    step = {"ours": ten, "gtda": gtda}
    times = paired_times(
        {key: lambda m=model: ours(m, observed, noise, 4) for key, model in step.items()}, rounds
    )
    times = {key: [value / 4 for value in values] for key, values in times.items()}
    slow = 1e3 * seconds(lambda: theirs(reference, observed, noise, 1))[0]
    best = {key: min(values) for key, values in times.items()}
    beside = ratio(times, "ours", "gtda")
    return [
        row("10 Mamba layers, a step, times faster", best["ours"], slow, "ms", slow / best["ours"], ">= 22"),
        row("10 Mamba layers, a step beside our GTDA", best["ours"], best["gtda"], "ms", beside, "<= 1.0"),
    ]


def extra_memory(who: str, name: str) -> int:
    """Bytes that one step of all samples takes beyond model, observation and noise, at its peak."""
    reference, model = build(name)
    run, held = (ours, model) if who == "ours" else (theirs, reference)
    run(held, *inputs(64), 1)
    observed, noise = inputs()
    before = reset_peak_memory()
    run(held, observed, noise, 1)
    return peak_memory() - before


def memory_rows(name: str) -> list[dict]:
    mine, reference = (alone("memory", who, name) / 2**20 for who in ("ours", "reference"))
    title = f"{name.upper()}, extra peak memory of a step, times less"
    goal = ">= 12" if name == "gtda" else ""
    return [row(title, mine, reference, "MB", reference / mine, goal)]


def alone(part: str, *arguments: object) -> Any:
    """A part of the benchmark in a fresh process."""
    return json.loads(in_fresh_process(__file__, "--part", part, *map(str, arguments)))


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--quick", action="store_true", help="the first steps only, in about a minute")
    parser.add_argument("--steps", type=int, help="so many first steps of 50, then compare")
    parser.add_argument("--json", help="write the rows there")
    parser.add_argument("--models", nargs="+", choices=list(REFERENCES), default=list(REFERENCES))
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    match arguments.part:
        case ["walk", name, steps]:
            return print(json.dumps(walk_rows(name, int(steps))))
        case ["layers", rounds]:
            return print(json.dumps(layer_rows(int(rounds))))
        case ["memory", who, name]:
            return print(extra_memory(who, name))
    rows = []
    for name in arguments.models:
        few = {"gtda": 3, "manta": 1}[name] if arguments.quick else STEPS
        rows += alone("walk", name, arguments.steps or few)
        if name == "manta":
            rows += alone("layers", 2 if arguments.quick else 5)
        rows += memory_rows(name)
    report(rows, arguments.json)


if __name__ == "__main__":
    main()
