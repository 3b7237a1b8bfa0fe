"""The depthwise causal convolution gives the numbers of VideoMamba's release, gradients included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import Fixture, fixtures, require
from torch.testing import assert_close

from framecast.ops.causal_conv1d import causal_conv1d


def of_this_kind() -> list[Any]:
    found = fixtures("videomamba")
    return [p for p in found if p.values[0] is None or p.values[0].kind == "causal_conv1d"]


@pytest.mark.parametrize("fixture", of_this_kind())
@pytest.mark.parametrize("impl", ["auto", "reference"])
def test_causal_conv1d(fixture: Fixture | None, impl: Any) -> None:
    fixture = require(fixture)
    cases = {name.partition(".")[0] for name in fixture.tensors}
    assert cases == set(fixture.meta["cases"])
    tolerance = fixture.meta["tolerance"]
    for case in sorted(cases):
        given, expected = fixture.part(f"{case}.in"), fixture.part(f"{case}.out")
        gradients = fixture.part(f"{case}.grad")
        x, weight = given["x"].mT.requires_grad_(), given["weight"].requires_grad_()
        bias = given["bias"].requires_grad_() if "bias" in given else None
        activation = "silu" if "silu" in fixture.meta["cases"][case] else None
        y = causal_conv1d(x, weight, bias, activation=activation, impl=impl)
        assert_close(y.mT, expected["y"], rtol=0, atol=tolerance["atol"])
        inputs = {"x": x, "weight": weight} | ({} if bias is None else {"bias": bias})
        assert inputs.keys() == gradients.keys()
        ours = torch.autograd.grad(y.mT, list(inputs.values()), given["grad_out"])
        for name, gradient in zip(inputs, ours, strict=True):
            gradient = gradient.mT if name == "x" else gradient
            assert_close(gradient, gradients[name], rtol=0, atol=tolerance["grad_atol"])
