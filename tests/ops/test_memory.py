"""Memory of inference: used again when free, never while in use, given back at the end."""

from __future__ import annotations

import gc
import mmap
import threading

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from framecast.nn.mamba import RMSNorm
from framecast.ops import memory

LARGE = memory.PAGE // 4  # numbers
huge_pages = pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="no huge pages on this system")


@huge_pages
def test_free_memory_is_used_again_and_memory_in_use_is_not() -> None:
    with memory.reused():
        first = memory.empty(LARGE).fill_(1.0)
        second = memory.empty(LARGE).fill_(2.0)
        place = first.data_ptr()
        part = first[5:].view(-1)
        del first
        third = memory.empty(LARGE).fill_(3.0)  # `part` still needs the first
        assert third.data_ptr() != place
        assert (part == 1.0).all()
        assert (second == 2.0).all()
        del part
        again = memory.empty(4, LARGE // 4)
        assert again.data_ptr() == place
        assert again.data_ptr() % memory.PAGE == 0


@huge_pages
def test_a_tensor_outlives_its_scope() -> None:
    with memory.reused():
        kept = memory.empty(LARGE).fill_(7.0)
    gc.collect()
    torch.randn(4 * LARGE)
    assert (kept == 7.0).all()
    assert memory._blocks() is None


@huge_pages
def test_scopes_nest_and_belong_to_their_thread() -> None:
    seen: list[object] = []
    with memory.reused():
        with memory.reused():
            place = memory.empty(LARGE).data_ptr()
        assert memory.empty(LARGE).data_ptr() == place
        thread = threading.Thread(target=lambda: seen.append(memory._blocks()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_an_error_ends_the_scope() -> None:
    with pytest.raises(ValueError, match="negative"), memory.reused():
        memory.empty(-1)
    assert memory._blocks() is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_products(dtype: torch.dtype) -> None:
    x, weight = torch.randn(2, 2048, 24, dtype=dtype), torch.randn(2, 160, 24, dtype=dtype)
    wide = torch.randn(2, 2048, 48, dtype=dtype)[..., :24]  # rows that do not follow each other
    with torch.no_grad(), memory.reused():
        assert torch.equal(memory.product(x, weight), x @ weight.mT)
        assert torch.equal(memory.product(x, weight[0]), x @ weight[0].mT)
        assert_close(memory.product(wide, weight), wide @ weight.mT)


def test_watched_and_other_linear_maps_are_called() -> None:
    layer, x = nn.Linear(8, 8, bias=False), torch.randn(3, 8)
    calls: list[int] = []
    with torch.no_grad(), memory.reused():
        assert torch.equal(memory.linear(layer, x), layer(x))
        layer.register_forward_hook(lambda *a: calls.append(1))
        memory.linear(layer, x)
        assert calls == [1]
    biased = nn.Linear(8, 8)
    assert torch.equal(memory.linear(biased, x), biased(x))


def test_gradients_pass_inside_a_scope() -> None:
    weight = torch.randn(8, 8, requires_grad=True)
    with memory.reused():
        memory.product(torch.randn(3, 8), weight).sum().backward()
    assert weight.grad is not None


def test_a_norm_in_reused_memory_changes_no_bit() -> None:
    norm, x = RMSNorm(192), torch.randn(2, 1600, 192)
    nn.init.normal_(norm.weight)
    with torch.no_grad():
        expected = norm(x)
        with memory.reused():
            assert torch.equal(norm(x), expected)


@huge_pages
def test_room_only_where_an_operator_may_write() -> None:
    x = torch.randn(4, 4)
    with torch.no_grad():
        assert memory.room_for(x) is None
    with memory.reused():
        assert memory.room_for(x) is None  # gradients are recorded
        with torch.no_grad():
            assert memory.room_for(x, x.double()) is None
            room = memory.room_for(x, x)
            assert room is not None
            assert room.shape == x.shape
