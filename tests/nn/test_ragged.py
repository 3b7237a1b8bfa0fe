"""Sequences of different lengths: every kernel gives the attention of each sequence by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from framecast.nn import ragged
from framecast.nn.ragged import Ragged, ragged_attention
from framecast.ops import native_library

CPU = torch.device("cpu")
LENGTHS = [([3, 7, 1], [5, 7, 2]), ([4, 4], [6, 6]), ([9], [30]), ([1, 1, 1], [8, 3, 5])]


def one_by_one(q: Tensor, k: Tensor, v: Tensor, asking: list[int], answering: list[int]) -> Tensor:
    parts = zip(q.split(asking), k.split(answering), v.split(answering), strict=True)
    heads = ([t.unflatten(-1, (2, -1)).transpose(0, 1) for t in part] for part in parts)
    return torch.cat(
        [((a @ b.mT * a.shape[-1] ** -0.5).softmax(-1) @ c).transpose(0, 1).flatten(1) for a, b, c in heads]
    )


def tensors(asking: list[int], answering: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    k, v = torch.randn(sum(answering), 32).chunk(2, dim=-1)  # as a joint projection leaves them
    return torch.randn(sum(asking), 16), k, v


@pytest.mark.parametrize("kernel", ["auto", "native", "each", "padded"])
@pytest.mark.parametrize(("asking", "answering"), LENGTHS)
def test_kernels(kernel: Any, asking: list[int], answering: list[int]) -> None:
    if kernel == "native" and native_library.load()[0] is None:
        pytest.skip("the native kernels are not built")
    q, k, v = tensors(asking, answering)
    with torch.no_grad():
        x = ragged_attention(q, k, v, Ragged(asking, CPU), Ragged(answering, CPU), 2, kernel=kernel)
    assert_close(x, one_by_one(q, k, v, asking, answering), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kernel", ["auto", "padded"])
def test_gradients(kernel: Any) -> None:
    asking, answering = LENGTHS[0]
    q, k, v = (t.double().requires_grad_() for t in tensors(asking, answering))
    layouts = Ragged(asking, CPU), Ragged(answering, CPU)
    torch.autograd.gradcheck(lambda *x: ragged_attention(*x, *layouts, 2, kernel=kernel), (q, k, v))


@pytest.mark.parametrize(("asking", "answering"), LENGTHS)
def test_what_the_kernel_for_graphics_cards_is_given(
    monkeypatch: pytest.MonkeyPatch, asking: list[int], answering: list[int]
) -> None:
    """A stand-in with the documented meaning of its arguments."""

    class StandIn:
        @staticmethod
        def varlen_attn(
            q: Tensor,
            k: Tensor,
            v: Tensor,
            q_edges: Tensor,
            k_edges: Tensor,
            max_q: int,
            max_k: int,
            *,
            num_splits: int,
        ) -> Tensor:
            assert q_edges.dtype == k_edges.dtype == torch.int32
            assert (max_q, max_k, num_splits) == (max(asking), max(answering), 1)
            pieces = []
            for i in range(len(q_edges) - 1):
                queries = q[q_edges[i] : q_edges[i + 1]].transpose(0, 1)
                keys, values = (t[k_edges[i] : k_edges[i + 1]].transpose(0, 1) for t in (k, v))
                pieces.append(F.scaled_dot_product_attention(queries, keys, values).transpose(0, 1))
            return torch.cat(pieces)

    monkeypatch.setattr(ragged, "varlen", StandIn)
    q, k, v = tensors(asking, answering)
    layouts = Ragged(asking, CPU), Ragged(answering, CPU)
    x = ragged_attention(q, k, v, *layouts, 2, kernel="variable")
    assert_close(x, one_by_one(q, k, v, asking, answering), atol=1e-6, rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a graphics card")
@pytest.mark.parametrize("kernel", ["variable", "padded", "auto"])
def test_kernels_on_a_graphics_card(kernel: Any) -> None:
    asking, answering = LENGTHS[0]
    torch.manual_seed(0)
    q, k, v = (
        torch.randn(n, 128, device="cuda").half() for n in (sum(asking), sum(answering), sum(answering))
    )
    layouts = Ragged(asking, q.device), Ragged(answering, q.device)
    x = ragged_attention(q, k, v, *layouts, 2, kernel=kernel)
    expected = one_by_one(q.float(), k.float(), v.float(), asking, answering)
    assert_close(x.float(), expected, atol=5e-3, rtol=5e-3)


class TestLayout:
    def test_padding_and_back(self) -> None:
        layout, x = Ragged([2, 3, 1], CPU), torch.arange(12.0).view(6, 2)
        slots = layout.pad(x, -1.0)
        assert slots.shape == (3, 3, 2)
        assert torch.equal(slots[layout.taken], x)
        assert (slots[~layout.taken] == -1).all()

    def test_rows_know_their_sequence(self) -> None:
        layout = Ragged([2, 3, 1], CPU)
        assert layout.owners.tolist() == [0, 0, 1, 1, 1, 2]
        assert layout.first_rows.tolist() == layout.firsts == [0, 2, 5]
        assert layout.spread(torch.tensor([[1.0], [2.0], [3.0]]))[:, 0].tolist() == [1, 1, 2, 2, 2, 3]

    @pytest.mark.parametrize("counts", [[4, 4], [4, 2], [5]])
    def test_picked_rows(self, counts: list[int]) -> None:
        layout, longest = Ragged(counts, CPU), max(counts) - 1
        order = torch.arange(longest).flip(0).expand(len(counts), -1)  # patches, behind one token in front
        kept = order < torch.tensor(counts)[:, None] - 2  # all but the last patch of each
        rows, smaller = layout.pick(order, kept, 1)
        expected = [
            [first, *(first + 1 + i for i in reversed(range(n - 2)))]
            for first, n in zip(layout.firsts, counts, strict=True)
        ]
        assert rows.tolist() == [row for part in expected for row in part]
        assert smaller.counts == [n - 1 for n in counts]
