"""Visual tokens take the place of placeholders, whatever the lengths and the side that is padded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from framecast.nn.splicing import IGNORED_LABEL, PLACEHOLDER, splice

WIDTH = 3
TABLE = torch.arange(30.0).view(10, WIDTH)
P = PLACEHOLDER
TEXTS = [torch.tensor([1, P, P, 2, 3]), torch.tensor([P, 4]), torch.tensor([5, 6, 7])]
BLOCKS = [[torch.full((n, WIDTH), -float(n)) for n in lengths] for lengths in ((2, 4), (1,), ())]


def embed(ids: Tensor) -> Tensor:
    assert (ids >= 0).all(), "placeholders have no embedding"
    return TABLE[ids]


@pytest.mark.parametrize("padding", ["right", "left"])
def test_every_token_is_in_its_place(padding: str) -> None:
    out = splice(TEXTS, BLOCKS, embed, padding=padding)  # ty: ignore[invalid-argument-type]
    assert out.embeddings.shape == (3, 9, WIDTH)
    assert out.mask.sum(1).tolist() == [9, 2, 3]
    first = torch.cat([TABLE[[1]], *BLOCKS[0], TABLE[[2, 3]]])
    assert torch.equal(out.embeddings[0], first)
    assert torch.equal(out.embeddings[1][out.mask[1]], torch.cat([BLOCKS[1][0], TABLE[[4]]]))
    assert torch.equal(out.embeddings[2][out.mask[2]], TABLE[[5, 6, 7]])
    assert (out.embeddings[~out.mask] == 0).all()
    assert out.mask[:, -1 if padding == "left" else 0].all()
    gap = 7 if padding == "left" else 0
    assert out.spans == (((1, 2), (3, 4)), ((gap, 1),), ())
    assert out.labels is None


def test_padding_that_the_mask_names_is_dropped_first() -> None:
    ids = torch.nn.utils.rnn.pad_sequence(TEXTS, True, 0)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(t)) for t in TEXTS], True, 0.0)
    a, b = splice(ids, BLOCKS, embed, mask=mask, labels=ids), splice(TEXTS, BLOCKS, embed, labels=TEXTS)
    assert torch.equal(a.embeddings, b.embeddings)
    assert torch.equal(a.mask, b.mask)
    assert a.labels is not None
    assert b.labels is not None
    assert torch.equal(a.labels, b.labels)
    assert a.labels[0].tolist() == [1, *[IGNORED_LABEL] * 6, 2, 3]
    assert a.labels[1].tolist() == [IGNORED_LABEL, 4, *[IGNORED_LABEL] * 7]


def test_gradients_reach_blocks_and_words() -> None:
    block, table = torch.randn(2, WIDTH, requires_grad=True), TABLE.clone().requires_grad_()
    splice([torch.tensor([1, P])], [[block]], lambda ids: table[ids]).embeddings.sum().backward()
    assert block.grad is not None
    assert table.grad is not None
    assert (block.grad == 1).all()
    assert table.grad[1].tolist() == [1.0] * WIDTH
    assert table.grad[0].tolist() == [0.0] * WIDTH


def test_an_empty_block_takes_no_place() -> None:
    out = splice(TEXTS[:1], [[torch.zeros(0, WIDTH), BLOCKS[0][1]]], embed)
    assert out.embeddings.shape == (1, 7, WIDTH)
    assert out.spans == (((1, 0), (1, 4)),)


def test_misfits_are_named() -> None:
    with pytest.raises(ValueError, match="text 1 has 1 placeholders but 2 blocks"):
        splice(TEXTS, [BLOCKS[0], BLOCKS[0], []], embed)
    with pytest.raises(ValueError, match="3 texts but blocks for 1"):
        splice(TEXTS, BLOCKS[:1], embed)
    with pytest.raises(ValueError, match="labels and ids differ in length"):
        splice(TEXTS, BLOCKS, embed, labels=[t[1:] for t in TEXTS])
    with pytest.raises(ValueError, match=r"mask .* needs ids and labels of the same shape"):
        splice(TEXTS, BLOCKS, embed, mask=torch.ones(3, 5))
