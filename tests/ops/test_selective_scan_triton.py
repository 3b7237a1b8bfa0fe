"""The Triton kernels of the scan: run by Triton's interpreter on the CPU, and compiled for a GPU without one.

Triton reads TRITON_INTERPRET when it is loaded, so everything happens in processes of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")

# batch, steps, channels, states, groups; then what is there
SIZES = {
    "one_step": (2, 1, 3, 4, 1),
    "odd": (2, 19, 6, 3, 1),
    "groups": (1, 9, 40, 4, 2),
    "tile": (1, 8, 5, 16, 1),
}
CASES: dict[str, dict[str, Any]] = {
    "bare": {"size": "odd"},
    "full": {"size": "odd", "D": True, "z": True, "bias": True, "softplus": True, "initial": True},
    "reverse": {"size": "odd", "D": True, "z": True, "softplus": True, "initial": True, "reverse": True},
    "one_step": {"size": "one_step", "D": True, "z": True, "bias": True, "softplus": True},
    "groups": {"size": "groups", "z": True, "bias": True},
    "fixed_B": {"size": "tile", "fixed_B": True, "softplus": True, "bias": True},
    "fixed_C": {"size": "odd", "fixed_C": True, "D": True, "reverse": True},
    "both_fixed": {"size": "odd", "fixed_B": True, "fixed_C": True, "z": True},
    "stiff": {"size": "odd", "stiff": True, "softplus": True, "z": True, "D": True},
    "both_directions": {"size": "odd", "both": True, "D": True, "z": True, "bias": True, "softplus": True},
    "both_bare": {"size": "groups", "both": True},
    "bfloat16": {"size": "odd", "both": True, "D": True, "z": True, "softplus": True, "half": True},
}

RUN = """
import json, sys, torch
from framecast.ops import selective_scan_triton
from framecast.ops.selective_scan import bidirectional_scan, selective_scan

torch.set_num_threads(1)
selective_scan_triton.TILE, selective_scan_triton.INNER = 4, 2  # several tiles in short sequences
SIZES, CASES = json.loads(sys.argv[1])

def arguments(case):
    torch.manual_seed(0)
    batch, steps, channels, states, groups = SIZES[case["size"]]
    ahead = (2,) if case.get("both") else ()
    u, delta = torch.randn(2, *ahead, batch, steps, channels)
    delta = delta * (50 if case.get("stiff") else 1) if case.get("softplus") else delta.abs()
    A = -torch.rand(*ahead, channels, states) * (100 if case.get("stiff") else 2)
    fixed, moving = (*ahead, channels, states), (*ahead, batch, steps, groups, states)
    B, C = (torch.randn(fixed if case.get(f"fixed_{name}") else moving) for name in "BC")
    D, bias = (torch.randn(*ahead, channels) if case.get(name) else None for name in ("D", "bias"))
    z = torch.randn(batch, steps, 2 * channels)[..., channels:] if case.get("z") else None
    initial = torch.randn(batch, channels, states) if case.get("initial") else None
    return [u, delta, A, B, C, D, z, bias, initial]

def run(case, given, impl):
    u, delta, A, B, C, D, z, bias, initial = given
    options = dict(delta_bias=bias, delta_softplus=case.get("softplus", False), impl=impl)
    if case.get("both"):
        return [bidirectional_scan(u, delta, A, B, C, D, z, **options)]
    options |= dict(initial_state=initial, reverse=case.get("reverse", False), return_state=True)
    return list(selective_scan(u, delta, A, B, C, D, z, **options))

def distance(ours, exact):
    return float((ours.double() - exact).abs().max() / exact.abs().max().clamp(min=1e-9))

for name, case in CASES.items():
    given = arguments(case)
    if case.get("half"):
        given = [x.bfloat16() if i in (0, 1, 3, 4, 6) else x for i, x in enumerate(given)]
    exact = [None if x is None else x.detach().double().requires_grad_() for x in given]
    given = [None if x is None else x.detach().requires_grad_() for x in given]
    wanted, found = run(case, exact, "reference"), run(case, given, "triton")
    errors = {"y": distance(found[0], wanted[0])}
    if len(found) > 1:
        errors["last"] = distance(found[1], wanted[1])
    with torch.no_grad():
        again = run(case, given, "triton")
    assert all(map(torch.equal, again, found))
    weights = [torch.randn_like(x) for x in found]
    leaves = [i for i, x in enumerate(given) if x is not None]
    ours = torch.autograd.grad(found, [given[i] for i in leaves], weights)
    theirs = torch.autograd.grad(wanted, [exact[i] for i in leaves], [w.double() for w in weights])
    names = ("u", "delta", "A", "B", "C", "D", "z", "bias", "initial")
    for i, one, other in zip(leaves, ours, theirs, strict=True):
        assert one.dtype == given[i].dtype and one.shape == given[i].shape
        errors["grad " + names[i]] = distance(one, other)
    print(json.dumps({"name": name, "errors": errors}), flush=True)
"""


def python(code: str, *arguments: str, **environment: str) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, float]]:
    """Distances from the reference in double precision, relative to its largest number."""
    told = python(RUN, json.dumps([SIZES, CASES]), TRITON_INTERPRET="1")
    rows = [json.loads(line) for line in told.splitlines()]
    return {row["name"]: row["errors"] for row in rows}


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_kernels_equal_the_reference_with_gradients(errors: dict[str, dict[str, float]], name: str) -> None:
    case, found = CASES[name], errors[name]
    given = {"u", "delta", "A", "B", "C"} | {key for key in ("D", "z", "bias", "initial") if case.get(key)}
    assert {f"grad {key}" for key in given} == {key for key in found if key.startswith("grad")}
    rounded = {"y", "grad u", "grad delta", "grad B", "grad C", "grad z"} if case.get("half") else set()
    for what, error in found.items():
        assert error < (0.01 if what in rounded else 3e-6), f"{what} is {error:.1e} away"


COMPILE = """
import inspect
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from framecast.ops import selective_scan_triton_kernels as kernels

FLOAT32 = "ends totals pulls kept A bias D start last partial inner grad_B grad_C grad_D grad_bias".split()
HALF = "u delta B C z y grad grad_u grad_delta grad_z".split()
CONSTANTS = dict(SOFTPLUS=True, BIASED=True, SKIP=True, GATED=True, STARTED=True, FIXED_B=False,
                 REVERSE=False, DIRECTIONS=2, TILE=4, INNER=2, CHANNELS=32, STATES=16)
for fixed_C in (False, True):
    constants = {**CONSTANTS, "FIXED_C": fixed_C}
    for name in ("ends", "pulls", "carry", "answers", "gradients"):
        kernel = getattr(kernels, name)
        signature, values = {}, {}
        for i, key in enumerate(inspect.signature(kernel.fn).parameters):
            if key in constants:
                signature[key], values[(i,)] = "constexpr", constants[key]
            else:
                signature[key] = "*fp32" if key in FLOAT32 else "*bf16" if key in HALF else "i32"
        made = triton.compile(ASTSource(kernel, signature, values), target=GPUTarget("cuda", 90, 32))
        print(name, len(made.asm["cubin"]))
"""


@needs_triton
@pytest.mark.slow
def test_kernels_compile_for_a_gpu() -> None:
    """The interpreter takes what the compiler refuses."""
    told = python(COMPILE, TRITON_INTERPRET="0")
    assert len(told.splitlines()) == 10
    assert all(int(line.split()[1]) > 1000 for line in told.splitlines())


CPU_USE = """
import logging, sys, torch
sys.modules["triton"] = None  # whoever imports it finds that it is not installed
logging.disable()  # torch's FLOP counter says that it misses it
import framecast
from framecast.ops.selective_scan import selective_scan
u, B = torch.randn(1, 5, 4, requires_grad=True), torch.randn(1, 5, 1, 3)
selective_scan(u, u.detach().abs(), -torch.rand(4, 3), B, B).sum().backward()
assert "framecast.ops.selective_scan_triton" not in sys.modules
try:
    selective_scan(u, u, -torch.rand(4, 3), B, B, impl="triton")
except RuntimeError as error:
    print(error)
"""


def test_the_cpu_does_without_triton() -> None:
    told = python(CPU_USE, TRITON_INTERPRET="0")
    assert told == "the Triton selective scan was asked for, but u is on the cpu; move it to a GPU\n"
