"""The kernels of every instruction set that this machine can run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from framecast.ops import native_library


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=["portable", "avx2", "avx512"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    library, reason = native_library.load()
    if library is None:
        pytest.skip(f"no native kernels: {reason}")
    best = native_library.available()
    if not library.framecast_choose(request.param.encode()):
        pytest.skip(f"this library or processor has no {request.param}")
    yield request.param
    library.framecast_choose(best.encode())


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
