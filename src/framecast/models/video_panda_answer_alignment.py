"""The cheapest way to new eyes: they are to hold the answers before any layer reads them.

An answer lies where its words lie in the language model's table, in the mean. A clip holds it if one of its
frames points there, whose tokens are averaged and mapped linearly: the smooth maximum over frames is the
score, as in learning from bags (Dietterich, Lathrop, Lozano-Pérez 1997,
https://doi.org/10.1016/S0004-3702(96)00034-3). Which of a batch's answers belong to which clip is all that is
learnt. So the language model lends its table and runs not at all, and a step costs what the eyes cost. Ours,
not published: the loss of a language model hardly reaches fresh eyes, whose tokens differ too little from one
clip to the next.
Shapes: B clips, T frames, A different answers of a batch, L width of the language model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
        self.scale = nn.Parameter(torch.tensor(20.0))

    def loss(
        self,
        visual: Sequence[VisualTokens | None],
        answers: Sequence[Sequence[Tensor]],
        table: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Binary cross entropy, a mean over clips and answers, and the share that is told right.

        visual: of every clip, None where there is none. answers: (n,) ids of each answer about each clip.
        table: (V, L) of the words.
        """
        places: dict[tuple[int, ...], int] = {}
        held = [{places.setdefault(tuple(ids.tolist()), len(places)) for ids in own} for own in answers]
        seen = {i: tokens for i, tokens in enumerate(visual) if tokens is not None and tokens.num_tokens}
        if not seen or not places:
            return 0.0 * (self.scale + self.map.weight.sum()), table.new_zeros(())
        with torch.no_grad():
            means = [table[torch.tensor(ids, device=table.device)].float().mean(0) for ids in places]
            directions = torch.stack(means)
            directions = F.normalize(directions - directions.mean(0), dim=-1)  # less what all share
        wanted = torch.zeros(len(seen), len(places), device=table.device)
        scores = []
        for row, (i, tokens) in enumerate(seen.items()):
            wanted[row, sorted(held[i])] = 1.0
            frames = torch.stack([frame.mean(0) for frame in tokens.frames if len(frame)])
            frames = F.normalize(self.map(F.layer_norm(frames, frames.shape[-1:])).float(), dim=-1)
            near = self.scale * frames @ directions.T  # (T, A)
            scores.append(near.logsumexp(0) - math.log(len(near)))
        count = wanted.sum(0)
        usual = ((count + 0.5) / (len(seen) - count + 0.5)).log()  # so that it need not be learnt
        score = torch.stack(scores) + usual
        right = ((score > 0) == (wanted > 0)).float().mean()
        return F.binary_cross_entropy_with_logits(score, wanted), right.detach()
