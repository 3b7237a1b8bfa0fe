"""The recurrent network of "When will you do what?" (Abu Farha, Richard, Gall, CVPR 2018,
https://arxiv.org/abs/1804.00892): from the segments seen so far to the next action, when it starts and how
long it takes, again and again until the horizon is filled.

A token is a segment: its class as one-hot, its length in the last slot. The last token is the running
segment, of which only a part has been seen. The network answers with scores of the next class, the length of
the next segment, and how long the running one goes on. Lengths are in units of n / time_units frames, n the
length of the whole video, which is therefore taken as known.

Differs from the release, each by a named setting:
- `padding`: the release pads every sequence with zero tokens to 25 and reads the state after the last of
  them ("release"); "none" reads it after the last segment and computes no padding.
- `too_long`: of more than 25 segments the release reads the *first* 25 while decoding ("first"); ours are
  the last ones.
- `next_length`: the release trains the next length on the share of the next segment that was seen of the
  running one, but for the last cut of a video ("partial"); "full" is the length that decoding asks for.
Shapes: B sequences, N tokens, K classes, L parts of a segment, M cuts, D width, H state.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from framecast.models.label_encoding import checked_labels, runs_of
from framecast.models.segment_tokens import CutExamples, Transcripts, cut_examples
from framecast.official import OfficialLayout
from framecast.registry import checked_overrides, register_model


@dataclass(frozen=True)
class AnticipationRNNConfig:
    num_classes: int = 48
    width: int = 128  # of the layers before and after the recurrent ones
    state: int = 256  # of a recurrent layer
    num_layers: int = 2
    max_tokens: int = 25
    time_units: float = 6.0  # a length of 1 is this share of the video: 6 on Breakfast, 20 on 50Salads
    padding: Literal["none", "release"] = "none"
    too_long: Literal["last", "first"] = "last"
    next_length: Literal["full", "partial"] = "full"
    train_lengths: Literal["raw", "rectified"] = "raw"  # rectified (release), one below 0 learns no more
    dropout: float = 0.0  # before the heads


class ResetFirstGRU(nn.Module):
    """A GRU layer as TensorFlow 1 has it: the reset gate scales the state before the matrix is applied.

    r, u = σ(x W + h U + b);  c = tanh(x W' + (r ⊙ h) U' + b');  h ← u ⊙ h + (1 − u) ⊙ c
    """

    def __init__(self, dim_in: int, state: int) -> None:
        super().__init__()
        self.state = state
        self.input = nn.Linear(dim_in, 3 * state)  # reset, update, candidate
        self.gates = nn.Linear(state, 2 * state, bias=False)
        self.candidate = nn.Linear(state, state, bias=False)
        with torch.no_grad():  # uniform Glorot of the joint matrices over (x, h), as in TensorFlow
            for rows, from_state in (
                (slice(2 * state), self.gates),
                (slice(2 * state, None), self.candidate),
            ):
                limit = math.sqrt(6 / (dim_in + state + len(from_state.weight)))
                from_state.weight.uniform_(-limit, limit)
                self.input.weight[rows].uniform_(-limit, limit)
            self.input.bias.copy_(torch.cat([torch.ones(2 * state), torch.zeros(state)]))

    def step(self, x: Tensor, h: Tensor, gates: Tensor | None = None) -> Tensor:
        """State after one token: x (..., 3 H) = `input(token)`, h (..., H); gates: `gates(h)` if at hand."""
        from_state = self.gates(h) if gates is None else gates
        r, u = torch.sigmoid(x[..., : 2 * self.state] + from_state).chunk(2, dim=-1)
        c = torch.tanh(x[..., 2 * self.state :] + self.candidate(r * h))
        return torch.lerp(c, h, u)

    def forward(self, tokens: Tensor, batch_sizes: list[int] | None = None) -> tuple[Tensor, Tensor]:
        """tokens: (N, B, D), or packed (ΣN, D), step by step with the longest sequence first.

        batch_sizes: number of packed sequences that reach each step. Returns the states after every token, in
        the same layout, and those after the last token of every sequence (B, H).
        """
        x = self.input(tokens)
        steps = x.unbind(0) if batch_sizes is None else x.split(batch_sizes)
        h = x.new_zeros(steps[0].shape[0], self.state)
        states, ended = [], []
        for step in steps:
            going_on = step.shape[0]
            if going_on < h.shape[0]:
                ended.append(h[going_on:])
                h = h[:going_on]
            h = self.step(step, h)
            states.append(h)
        after = torch.stack(states) if batch_sizes is None else torch.cat(states)
        return after, torch.cat([h, *reversed(ended)])


class AnticipationRNN(nn.Module):
    """Tokens (B, K + 1, N) to answers (B, K + 2): class scores, next length, rest of the running segment."""

    layers: Any

    def __init__(self, config: AnticipationRNNConfig) -> None:
        super().__init__()
        self.config = c = config
        self.fc_in = nn.Linear(c.num_classes + 1, c.width)
        sizes = [c.width, *[c.state] * c.num_layers]
        self.layers = nn.ModuleList(ResetFirstGRU(a, b) for a, b in pairwise(sizes))
        self.fc_out = nn.Linear(c.state, c.width)
        self.drop = nn.Dropout(c.dropout)
        self.head_label = nn.Linear(c.width, c.num_classes)
        self.head_lengths = nn.Linear(c.width, 2)
        for layer in (self.fc_in, self.fc_out, self.head_label, self.head_lengths):
            nn.init.normal_(layer.weight, std=0.1)
            nn.init.constant_(layer.bias, 0.1)

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        *,
        cuts: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """mask: (B, N), True = a segment; segments come first. Leave it out when all are.

        With cuts and lengths of what is cut, the answers of `forward_cuts` (M, L, K + 2).
        """
        if cuts is not None:
            assert lengths is not None
            return self.forward_cuts(tokens, cuts, lengths)
        if mask is not None:
            tokens = tokens * mask[:, None]
        if self.config.padding == "release":
            tokens, mask = F.pad(tokens, (0, self.config.max_tokens - tokens.shape[2])), None
        x = F.relu(self.fc_in(tokens.permute(2, 0, 1)))  # (N, B, D)
        sizes, back = None, None
        if mask is not None:
            packed = pack_padded_sequence(x, mask.sum(1).cpu(), enforce_sorted=False)
            x, sizes, back = packed.data, packed.batch_sizes.tolist(), packed.unsorted_indices
        last = x
        for layer in self.layers:
            x, last = layer(x, sizes)
        return self.answer(last if back is None else last[back])

    def answer(self, state: Tensor) -> Tensor:  # (..., H) -> (..., K + 2)
        x = self.drop(F.relu(self.fc_out(state)))
        lengths = self.head_lengths(x)
        if not self.training or self.config.train_lengths == "rectified":
            lengths = F.relu(lengths)
        return torch.cat([self.head_label(x), lengths], dim=-1)

    def forward_cuts(self, tokens: Tensor, cuts: Tensor, lengths: Tensor) -> Tensor:
        """Answers (M, L, K + 2) at M cuts, for L lengths of the segment that is running there.

        tokens: whole segments (B, K + 1, N); cuts: (B, N), True where a sequence is cut inside that segment;
        lengths: (M, L) of the cut segments. Equal to `forward` on every cut sequence by itself with
        `padding="none"`, but what was seen before a cut is read once for all of them.
        """
        whole = tokens.mT  # (B, N, K + 1)
        part = whole[cuts][:, None].repeat(1, lengths.shape[1], 1)  # (M, L, K + 1)
        part = torch.cat([part[..., :-1], lengths[..., None]], dim=-1)
        x, x_part = F.relu(self.fc_in(whole.transpose(0, 1))), F.relu(self.fc_in(part))
        for layer in self.layers:
            x, _ = layer(x)  # (N, B, H)
            before = F.pad(x[:-1], (0, 0, 0, 0, 1, 0)).transpose(0, 1)[cuts][:, None]  # (M, 1, H)
            x_part = layer.step(layer.input(x_part), before, layer.gates(before))
        return self.answer(x_part)

    def forecast(
        self,
        observed: np.ndarray,
        num_future: int,
        total_length: int,
        samples: int = 1,
        rng: np.random.Generator | None = None,
    ) -> np.ndarray:
        """(S, num_future) labels that follow observed labels (T_obs,) of a video of so many frames."""
        return self.forecast_many([observed], [num_future], [total_length], samples, rng)[0]

    @torch.no_grad()
    def forecast_many(
        self,
        observed: Sequence[np.ndarray],
        num_future: Sequence[int],
        total_length: Sequence[int],
        samples: int = 1,
        rng: np.random.Generator | None = None,
    ) -> list[np.ndarray]:
        """(S, num_future) labels for each video; all videos and samples go step by step together.

        One sample takes the most probable class at every step; more draw it from the class probabilities
        (the release does not sample). A shorter horizon is a prefix of a longer one.
        """
        c = self.config
        rng = np.random.default_rng(0) if samples > 1 and rng is None else rng
        observed = [checked_labels(labels, c.num_classes) for labels in observed]
        paths = Transcripts(
            [runs_of(labels) for labels in observed for _ in range(samples)],
            np.repeat(np.asarray(num_future), samples),
            np.repeat((1.0 / c.time_units) * np.asarray(total_length, dtype=np.float64), samples),
        )
        while len(active := paths.unfinished()):
            tokens, mask = paths.tokens(active, c.num_classes, c.max_tokens, c.too_long)
            device = self.fc_in.weight.device
            answers = self(torch.from_numpy(tokens).to(device), torch.from_numpy(mask).to(device))
            scores, lengths = answers[:, :-2].double(), answers[:, -2:].double().cpu().numpy()
            if samples > 1:
                assert rng is not None
                chances = scores.softmax(1).cumsum(1).cpu().numpy()
                draws = rng.random((len(active), 1)) * chances[:, -1:]
                labels = (chances <= draws).sum(1)
            else:
                labels = scores.argmax(1).cpu().numpy()
            paths.extend(active, labels, *(lengths * paths.unit[active, None]).T)
        futures = [paths.future(i, len(observed[i // samples])) for i in range(len(paths.count))]
        return [np.stack(futures[i : i + samples]) for i in range(0, len(futures), samples)]

    def examples(self, labels: np.ndarray, num_shares: int = 10) -> CutExamples:
        """What is learned from the labels (T,) of a video: it is cut inside every segment but the last."""
        c = self.config
        return cut_examples(labels, c.num_classes, c.time_units, num_shares, c.next_length)

    def loss(self, answers: Tensor, target: Tensor, class_weight: Tensor | None = None) -> Tensor:
        """Cross entropy of the next class plus mean squared error of both lengths.

        answers: (..., K + 2); target: (..., 3) next class, next length, rest; class_weight: (K,).
        """
        answers, target = answers.reshape(-1, answers.shape[-1]), target.reshape(-1, 3)
        label = F.cross_entropy(answers[:, :-2], target[:, 0].long(), class_weight)
        return label + F.mse_loss(answers[:, -2:], target[:, 1:])


# Official layout --------------------------------------------------------------------------------------

LICENCE = "as stated by the release of anticipating-activities (MIT); no weights of it were published"
# The release names initial values, not variables: TensorFlow stores its own ones in the order of creation.
NAMES = {
    "Variable": "w_fc_in",
    "Variable_1": "b_fc_in",
    "Variable_2": "w_fc_o",
    "Variable_3": "b_fc_o",
    "Variable_4": "w_output_action",
    "Variable_5": "b_output_action",
    "Variable_6": "w_output_len",
    "Variable_7": "b_output_len",
}
CELL = r"rnn/multi_rnn_cell/cell_(\d+)/gru_cell/(gates|candidate)/(kernel|bias)"
KEYS = {
    r"fc_in\.(.*)": r"fc_in.\1",
    r"fc_o\.(.*)": r"fc_out.\1",
    r"output_action\.(.*)": r"head_label.\1",
    r"output_len\.(.*)": r"head_lengths.\1",
    r"gru\.(\d+)\.(.*)": r"layers.\1.\2",
}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices become output-major; the joint matrices over (token, state) are taken apart."""
    named = {re.sub(CELL, r"gru.\1.\2.\3", NAMES.get(key, key)): t for key, t in state.items()}
    out: dict[str, Tensor] = {}
    for key, t in named.items():
        if match := re.fullmatch(r"([wb])_(fc_in|fc_o|output_action|output_len)", key):
            kind, name = match.groups()
            out[f"{name}.{'weight' if kind == 'w' else 'bias'}"] = t.mT.contiguous() if kind == "w" else t
        elif not key.startswith("gru."):
            out[key] = t
    for layer in {key.split(".")[1] for key in named if key.startswith("gru.")}:
        gates, candidate = (named[f"gru.{layer}.{part}.kernel"].mT for part in ("gates", "candidate"))
        dim_in = gates.shape[1] - candidate.shape[0]
        out[f"gru.{layer}.input.weight"] = torch.cat([gates[:, :dim_in], candidate[:, :dim_in]])
        out[f"gru.{layer}.input.bias"] = torch.cat(
            [named[f"gru.{layer}.gates.bias"], named[f"gru.{layer}.candidate.bias"]]
        )
        out[f"gru.{layer}.gates.weight"] = gates[:, dim_in:].contiguous()
        out[f"gru.{layer}.candidate.weight"] = candidate[:, dim_in:].contiguous()
    return out


def _read_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "num_classes": state["output_action.weight"].shape[0],
        "width": state["fc_in.weight"].shape[0],
        "state": state["fc_o.weight"].shape[1],
        "num_layers": len({key.split(".")[1] for key in state if key.startswith("gru.")}),
    }


OFFICIAL = (
    OfficialLayout(
        name="release of 2018, recurrent network",
        model="anticipation_rnn",
        detect=rf"{CELL}|gru\.0\.gates\.kernel",
        licence=LICENCE,
        keys=KEYS,
        read_config=_read_config,
        ignored={r".*/Adam(_1)?|beta[12]_power": "state of the optimiser"},
        prepare=_prepare,
    ),
)


# Named sizes ------------------------------------------------------------------------------------------


@register_model(
    tags=["anticipation", "labels", "tokens"],
    paper="https://arxiv.org/abs/1804.00892",
    params=735_410,
    system="anticipation_rnn",
)
def anticipation_rnn(**overrides: Any) -> AnticipationRNN:
    """The recurrent network of 2018: 2 layers of 256, at most 25 segments."""
    own = checked_overrides(AnticipationRNNConfig, overrides, "anticipation_rnn")
    return AnticipationRNN(replace(AnticipationRNNConfig(), **own))
