"""Eyes that are taught by the answers alone: scores, gradients, and clips that have nothing to say."""

from __future__ import annotations

import math

import pytest
import torch

from framecast.backbones.stab_frames import VisualTokens
from framecast.models.video_panda_answer_alignment import AnswerAlignment

WIDTH = 8


def clip(*frames: torch.Tensor) -> VisualTokens:
    return VisualTokens(tuple(frames), tuple((len(frame), 1) for frame in frames))


def test_the_loss_is_that_of_its_equations() -> None:
    """Written out: mean words, less what all answers share; frames mapped; smooth maximum; what is usual."""
    torch.manual_seed(0)
    table = torch.randn(12, WIDTH)
    said = [[torch.tensor([3, 4]), torch.tensor([5])], [torch.tensor([5])], [torch.tensor([6, 7, 8])]]
    visual = [
        clip(torch.randn(4, WIDTH), torch.randn(2, WIDTH)),
        clip(torch.randn(3, WIDTH)),
        clip(torch.randn(1, WIDTH)),
    ]
    alignment = AnswerAlignment(WIDTH)
    loss, best = alignment.loss(visual, said, table)

    phrases = [(3, 4), (5,), (6, 7, 8)]
    places = torch.stack([table[list(ids)].mean(0) for ids in phrases])
    places = places - places.mean(0)
    total, found = 0.0, []
    for tokens, own in zip(visual, said, strict=True):
        ranks = []
        for k, ids in enumerate(phrases):
            near = []
            for frame in tokens.frames:
                mean = frame.mean(0)
                seen = (mean - mean.mean()) / (mean.var(correction=0) + 1e-5).sqrt()
                near.append(20 * float(seen @ places[k] / seen.norm() / places[k].norm()))
            count = sum(any(tuple(a.tolist()) == ids for a in others) for others in said)
            usual = math.log((count + 0.5) / (len(said) - count + 0.5))
            pooled = math.log(sum(math.exp(x) for x in near) / len(near))
            score = pooled + usual
            holds = any(tuple(a.tolist()) == ids for a in own)
            total -= math.log(1 / (1 + math.exp(-score if holds else score)))
            ranks.append((pooled, holds))
        found.append(sum(holds for _, holds in sorted(ranks, reverse=True)[: len(own)]) / len(own))
    assert float(loss.detach()) == pytest.approx(total / 9, rel=1e-5)
    assert float(best) == pytest.approx(sum(found) / 3)


def test_clips_without_frames_and_texts_are_left_out() -> None:
    table = torch.randn(12, WIDTH)
    said = [[torch.tensor([3])], [torch.tensor([4])], [torch.tensor([5])]]
    seen = clip(torch.randn(4, WIDTH))
    alignment = AnswerAlignment(WIDTH)
    nothing, _ = alignment.loss([None, clip(torch.zeros(0, WIDTH)), None], said, table)
    assert float(nothing.detach()) == 0
    nothing.backward()
    assert all(p.grad is not None for p in alignment.parameters())
    alone, _ = alignment.loss([seen, None, None], said, table)
    assert float(alone.detach()) == 0  # there is nothing to tell it from
    two = [seen, clip(torch.randn(3, WIDTH))]
    assert torch.equal(alignment.loss([*two, None], said, table)[0], alignment.loss(two, said[:2], table)[0])


def test_a_clip_in_two_talks_has_the_answers_of_both() -> None:
    torch.manual_seed(0)
    table = torch.randn(12, WIDTH)
    tokens = [clip(torch.randn(4, WIDTH)) for _ in range(2)]
    visual = [tokens[0], tokens[0], tokens[1]]
    parted = [[torch.tensor([3])], [torch.tensor([4])], [torch.tensor([5])]]
    whole = [[torch.tensor([3]), torch.tensor([4])]] * 2 + parted[2:]
    alignment = AnswerAlignment(WIDTH)
    assert torch.equal(
        alignment.loss(visual, parted, table, ["a", "a", "b"])[0], alignment.loss(visual, whole, table)[0]
    )


def test_what_does_not_differ_is_not_told_apart() -> None:
    """Sixteen clips alike with an answer each: one in sixteen is right."""
    torch.manual_seed(0)
    table, tokens = torch.randn(20, WIDTH), clip(torch.randn(4, WIDTH))
    _, best = AnswerAlignment(WIDTH).loss([tokens] * 16, [[torch.tensor([i])] for i in range(16)], table)
    assert float(best) == pytest.approx(1 / 16)


def test_tokens_that_point_to_their_answers_are_told_right() -> None:
    torch.manual_seed(0)
    table = torch.randn(12, 64)
    said = [[torch.tensor([i])] for i in range(4)]
    centre = table[:4].mean(0)
    alignment = AnswerAlignment(64)
    right = alignment.loss([clip((table[i] - centre)[None]) for i in range(4)], said, table)
    wrong = alignment.loss([clip((table[3 - i] - centre)[None]) for i in range(4)], said, table)
    assert float(right[1]) == 1
    assert float(right[0].detach()) < 0.1 < float(wrong[0].detach())
