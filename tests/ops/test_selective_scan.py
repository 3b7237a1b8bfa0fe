"""The selective scan: all implementations against the readable loop in double precision, gradients too."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from framecast.ops import native_library, selective_scan_op
from framecast.ops.selective_scan import bidirectional_scan, selective_scan, selective_scan_step


def make(
    batch: int = 2,
    steps: int = 60,
    channels: int = 6,
    states: int = 5,
    groups: int = 2,
    *,
    ahead: tuple[int, ...] = (),
    optional: bool = True,
    fixed: str = "",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """Arguments of a scan, those that may be missing only if `optional`."""

    def random(*shape: int, ahead: tuple[int, ...] = ahead) -> Tensor:
        return torch.randn(*ahead, *shape, dtype=dtype)

    moving, constant = (batch, steps, groups, states), (channels, states)
    return {
        "u": random(batch, steps, channels),
        "delta": random(batch, steps, channels) if optional else random(batch, steps, channels).abs() / 4,
        "A": -random(channels, states).exp(),
        "B": random(*(constant if "B" in fixed else moving)),
        "C": random(*(constant if "C" in fixed else moving)),
        "D": random(channels) if optional else None,
        "z": random(batch, steps, channels, ahead=()) if optional else None,
        "delta_bias": random(channels) - 1 if optional else None,
        "delta_softplus": optional,
    }


def tensors(arguments: dict[str, Any]) -> dict[str, Tensor]:
    return {name: x for name, x in arguments.items() if isinstance(x, Tensor)}


def changed(arguments: dict[str, Any], change: Any) -> dict[str, Any]:
    return {name: change(x) if isinstance(x, Tensor) else x for name, x in arguments.items()}


def answers(scan: Any, arguments: dict[str, Any], impl: str, **more: Any) -> dict[str, Tensor]:
    """What a scan gives, and the gradients of a sum whose weights do not depend on the implementation."""
    given = changed(arguments, lambda x: x.detach().clone().requires_grad_())
    y = scan(**given, impl=impl, **more)
    y, state = y if isinstance(y, tuple) else (y, None)
    total = (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)).sum()
    if state is not None:
        total = total + (state * torch.linspace(-2, 1, state.numel(), dtype=state.dtype).view_as(state)).sum()
    inputs = tensors(given)
    gradients = torch.autograd.grad(total, list(inputs.values()))
    found = {"y": y.detach()} | ({} if state is None else {"state": state.detach()})
    return found | dict(zip(inputs, gradients, strict=True))


def agree(
    found: dict[str, Tensor], exact: dict[str, Tensor], relative: float, gradients: float, least: float = 0.0
) -> None:
    """Errors relative to a tensor's largest number; `least` where few numbers may cancel to nothing."""
    assert found.keys() == exact.keys()
    for name, x in found.items():
        limit = relative if name in ("y", "state") else gradients
        largest = max(float(exact[name].abs().max()), least)
        assert_close(
            x.double(), exact[name], rtol=0, atol=limit * largest, msg=lambda m, name=name: f"{name}: {m}"
        )


KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "bare": {"optional": False},
    "one_group": {"groups": 1},
    "a_group_per_channel": {"groups": 6},
    "one_step": {"steps": 1},
    "a_chunk": {"steps": 48},
    "wide": {"channels": 50, "groups": 1, "states": 16},
    "many_blocks": {"channels": 300, "groups": 2, "states": 4, "steps": 100, "batch": 1},
    "one_state": {"states": 1},
    "fixed_B": {"fixed": "B"},
    "fixed_C": {"fixed": "C"},
    "both_fixed": {"fixed": "BC"},
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_kernels_equal_the_definition(kernels: str, kind: str, reverse: bool) -> None:
    arguments = make(**KINDS[kind])
    batch, _, channels = arguments["u"].shape
    arguments["initial_state"] = torch.randn(batch, channels, arguments["A"].shape[1])
    how = {"reverse": reverse, "return_state": True}
    exact = answers(selective_scan, changed(arguments, Tensor.double), "reference", **how)
    agree(answers(selective_scan, arguments, "native", **how), exact, 5e-7, 2e-6)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_equal_the_definition(kind: str, reverse: bool) -> None:
    arguments = make(**KINDS[kind], dtype=torch.float64)
    batch, _, channels = arguments["u"].shape
    arguments["initial_state"] = torch.randn(batch, channels, arguments["A"].shape[1], dtype=torch.float64)
    how = {"reverse": reverse, "return_state": True}
    exact = answers(selective_scan, arguments, "reference", **how)
    agree(answers(selective_scan, arguments, "chunked", **how), exact, 1e-13, 1e-12)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_scans(data: st.DataObject) -> None:
    """Any shapes, from gentle to violent delta A, on the kernels of this machine and in chunks."""
    groups = data.draw(st.integers(1, 3))
    arguments = make(
        batch=data.draw(st.integers(1, 3)),
        steps=data.draw(st.one_of(st.integers(1, 5), st.sampled_from([47, 49, 53, 97, 131]))),
        channels=groups * data.draw(st.integers(1, 20)),
        states=data.draw(st.integers(1, 18)),
        groups=groups,
        optional=data.draw(st.booleans()),
        fixed=data.draw(st.sampled_from(["", "", "B", "C", "BC"])),
    )
    arguments["delta"] *= data.draw(st.sampled_from([1e-3, 1.0, 30.0]))
    arguments["A"] *= data.draw(st.sampled_from([1e-3, 1.0, 30.0]))
    how = {"reverse": data.draw(st.booleans()), "return_state": True}
    exact = answers(selective_scan, changed(arguments, Tensor.double), "reference", **how)
    for impl in ("chunked", "native") if native_library.load()[0] else ("chunked",):
        agree(answers(selective_scan, arguments, impl, **how), exact, 2e-6, 1e-5, least=0.1)


@pytest.mark.parametrize("steep", [1.0, 100.0])
@pytest.mark.parametrize("delta", [1e-4, 1.0, 50.0, 100.0])
@pytest.mark.parametrize("impl", ["chunked", "native"])
def test_stiff_inputs_overflow_nothing(kernels: str, impl: str, delta: float, steep: float) -> None:
    arguments = make(1, 300, 32, 16, 1, optional=False)
    arguments["delta"] = delta * torch.rand(1, 300, 32)
    arguments["A"] = -steep * torch.rand(32, 16)
    exact = answers(selective_scan, changed(arguments, Tensor.double), "reference")
    agree(answers(selective_scan, arguments, impl), exact, 1e-6, 2e-6)


@pytest.mark.parametrize("bias", [-8.0, -3.0, 0.0, 3.0])
def test_kernels_are_as_exact_as_float32_can_be(kernels: str, bias: float) -> None:
    """Errors may not add up over the long life of slow states: 1.5e-7 of the answer, as the goal says."""
    arguments = make(1, 1000, 64, 16, 1)
    arguments["delta_bias"] = arguments["delta_bias"] + bias
    arguments["A"] = -torch.arange(1.0, 17.0).repeat(64, 1)
    exact = selective_scan(**changed(arguments, Tensor.double))
    y = selective_scan(**arguments, impl="native")
    assert float((y - exact).norm() / exact.norm()) < 1.5e-7


@pytest.mark.parametrize("steps", [5003, 20_000])
@pytest.mark.parametrize("impl", ["chunked", "native"])
def test_long_sequences(kernels: str, impl: str, steps: int) -> None:
    arguments = make(1, steps, 8, 4, 1)
    exact = selective_scan(**changed(arguments, Tensor.double), impl="chunked")
    y = selective_scan(**arguments, impl=impl)
    assert_close(y.double(), exact, rtol=0, atol=1e-6 * float(exact.abs().max()))


def test_growing_states_and_not_a_number(kernels: str) -> None:
    arguments = make(1, 60, 40, 4, 1, optional=False)
    arguments["A"][3] = 2.0  # grows
    arguments["delta"][0, 50, 17] = torch.nan
    y = selective_scan(**arguments, impl="native")
    exact = selective_scan(**changed(arguments, Tensor.double), impl="reference")
    assert torch.equal(y.isnan(), exact.isnan())
    assert y[0, 50:, 17].isnan().all()
    there = ~exact.isnan()
    assert_close(y[there].double(), exact[there], rtol=1e-4, atol=1e-4)


def test_chunks_gradients_in_double_precision() -> None:
    arguments = make(2, 5, 4, 3, 2, dtype=torch.float64)
    arguments["initial_state"] = torch.randn(2, 4, 3, dtype=torch.float64)
    names = list(tensors(arguments))

    def scan(*values: Tensor, **how: Any) -> Any:
        given = {**arguments, **dict(zip(names, values, strict=True))}
        return selective_scan(**given, return_state=True, **how)

    inputs = [arguments[name].requires_grad_() for name in names]
    assert torch.autograd.gradcheck(scan, inputs)
    assert torch.autograd.gradcheck(lambda *x: scan(*x, reverse=True), inputs)


def test_both_directions_gradients_in_double_precision() -> None:
    arguments = make(1, 5, 4, 2, 1, ahead=(2,), dtype=torch.float64)
    names = list(tensors(arguments))
    inputs = [arguments[name].requires_grad_() for name in names]
    assert torch.autograd.gradcheck(
        lambda *x: bidirectional_scan(**{**arguments, **dict(zip(names, x, strict=True))}), inputs
    )


def test_reverse_is_the_scan_of_the_flipped_sequence(kernels: str) -> None:
    arguments = make(steps=101)
    along = ("u", "delta", "B", "C", "z")
    flipped = {name: x.flip(1) if name in along else x for name, x in arguments.items()}
    for impl in ("reference", "chunked", "native"):
        y, state = selective_scan(**arguments, reverse=True, return_state=True, impl=impl)
        other, other_state = selective_scan(**flipped, return_state=True, impl=impl)
        assert_close(y, other.flip(1), rtol=0, atol=1e-6)
        assert_close(state, other_state, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fixed", ["", "BC"])
@pytest.mark.parametrize("optional", [True, False])
def test_both_directions_are_one_of_each(kernels: str, optional: bool, fixed: str) -> None:
    arguments = make(2, 70, 40, 16, 2, ahead=(2,), optional=optional, fixed=fixed)
    exact = answers(bidirectional_scan, changed(arguments, Tensor.double), "reference")
    double = changed(arguments, Tensor.double)
    z = double.pop("z")
    parts = [
        selective_scan(
            **{name: x[i] if isinstance(x, Tensor) else x for name, x in double.items()},
            reverse=i == 1,
            impl="reference",
        )
        for i in range(2)
    ]
    summed = parts[0] + parts[1]
    assert_close(exact["y"], summed if z is None else summed * nn.functional.silu(z))
    for impl in ("chunked", "native"):
        agree(answers(bidirectional_scan, arguments, impl), exact, 1e-6, 3e-6)


@pytest.mark.parametrize("impl", ["reference", "chunked", "native"])
def test_a_sequence_in_pieces_gives_the_whole(kernels: str, impl: str) -> None:
    arguments = make(steps=120)
    whole, last = selective_scan(**arguments, return_state=True, impl=impl)
    pieces, state = [], None
    for first, stop in ((0, 1), (1, 50), (50, 98), (98, 120)):
        along = ("u", "delta", "B", "C", "z")
        part = {name: x[:, first:stop] if name in along else x for name, x in arguments.items()}
        y, state = selective_scan(**part, initial_state=state, return_state=True, impl=impl)
        pieces.append(y)
    assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-5, atol=1e-6)
    assert_close(state, last, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_of_the_scan(kind: str) -> None:
    arguments = make(**KINDS[kind], dtype=torch.float64)
    y, last = selective_scan(**arguments, return_state=True, impl="reference")
    batch, steps, channels = arguments["u"].shape
    state = torch.zeros(batch, channels, arguments["A"].shape[1], dtype=torch.float64)
    for i in range(steps):
        along = [
            k for k in ("u", "delta", "B", "C", "z") if arguments[k] is not None and arguments[k].dim() > 2
        ]
        now = {name: x[:, i] if name in along else x for name, x in arguments.items()}
        answer, state = selective_scan_step(state, **now)
        assert_close(answer, y[:, i])
    assert_close(state, last)


def test_slices_of_a_projection_need_no_copy(kernels: str) -> None:
    """Rows may lie anywhere: in x_proj's output, beside other channels, in a transposed tensor."""
    arguments = make(2, 60, 40, 16, 1)
    whole = torch.cat([arguments["B"][:, :, 0], arguments["C"][:, :, 0], torch.randn(2, 60, 3)], dim=-1)
    wide = torch.cat([arguments["u"], arguments["z"]], dim=-1)
    parts = {
        "B": whole[..., None, :16],
        "C": whole[..., None, 16:32],
        "u": wide[..., :40],
        "z": wide[..., 40:],
        "delta": arguments["delta"].transpose(1, 2).contiguous().transpose(1, 2),
    }
    expected = answers(selective_scan, arguments, "native")
    found = answers_of_views(arguments | parts)
    assert torch.equal(found, expected["y"])


def answers_of_views(arguments: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        return selective_scan(**arguments, impl="native")


def test_threads_give_the_same_bits(kernels: str, two_threads: None) -> None:
    arguments = make(2, 1000, 300, 16, 1, ahead=(2,))
    shared = answers(bidirectional_scan, arguments, "native")
    torch.set_num_threads(1)
    alone = answers(bidirectional_scan, arguments, "native")
    assert all(torch.equal(shared[name], alone[name]) for name in shared)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("impl", ["reference", "chunked", "native"])
def test_half_precision_in_float32(kernels: str, impl: str, dtype: torch.dtype) -> None:
    """Halves come in and go out; in between nothing is rounded to them."""
    arguments = changed(make(steps=200), lambda x: x.to(dtype))
    exact = answers(selective_scan, changed(arguments, Tensor.double), "reference", return_state=True)
    found = answers(selective_scan, arguments, impl, return_state=True)
    assert found["state"].dtype == torch.float32
    assert_close(found["state"].double(), exact["state"], rtol=1e-5, atol=1e-5)
    for name in ("y", *tensors(arguments)):
        assert found[name].dtype == dtype
        assert_close(
            found[name], exact[name].to(dtype), rtol=0.02, atol=0.01 * float(exact[name].abs().max())
        )


@pytest.mark.parametrize("impl", ["reference", "chunked", "native"])
def test_autocast_changes_nothing_inside(kernels: str, impl: str) -> None:
    arguments = make(steps=100)
    expected = selective_scan(**arguments, impl=impl)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(selective_scan(**arguments, impl=impl), expected)
        gradients = answers(selective_scan, arguments, impl)
    found = answers(selective_scan, arguments, impl)
    assert all(torch.equal(gradients[name], found[name]) for name in found)


@pytest.fixture(params=["native", "chunked"])
def both(request: pytest.FixtureRequest) -> str:
    if request.param == "native" and native_library.load()[0] is None:
        pytest.skip("no native kernels")
    return request.param


def test_the_operator_keeps_torchs_rules(both: str) -> None:
    """Schema, fake kernel, autograd and compilation, as torch itself checks them."""
    for kind in ("full", "bare", "fixed_B"):
        a = changed(make(**KINDS[kind]), lambda x: x.requires_grad_())
        ahead = [None if a[k] is None else a[k][None] for k in ("u", "delta", "A", "B", "C", "D")]
        bias = None if a["delta_bias"] is None else a["delta_bias"][None]
        arguments = (*ahead, a["z"], bias, None, a["delta_softplus"], False, True, both)
        torch.library.opcheck(selective_scan_op.operator, arguments)


class Mixer(nn.Module):
    def __init__(self, impl: str) -> None:
        super().__init__()
        self.impl = impl
        self.A_log, self.D = nn.Parameter(torch.rand(2, 8, 4)), nn.Parameter(torch.ones(2, 8))

    def forward(self, u: Tensor, delta: Tensor, B: Tensor, C: Tensor, z: Tensor) -> Tensor:
        A = -self.A_log.exp()
        return bidirectional_scan(u, delta, A, B, C, self.D, z, delta_softplus=True, impl=self.impl)


def inputs_of_a_mixer(steps: int) -> tuple[Tensor, ...]:
    u, delta = torch.randn(2, 2, 1, steps, 8)
    B, C = torch.randn(2, 2, 1, steps, 1, 4)
    return u, delta, B, C, torch.randn(1, steps, 8)


def test_compiled(both: str) -> None:
    mixer, inputs = Mixer(both), inputs_of_a_mixer(60)
    compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")
    expected, found = mixer(*inputs), compiled(*inputs)
    assert torch.equal(found, expected)
    gradients = [torch.autograd.grad(y.square().sum(), list(mixer.parameters())) for y in (found, expected)]
    assert all(map(torch.equal, *gradients))
    with torch.no_grad():
        assert torch.equal(compiled(*inputs), mixer(*inputs))


def test_exported_for_any_length(both: str) -> None:
    mixer = Mixer(both).eval()
    steps = torch.export.Dim("steps", min=2, max=1000)
    shapes = [{2: steps}] * 4 + [{1: steps}]
    exported = torch.export.export(mixer, inputs_of_a_mixer(60), dynamic_shapes=shapes).module()
    for length in (60, 131):
        inputs = inputs_of_a_mixer(length)
        assert_close(exported(*inputs), mixer(*inputs))


def test_operations_are_counted() -> None:
    arguments = make(2, 60, 6, 5, 1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        selective_scan(**arguments)
    assert counter.get_total_flops() == 2 * 60 * 6 * (9 * 5 + 3)


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(native_library, "PATH", tmp_path / "library.so")
    monkeypatch.setenv("FRAMECAST_NATIVE", "1")
    caches = (native_library.load, selective_scan_op._say_once)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def test_without_kernels_chunks_run_and_it_is_said_once(unbuilt: None) -> None:
    arguments = make()
    expected = selective_scan(**arguments, impl="chunked")
    with pytest.warns(RuntimeWarning, match="not built"):
        assert torch.equal(selective_scan(**arguments), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        selective_scan(**arguments)
    with pytest.raises(RuntimeError, match="not built"):
        selective_scan(**arguments, impl="native")


def test_double_precision_does_not_go_to_the_kernels() -> None:
    arguments = make(dtype=torch.float64)
    assert selective_scan(**arguments).dtype == torch.float64
    with pytest.raises(RuntimeError, match="float64"):
        selective_scan(**arguments, impl="native")


WRONG = {
    "u": (torch.randn(60, 6), r"u has shape \(60, 6\)"),
    "delta": (torch.randn(2, 59, 6), r"delta has shape \(2, 59, 6\).*\(2, 60, 6\)"),
    "A": (torch.randn(5, 6), r"A has shape \(5, 6\)"),
    "B": (torch.randn(2, 60, 2, 4), r"B has shape"),
    "C": (torch.randn(2, 60, 4, 5), "equal groups"),
    "D": (torch.randn(5), r"D has shape \(5,\)"),
    "z": (torch.randn(1, 60, 6), r"z has shape"),
    "delta_bias": (torch.randn(6, 1), "delta_bias has shape"),
    "initial_state": (torch.randn(2, 5, 6), "initial_state has shape"),
}


@pytest.mark.parametrize("name", WRONG)
def test_shapes_that_do_not_fit_are_named(name: str) -> None:
    value, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        selective_scan(**(make() | {name: value}))


def test_nothing_in_nothing_out(both: str) -> None:
    for sizes in ({"steps": 0}, {"batch": 0}):
        y, state = selective_scan(**make(**sizes), return_state=True, impl=both)
        assert y.numel() == 0
        assert not state.any()
