"""The cheapest way to new eyes: they are to hold the answers before any layer reads them.

An answer lies where its ids lie in the language model's table, in the mean, less the mean of all answers of
the batch. A clip holds it if one of its frames points there, whose tokens are averaged and mapped linearly:
the log of the mean exponential over frames is the score (multiple-instance learning, pooled as in Pinheiro
and Collobert 2015, https://arxiv.org/abs/1411.6228). Which of a batch's answers belong to which clip is all
that is learnt, among the clips of one process. So the language model lends its table and runs not at all, and
a step costs what the eyes cost. Ours, not published: the loss of a language model hardly reaches fresh eyes,
whose tokens differ too little from one clip to the next. Answers that nearly every clip has, yes and no,
teach nothing here.
Shapes: B clips, T frames, A different answers of a batch, L width of the language model.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.backbones.stab_frames import VisualTokens


class AnswerAlignment(nn.Module):
    """Which answers belong to which clip. Only training needs it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.map.weight)
        self.scale = nn.Parameter(torch.tensor([20.0]))

    def loss(
        self,
        visual: Sequence[VisualTokens | None],
        answers: Sequence[Sequence[Tensor]],
        table: Tensor,
        names: Sequence[Hashable] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Binary cross entropy, a mean over clips and answers, and the precision of the best answers.

        Of a clip with k answers the k best are counted. Where fewer than two clips are seen there is nothing
        to tell apart: both are 0.

        visual: of every clip, None where there is none. answers: (n,) ids of each answer about each clip.
        table: (V, L) of the words. names: of the clips; those of one name share their answers.
        """
        seen = {i: tokens for i, tokens in enumerate(visual) if tokens is not None and tokens.num_tokens}
        places: dict[tuple[int, ...], int] = {}
        held: dict[Hashable, set[int]] = defaultdict(set)
        for i in seen:
            held[i if names is None else names[i]] |= {
                places.setdefault(tuple(ids.tolist()), len(places)) for ids in answers[i]
            }
        if len(seen) < 2 or not places:
            return 0.0 * (self.scale.sum() + self.map.weight.sum()), table.new_zeros(())
        with torch.no_grad():
            means = [table[torch.tensor(ids, device=table.device)].float().mean(0) for ids in places]
            directions = torch.stack(means)
            directions = F.normalize(directions - directions.mean(0), dim=-1)
        wanted = torch.zeros(len(seen), len(places), device=table.device)
        scores = []
        for row, (i, tokens) in enumerate(seen.items()):
            wanted[row, sorted(held[i if names is None else names[i]])] = 1.0
            frames = torch.stack([frame.mean(0) for frame in tokens.frames if len(frame)])
            frames = F.normalize(self.map(F.layer_norm(frames, frames.shape[-1:])).float(), dim=-1)
            near = self.scale * frames @ directions.T  # (T, A)
            scores.append(near.logsumexp(0) - math.log(len(near)))
        score, count = torch.stack(scores), wanted.sum(0)
        usual = ((count + 0.5) / (len(seen) - count + 0.5)).log()  # so that it need not be learnt
        return F.binary_cross_entropy_with_logits(score + usual, wanted), precision(score.detach(), wanted)


def precision(score: Tensor, wanted: Tensor) -> Tensor:
    """Of rows with k wanted columns, the share of wanted ones among the k best, a mean over rows."""
    found = [own[row.topk(int(own.sum())).indices].mean() for row, own in zip(score, wanted, strict=True)]
    return torch.stack(found).mean()
