"""Windowed and strided attention: every path against the set of pairs that the definition allows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from framecast.nn.temporal_attention import strided_attention, windowed_attention
from framecast.ops import native_library

FRAMES = [1, 2, 5, 7, 8, 9, 15, 16, 17, 24, 61, 64, 130]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def in_window(t: Tensor, s: Tensor, window: int) -> Tensor:
    start = t // window * window
    return (s >= start - window // 2) & (s < start + 3 * window // 2)


def in_class(t: Tensor, s: Tensor, stride: int) -> Tensor:
    return t % stride == s % stride


PATTERNS = [
    pytest.param(windowed_attention, "window", in_window, id="windowed"),
    pytest.param(strided_attention, "stride", in_class, id="strided"),
]
every_pattern = pytest.mark.parametrize(("attention", "name", "allowed"), PATTERNS)


def by_pairs(q: Tensor, k: Tensor, v: Tensor, num_heads: int, pairs: Tensor) -> Tensor:
    """Softmax over the allowed pairs (B, T, T) in double precision; zero where a frame has none."""
    outputs = []
    for heads in zip(*(x.double().chunk(num_heads, dim=-1) for x in (q, k, v)), strict=True):
        scores = heads[0] @ heads[1].transpose(1, 2) / heads[0].shape[-1] ** 0.5
        weights = scores.masked_fill(~pairs, -torch.inf).softmax(-1).nan_to_num()
        outputs.append(weights @ heads[2])
    return torch.cat(outputs, dim=-1).float()


@every_pattern
@pytest.mark.parametrize("size", [2, 8, 16])
@pytest.mark.parametrize("num_heads", [1, 2])
def test_every_path_attends_the_allowed_pairs(
    attention: Callable, name: str, allowed: Callable, size: int, num_heads: int
) -> None:
    for frames in FRAMES:
        q, k, v = (torch.randn(2, frames, 6 * num_heads) for _ in range(3))
        t = torch.arange(frames)
        expected = by_pairs(q, k, v, num_heads, allowed(t[:, None], t, size)[None])
        settings = {"num_heads": num_heads, name: size}
        mask = torch.ones(2, frames, dtype=torch.bool)
        with torch.no_grad():  # the kernels, where there are any
            assert_close(attention(q, k, v, **settings), expected)
            assert_close(attention(q, k, v, mask=mask, **settings), expected)
        q.requires_grad_()
        assert_close(attention(q, k, v, **settings), expected)
        assert_close(attention(q, k, v, activation="gelu", **settings), torch.nn.functional.gelu(expected))


@every_pattern
def test_masked_frames_are_not_seen(attention: Callable, name: str, allowed: Callable) -> None:
    for frames in FRAMES:
        q, k, v = (torch.randn(3, frames, 6) for _ in range(3))
        mask = torch.rand(3, frames) < 0.6
        t = torch.arange(frames)
        pairs = allowed(t[:, None], t, 8) & mask[:, None, :]
        with torch.no_grad():
            out = attention(q, k, v, num_heads=1, mask=mask, **{name: 8})
        assert_close(out, by_pairs(q, k, v, 1, pairs))


@every_pattern
def test_a_padded_video_is_attended_like_a_lone_one(
    attention: Callable, name: str, allowed: Callable
) -> None:
    q, k, v = (torch.randn(1, 70, 8) for _ in range(3))
    mask = torch.arange(70)[None] < 43
    with torch.no_grad():
        padded = attention(q, k, v, num_heads=2, mask=mask, **{name: 16})
        alone = attention(*(x[:, :43] for x in (q, k, v)), num_heads=2, **{name: 16})
    assert_close(padded[:, :43], alone)


@every_pattern
def test_gradients_are_those_of_the_masked_path(attention: Callable, name: str, allowed: Callable) -> None:
    inputs = [torch.randn(2, 37, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    mask = torch.ones(2, 37, dtype=torch.bool)
    plain, masked = (
        torch.autograd.grad(attention(*inputs, num_heads=2, mask=m, **{name: 8}).square().sum(), inputs)
        for m in (None, mask)
    )
    for ours, theirs in zip(plain, masked, strict=True):
        assert_close(ours, theirs)


def test_dropout_is_not_lost_where_no_gradients_are_recorded() -> None:
    x = torch.randn(1, 40, 8)
    with torch.no_grad():
        dropped = windowed_attention(x, x, x, num_heads=1, window=8, dropout=0.5)
        assert not torch.allclose(dropped, windowed_attention(x, x, x, num_heads=1, window=8))


def test_odd_windows_are_refused() -> None:
    x = torch.randn(1, 9, 4)
    with pytest.raises(ValueError, match="window must be even"):
        windowed_attention(x, x, x, num_heads=1, window=3)


@every_pattern
def test_kernels_and_torch_agree_on_a_long_video(
    attention: Callable, name: str, allowed: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    if native_library.load()[0] is None:
        pytest.skip("no native kernels")
    q, k, v = (torch.randn(1, 2500, 32) for _ in range(3))
    with torch.no_grad():
        native = attention(q, k, v, num_heads=1, **{name: 64})
        monkeypatch.setattr(native_library, "usable", lambda *tensors: False)
        assert_close(native, attention(q, k, v, num_heads=1, **{name: 64}), rtol=1e-5, atol=1e-6)
