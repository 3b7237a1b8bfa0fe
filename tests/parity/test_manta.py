"""MANTA gives the numbers of its training code, with the plain Mamba, on the golden fixtures."""

from __future__ import annotations

import pytest
from golden import Fixture, fixtures, require
from label_diffusion import build, check_denoiser, check_sampling

FORWARD = {"rtol": 1e-4, "atol": 5e-5}
STEP = {"rtol": 1e-4, "atol": 2e-4}


@pytest.mark.parametrize("fixture", fixtures("manta"))
def test_manta(fixture: Fixture | None) -> None:
    fixture = require(fixture)
    assert fixture.kind in ("denoiser", "ddim"), f"unknown kind {fixture.kind}"
    model = build(fixture, mask_inside=False)
    if fixture.kind == "denoiser":
        check_denoiser(fixture, model, FORWARD)
    else:
        check_sampling(fixture, model, STEP)
