"""The selective scan gives the numbers of the released one, gradients included."""

from __future__ import annotations

import pytest
import torch
from golden import Fixture, fixtures, require
from torch import Tensor
from torch.testing import assert_close

from framecast.ops import native_library
from framecast.ops.selective_scan import selective_scan

SCANS = [
    case
    for case in fixtures("videomamba")
    if case.values[0] is None or case.values[0].kind == "selective_scan"
]


def channels_last(name: str, x: Tensor) -> Tensor:
    """The release has (B, D, L), and (B, N, L) or (B, G, N, L) for B and C."""
    if name in ("B", "C"):
        x = x.unsqueeze(1) if x.dim() == 3 else x
        return x.permute(0, 3, 1, 2) if x.dim() == 4 else x
    return x.transpose(1, 2) if x.dim() == 3 else x


def compare(case: str, fixture: Fixture, impl: str, dtype: torch.dtype) -> None:
    expected, tolerance = fixture.part(f"{case}.out"), fixture.meta["tolerance"]
    inputs = {k: channels_last(k, x) for k, x in fixture.part(f"{case}.in").items()}
    grad_out = inputs.pop("grad_out").to(dtype)
    inputs = {k: x.to(dtype).requires_grad_() for k, x in inputs.items()}
    softplus = fixture.meta["cases"][case]["delta_softplus"]
    y, state = selective_scan(**inputs, delta_softplus=softplus, return_state=True, impl=impl)
    suffix = "_float64" if dtype == torch.float64 else ""

    def near(found: Tensor, wanted: Tensor, relative: float) -> None:
        relative = relative if dtype == torch.float32 or wanted.dtype == torch.float32 else 1e-12
        largest = float(wanted.abs().max())
        assert_close(found.to(wanted.dtype), wanted, rtol=0, atol=relative * largest)

    near(y, channels_last("y", expected["y" + suffix]), tolerance["y_rel_to_tensor_max"])
    near(state, expected["last_state" + suffix], tolerance["last_state_rel_to_tensor_max"])
    gradients = torch.autograd.grad((y * grad_out).sum(), list(inputs.values()))
    for name, gradient in zip(inputs, gradients, strict=True):
        wanted = channels_last(name, fixture.part(f"{case}.grad")[name])
        near(gradient, wanted, tolerance["grad_rel_to_tensor_max"])


@pytest.mark.parametrize("impl", ["reference", "chunked", "native"])
@pytest.mark.parametrize("fixture", SCANS)
def test_selective_scan(fixture: Fixture | None, impl: str) -> None:
    fixture = require(fixture)
    if impl == "native" and native_library.load()[0] is None:
        pytest.skip("no native kernels")
    for case in fixture.meta["cases"]:
        compare(case, fixture, impl, torch.float32)
        if impl != "native":
            compare(case, fixture, impl, torch.float64)
