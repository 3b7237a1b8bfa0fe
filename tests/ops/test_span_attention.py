"""Attention in spans: the kernels against the reference, the reference against the formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from framecast.ops import native_library
from framecast.ops.span_attention import span_attention


def random_spans(rows: int, number: int) -> Tensor:
    """Spans with steps 1 to 5 whose queries do not overlap, since two answers for a frame would race."""
    bounds = torch.linspace(0, rows, number + 1).long()
    spans = []
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        step = int(torch.randint(1, 6, ()))
        first_key = int(torch.randint(0, rows, ()))
        most = -(-(rows - first_key) // step)
        spans.append(
            (start, -(-(stop - start) // step), first_key, int(torch.randint(1, most + 1, ())), step)
        )
    return torch.tensor(spans)


def in_double(q: Tensor, k: Tensor, v: Tensor, spans: Tensor, num_heads: int) -> Tensor:
    return span_attention(q.double(), k.double(), v.double(), spans, num_heads=num_heads, impl="reference")


def test_the_reference_is_softmax_of_scaled_products() -> None:
    q, k, v = (torch.randn(2, 10, 6, dtype=torch.float64) for _ in range(3))
    out = span_attention(q, k, v, torch.tensor([[11, 3, 2, 4, 2]]), num_heads=2, impl="reference")
    for head in (slice(0, 3), slice(3, 6)):
        asking, seen = q[1, 1:6:2, head], (k[0, 2:9:2, head], v[0, 2:9:2, head])
        weights = (asking @ seen[0].T / 3**0.5).softmax(-1)
        assert_close(out[1, 1:6:2, head], weights @ seen[1])
    assert not out[0].any()
    assert not out[1, [0, 2, 4, 6, 7, 8, 9]].any()


@pytest.mark.parametrize("width", [1, 4, 5, 7, 8, 16, 19, 32, 33, 64])
@pytest.mark.parametrize("num_heads", [1, 3, 4])
def test_kernels_equal_the_reference(kernels: str, width: int, num_heads: int) -> None:
    for frames in (1, 2, 37, 300):
        q, k, v = (torch.randn(2, frames, num_heads * width) for _ in range(3))
        spans = random_spans(2 * frames, min(4, frames))
        with torch.no_grad():
            out = span_attention(q, k, v, spans, num_heads=num_heads, impl="native")
        expected = in_double(q, k, v, spans, num_heads)
        assert_close(out, expected.float(), rtol=0, atol=2e-6 * float(expected.abs().max()))


def test_rows_may_lie_anywhere(kernels: str) -> None:
    qkv = torch.randn(2, 50, 60)
    q, k, v = qkv.chunk(3, dim=-1)
    out = torch.full((2, 50, 20), 7.0)
    spans = random_spans(100, 3)
    with torch.no_grad():
        filled = span_attention(q, k, v, spans, num_heads=2, out=out, impl="native")
        transposed = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
        again = span_attention(*transposed, spans, num_heads=2, impl="native")
    asked = torch.zeros(100, dtype=torch.bool)
    for first, queries, _, _, step in spans.tolist():
        asked[first : first + queries * step : step] = True
    assert filled is out
    assert (out.view(100, 20)[~asked] == 7).all()
    assert_close(again.view(100, 20)[asked], out.view(100, 20)[asked])
    assert not again.view(100, 20)[~asked].any()


@pytest.mark.parametrize("magnitude", [1e4, -1e4, 1e30])
def test_large_scores_overflow_nothing(kernels: str, magnitude: float) -> None:
    q, v = torch.ones(1, 1, 16), torch.randn(1, 200, 16)
    k = torch.linspace(0, magnitude / 4, 200)[None, :, None].expand(1, 200, 16).contiguous()
    spans = torch.tensor([[0, 200, 0, 200, 1]])
    q = q.expand(1, 200, 16).contiguous()
    with torch.no_grad():
        out = span_attention(q, k, v, spans, num_heads=1, impl="native")
    assert torch.isfinite(out).all()
    assert_close(out, in_double(q, k, v, spans, 1).float(), rtol=1e-4, atol=1e-4)


def test_not_a_number_stays_one_where_it_is_seen(kernels: str) -> None:
    q, k, v = (torch.randn(1, 200, 8) for _ in range(3))
    k[0, 150, 3] = torch.nan
    spans = torch.tensor([[0, 100, 0, 100, 1], [100, 100, 100, 100, 1]])
    with torch.no_grad():
        out = span_attention(q, k, v, spans, num_heads=1, impl="native")
    assert torch.isfinite(out[0, :100]).all()
    assert out[0, 100:].isnan().all()


def test_threads_give_the_same_bits(kernels: str, two_threads: None) -> None:
    q, k, v = (torch.randn(1, 1500, 64) for _ in range(3))
    for spans in (torch.tensor([[0, 1500, 0, 1500, 1]]), random_spans(1500, 40)):
        with torch.no_grad():
            shared = span_attention(q, k, v, spans, num_heads=2, impl="native")
            torch.set_num_threads(1)
            alone = span_attention(q, k, v, spans, num_heads=2, impl="native")
            torch.set_num_threads(2)
        assert torch.equal(shared, alone)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_activation_of_the_answer(kernels: str, activation: str) -> None:
    q, k, v = torch.randn(1, 60, 8), torch.randn(1, 60, 8), 4 * torch.randn(1, 60, 8)
    spans = torch.tensor([[0, 60, 0, 3, 1]])
    with torch.no_grad():
        native, reference = (
            span_attention(q, k, v, spans, num_heads=1, activation=activation, impl=impl)
            for impl in ("native", "reference")
        )
    assert_close(native, reference, rtol=1e-6, atol=2e-6)


OUTSIDE = [[0, 11, 0, 1, 1], [0, 1, 5, 3, 3], [-1, 1, 0, 1, 1], [0, 1, -2, 3, 1], [0, 1, 0, 0, 1]]


@pytest.mark.parametrize("span", OUTSIDE)
@pytest.mark.parametrize("impl", ["reference", "native"])
def test_a_span_outside_is_refused(span: list[int], impl: str) -> None:
    if impl == "native" and native_library.load()[0] is None:
        pytest.skip("no native kernels")
    x = torch.randn(1, 10, 4)
    with torch.no_grad(), pytest.raises(ValueError, match="outside the rows"):
        span_attention(x, x, x, torch.tensor([span]), num_heads=1, impl=impl)


def test_no_spans_no_answer(kernels: str) -> None:
    x = torch.randn(1, 10, 4)
    nothing = torch.zeros(0, 5, dtype=torch.int64)
    with torch.no_grad():
        assert not span_attention(x, x, x, nothing, num_heads=1, impl="native").any()


def test_gradients_flow_through_the_reference() -> None:
    q, k, v = (torch.randn(1, 12, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    spans = random_spans(12, 2)
    assert torch.autograd.gradcheck(lambda *x: span_attention(*x, spans, num_heads=2), (q, k, v))
