"""The selective scan on a CPU: against its exponentials alone, the loop over steps, and mamba.py's scan.

    python benchmarks/selective_scan.py [--quick] [--json FILE]

CPU time of one thread, median of paired rounds, each size in a fresh process; extra peak memory of one call
likewise. 16 states, softplus, D and the gate always. "Exponentials" are as many of them as the scan has
state updates, by the kernels' own 2^x over numbers that stay in cache: what no kernel can beat. "Loop" is the
release's PyTorch path. mamba.py takes part where it is installed (pip install mambapy).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from pairing import in_fresh_process, paired_times, peak_memory, ratio, report, reset_peak_memory, row
from torch import Tensor

from framecast.ops import native_library
from framecast.ops.selective_scan import selective_scan

STATES = 16
Size = tuple[int, int, int]  # batch, channels, steps
QUICK: list[Size] = [(1, 384, 197), (1, 768, 1569)]
FORWARD: list[Size] = [
    *((1, 384, 197), (8, 384, 197), (1, 384, 1569), (1, 768, 1569), (1, 1152, 1569)),
    *((8, 384, 1569), (1, 768, 3137), (1, 384, 12545)),
]
TRAINING: list[Size] = [(1, 384, 197), (1, 384, 788), (1, 384, 1569)]
FLOOR_GOALS = {(1, 768, 1569): "<= 2.0", (1, 768, 3137): "<= 2.0"}
LOOP_GOALS = {(1, 768, 1569): ">= 75", (1, 768, 3137): ">= 75", (8, 384, 1569): ">= 60"}
FORWARD_ERROR, GRADIENT_ERROR = "<= 1.5e-7", "<= 1e-6"  # of the norm, against float64


def make(size: Size, delta: float = 0.0, steep: float = 0.0) -> dict[str, Any]:
    """Arguments like those of a Mamba block; delta and steep replace them by numbers up to that size."""
    batch, channels, steps = size
    torch.manual_seed(0)
    a: dict[str, Any] = {name: torch.randn(batch, steps, channels) for name in ("u", "delta", "z")}
    a["B"], a["C"] = torch.randn(2, batch, steps, 1, STATES)
    a["A"] = -torch.arange(1.0, 1.0 + STATES).repeat(channels, 1)
    a["D"], a["delta_bias"], a["delta_softplus"] = torch.randn(channels), torch.randn(channels) - 4, True
    if delta:
        a["delta"], a["delta_bias"] = delta * torch.rand(batch, steps, channels), None
    if steep:
        a["A"] = -steep * torch.rand(channels, STATES)
    return a


# The competitors --------------------------------------------------------------------------------------


def loop(a: dict[str, Any]) -> Tensor:  # all (B, D, L) or (B, N, L)
    """The release's path for machines without its CUDA kernel."""
    delta = F.softplus(a["delta"] + a["delta_bias"][:, None])
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, a["A"]))
    pushed = torch.einsum("bdl,bnl,bdl->bdln", delta, a["B"], a["u"])
    h, answers = a["u"].new_zeros(len(a["u"]), *a["A"].shape), []
    for step in range(a["u"].shape[2]):
        h = decay[:, :, step] * h + pushed[:, :, step]
        answers.append(torch.einsum("bdn,bn->bd", h, a["C"][:, :, step]))
    y = torch.stack(answers, dim=2) + a["D"][:, None] * a["u"]
    return y * F.silu(a["z"])


def parallel(a: dict[str, Any]) -> Tensor:  # (B, L, D), (B, L, N)
    """mamba.py's block around its parallel scan."""
    from mambapy.pscan import pscan  # ty: ignore[unresolved-import]

    delta = F.softplus(a["delta"] + a["delta_bias"])
    decay = torch.exp(delta.unsqueeze(-1) * a["A"])
    pushed = delta.unsqueeze(-1) * a["B"].unsqueeze(2) * a["u"].unsqueeze(-1)
    y = (pscan(decay, pushed) @ a["C"].unsqueeze(-1)).squeeze(3) + a["D"] * a["u"]
    return y * F.silu(a["z"])


def competitors(arguments: dict[str, Any]) -> dict[str, tuple[dict[str, Any], Callable[[], Tensor]]]:
    """Each one's own layout of the same numbers, and its call."""
    first = {k: x.transpose(1, 2).contiguous() for k, x in arguments.items() if k in ("u", "delta", "z")}
    narrow = {k: arguments[k].squeeze(2).contiguous() for k in ("B", "C")}
    channel_first = arguments | first | {k: x.transpose(1, 2).contiguous() for k, x in narrow.items()}
    found = {
        "native": (arguments, lambda: selective_scan(**arguments, impl="native")),
        "chunked": (arguments, lambda: selective_scan(**arguments, impl="chunked")),
        "loop": (channel_first, lambda: loop(channel_first)),
    }
    if find_spec("mambapy"):
        last = arguments | narrow
        found["mamba.py"] = (last, lambda: parallel(last))
    return found


def settled(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Times of each, ours after a few calls that are not counted: the first ones after those that fill
    hundreds of MB in thousands of pieces also tidy up their memory."""

    def settle() -> None:
        for _ in range(4):
            runs["native"]()

    return paired_times({"settling": settle} | runs, rounds)


def exponentials(updates: int) -> Callable[[], None]:
    # In one piece: two that lie anywhere can make a processor mistake the lines of one for the other's.
    x, out = torch.stack([-8 * torch.rand(1024), torch.empty(1024)])
    return lambda: native_library.call("exponentials", x.data_ptr(), out.data_ptr(), 1024, updates // 1024)


def same(found: Tensor, expected: Tensor, name: str) -> None:
    expected = expected.transpose(1, 2) if found.shape != expected.shape else expected
    error = float((found - expected).abs().max() / expected.abs().max())
    if not error < 1e-5:
        raise SystemExit(f"{name} differs by {error:.1e}; timing would mean nothing")


# What is measured -------------------------------------------------------------------------------------


@torch.no_grad()
def forward_rows(size: Size, rounds: int) -> list[dict]:
    arguments, updates = make(size), math.prod(size) * STATES
    runs = {name: run for name, (_, run) in competitors(arguments).items()}
    if updates > 50e6:
        runs.pop("mamba.py", None)  # gigabytes
    for name, run in runs.items():
        same(run(), selective_scan(**arguments, impl="reference"), name)
    what = "B={}, D={}, L={}".format(*size)
    floor = paired_times({"native": runs["native"], "exponentials": exponentials(updates)}, 8 * rounds)
    best = {name: min(values) for name, values in floor.items()}
    above = 1 / ratio(floor, "exponentials", "native")
    goal = FLOOR_GOALS.get(size, "")
    rows = [row(f"{what}, times the exponentials", best["native"], best["exponentials"], "ms", above, goal)]
    times = settled(runs, rounds)
    best = {name: min(values) for name, values in times.items()}
    for name in ("loop", "mamba.py"):
        if name in times:
            goal = LOOP_GOALS.get(size, "") if name == "loop" else ""
            faster = ratio(times, name, "native")
            title = f"{what}, times faster than {name}"
            rows.append(row(title, best["native"], best[name], "ms", faster, goal))
    goal = ">= 7" if size[2] >= 1569 and updates < 50e6 else ""
    title = f"{what}, chunked: times faster than loop"
    return [*rows, row(title, best["chunked"], best["loop"], "ms", ratio(times, "loop", "chunked"), goal)]


def training_rows(size: Size, rounds: int) -> list[dict]:
    runs = {}
    for name, (arguments, run) in competitors(make(size)).items():
        if name == "loop" and size[2] > 1000:
            continue  # two minutes a call
        runs[name] = gradients(arguments, run)
    times = settled(runs, rounds)
    best = {name: min(values) for name, values in times.items()}
    what = "training B={}, D={}, L={}".format(*size)
    rows = []
    for name in ("loop", "mamba.py", "chunked"):
        if name in times:
            goals = {("loop", 788): ">= 1000", ("mamba.py", 1569): ">= 120"}
            value, goal = ratio(times, name, "native"), goals.get((name, size[2]), "")
            title = f"{what}, times faster than {name}"
            rows.append(row(title, best["native"], best[name], "ms", value, goal))
    return rows


def gradients(arguments: dict[str, Any], run: Callable[[], Tensor]) -> Callable[[], Any]:
    """Forward and backward, from a gradient of the answer that is there already."""
    with torch.no_grad():
        grad = torch.randn_like(run())
    inputs = [x.requires_grad_() for x in arguments.values() if isinstance(x, Tensor)]
    return lambda: torch.autograd.grad(run(), inputs, grad)


def error_rows() -> list[dict]:
    """Norm of the error of float32 over that of the answer, for gentle and violent steps."""

    def answers(a: dict[str, Any], impl: str) -> list[Tensor]:
        given = {k: x.clone().requires_grad_() if isinstance(x, Tensor) else x for k, x in a.items()}
        y = selective_scan(**given, impl=impl)
        inputs = [x for x in given.values() if isinstance(x, Tensor)]
        return [y.detach(), *torch.autograd.grad((y * y.detach().sign()).sum(), inputs)]

    rows = []
    cases = {
        "": {},
        ", delta to 50": {"delta": 50.0},
        ", delta to 50, |A| to 100": {"delta": 50.0, "steep": 100.0},
    }
    for title, how in cases.items():
        arguments = make((1, 64, 1569), **how)
        exact = {k: x.double() if isinstance(x, Tensor) else x for k, x in arguments.items()}
        found, expected = answers(arguments, "native"), answers(exact, "chunked")
        errors = [float((x - y).norm() / y.norm()) for x, y in zip(found, expected, strict=True)]
        rows.append(row(f"error of the answer{title}", errors[0], 1.0, "", errors[0], FORWARD_ERROR))
        worst = max(errors[1:])
        rows.append(row(f"largest error of gradients{title}", worst, 1.0, "", worst, GRADIENT_ERROR))
    return rows


@torch.no_grad()
def thread_rows(size: Size, rounds: int) -> list[dict]:
    """Wall-clock time of one and of two threads; means something on an idle machine only."""
    arguments = make(size)
    best = {1: math.inf, 2: math.inf}
    for _ in range(rounds):
        for threads in best:
            torch.set_num_threads(threads)
            start = time.perf_counter()
            selective_scan(**arguments, impl="native")
            best[threads] = min(best[threads], 1e3 * (time.perf_counter() - start))
    title = "two threads B={}, D={}, L={}, times faster".format(*size)
    return [row(title, best[2], best[1], "ms", best[1] / best[2], ">= 1.7")]


def extra_memory(name: str, train: bool, size: Size) -> int:
    """Bytes that one call takes beyond its arguments, at its peak."""

    def call(size: Size) -> int:
        arguments, run = competitors(make(size))[name]
        run = gradients(arguments, run) if train else run
        with torch.set_grad_enabled(train):
            before = reset_peak_memory()
            run()
            return peak_memory() - before

    call((1, 64, 64))  # loads what is loaded once
    return call(size)


def memory_rows(train: bool, size: Size) -> list[dict]:
    names = ["native", "chunked"]
    if not train:
        names.append("loop")  # its gradients take minutes
    if find_spec("mambapy"):
        names.append("mamba.py")
    used = {name: max(alone("memory", name, int(train), *size) / 2**20, 0.1) for name in names}
    what = ("training " if train else "") + "B={}, D={}, L={}".format(*size)
    rows = []
    if not train:
        output = 4 * math.prod(size) / 2**20
        beyond = used["native"] - output
        title = f"memory {what}, MB beyond the output"
        rows.append(row(title, used["native"], output, "MB", beyond, "<= 4"))
    for name in names[1:]:
        goal = ">= 50" if train and name == "mamba.py" else ">= 35" if name == "loop" else ""
        title = f"memory {what}, times less than {name}"
        rows.append(row(title, used["native"], used[name], "MB", used[name] / used["native"], goal))
    return rows


def alone(part: str, *arguments: object) -> Any:
    """A part of the benchmark in a fresh process, since what malloc learns from one size changes the next."""
    return json.loads(in_fresh_process(__file__, "--part", part, *map(str, arguments)))


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--quick", action="store_true", help="two sizes, within a minute")
    parser.add_argument("--json", help="write the rows there")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if native_library.load()[0] is None:
        raise SystemExit(f"nothing to measure: native kernels are {native_library.load()[1]}")
    match arguments.part:
        case ["forward", rounds, *size]:
            return print(json.dumps(forward_rows(tuple(map(int, size)), int(rounds))))
        case ["training", rounds, *size]:
            return print(json.dumps(training_rows(tuple(map(int, size)), int(rounds))))
        case ["threads", rounds, *size]:
            return print(json.dumps(thread_rows(tuple(map(int, size)), int(rounds))))
        case ["memory", name, train, *size]:
            return print(extra_memory(name, bool(int(train)), tuple(map(int, size))))
    rows = []
    for size in QUICK if arguments.quick else FORWARD:
        rows += alone("forward", 3 if arguments.quick else 5 if math.prod(size) > 2e6 else 7, *size)
    for size in TRAINING[:1] if arguments.quick else TRAINING:
        rows += alone("training", 7 if size[2] < 500 else 5, *size)
    rows += error_rows()
    rows += alone("threads", 20 if arguments.quick else 60, 1, 768, 3137)
    rows += memory_rows(False, QUICK[-1] if arguments.quick else (1, 768, 3137))
    if not arguments.quick:
        rows += memory_rows(True, (1, 768, 1569))
    report(rows, arguments.json)


if __name__ == "__main__":
    main()
