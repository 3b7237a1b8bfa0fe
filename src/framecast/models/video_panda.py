"""Video-Panda: a language model that reads raw patches of a video and answers questions about it (Yi, Wasim,
Luo, Naseer, Gall, CVPR 2025, https://arxiv.org/abs/2412.18609).

`see` turns a clip into tokens (`backbones/stab.py`); they are put into the text in front of the question
(`nn/splicing.py`) and the language model goes on from there. Any causal language model of Hugging Face will
do; the published one is LLaMA-7B in Vicuna's words.

Questions about one clip can share it: the sequence is the clip once and then every question with its answer,
which sees the clip and itself but no other question, at the positions that it would have alone. The numbers
are those of separate sequences, and the clip is paid for once.

A language model that is not trained is kept by name and fingerprint, not copied into every checkpoint.
Shapes: B clips, T frames, H and W pixels, S positions, L width of the language model.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.backbones.stab import Stab, StabConfig
from framecast.backbones.stab_frames import VisualTokens
from framecast.extras import import_extra
from framecast.models.language_models import (
    build_language_model,
    fingerprint,
    language_config,
    load_language_model,
    load_tokenizer,
    settings_of,
)
from framecast.models.video_panda_encoder import EncoderConfig, FrozenEncoder
from framecast.models.video_panda_prompts import Style, Template, TurnIds, Writer
from framecast.nn.splicing import IGNORED_LABEL, splice
from framecast.registry import checked_overrides, register_model

MOVED = "FRAMECAST_LANGUAGE_MODEL"  # environment variable
Tuning = Literal["frozen", "lora", "whole"]
VICUNA = {  # LLaMA-7B, https://arxiv.org/abs/2302.13971
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 4096,
}


@dataclass(frozen=True)
class VideoPandaConfig:
    language_model: str = ""  # folder, hub id or .gguf file; "" = the settings `llm` with weights of our own
    llm: dict[str, Any] = field(default_factory=lambda: dict(VICUNA))  # as transformers names them
    llm_fingerprint: str = ""  # of the weights of `language_model`
    stab: dict[str, Any] = field(default_factory=dict)  # fields of StabConfig; the width L is the llm's
    encoder: dict[str, Any] = field(default_factory=dict)  # of EncoderConfig, in the STAB's place
    word_length: bool = False  # tokens of the eyes are brought to the mean length of words; not published
    template: Template = "vicuna"
    style: Style = "trained"
    tuning: Tuning = "frozen"  # what of the language model is trained
    lora_rank: int = 16
    lora_alpha: float = 32.0


class Talk(NamedTuple):
    """A clip, or none, and what is asked about it."""

    clip: Tensor | None  # (3, T, H, W) normalised
    valid: Tensor | None  # (T, H, W), zero where a pixel is margin
    head: Tensor  # (P,) ids with a placeholder for each frame
    turns: tuple[TurnIds, ...]


class Packed(NamedTuple):
    """What the language model reads of some talks."""

    embeddings: Tensor  # (B, S, L)
    mask: Tensor  # (B, S) bool, or (B, 1, S, S) to be added to scores
    positions: Tensor  # (B, S)
    labels: Tensor  # (B, S)
    visual: tuple[VisualTokens | None, ...]
    spans: tuple[tuple[tuple[int, int], ...], ...]  # first position and length of every frame


class Answered(NamedTuple):
    """Outcome of a training step."""

    loss: Tensor  # mean over the ids of answers
    hidden_states: tuple[Tensor, ...] | None  # (B, S, L) of the embeddings and of every layer
    packed: Packed
    correct: Tensor  # share of the ids of answers that are foretold


class VideoPanda(nn.Module):
    """Eyes and a language model; `tokenizer` is None until one is read."""

    def __init__(self, config: VideoPandaConfig) -> None:
        super().__init__()
        self.tokenizer: Any = None
        self.language_model, self.config = self._language_model(config)
        width = self.language_model.get_input_embeddings().embedding_dim
        self.stab = open_eyes(self.config, width)
        self._set_up_tuning()
        self.register_state_dict_post_hook(_leave_out)
        self.register_load_state_dict_post_hook(_miss_nothing)

    def _language_model(self, config: VideoPandaConfig) -> tuple[Any, VideoPandaConfig]:
        if not config.language_model:
            return build_language_model(config.llm), config
        config = replace(config, language_model=found_again(config))
        if torch.get_default_device().type == "meta":
            llm = language_config(config.language_model)
            return build_language_model(llm), replace(config, llm=llm)
        loaded = load_language_model(config.language_model)
        found = fingerprint(loaded.model)
        if config.llm_fingerprint not in ("", found):
            raise ValueError(
                f"{config.language_model} is another language model than the one that this model was trained "
                f"with (fingerprint {found}, not {config.llm_fingerprint}); pass that one"
            )
        self.tokenizer = loaded.tokenizer
        known = replace(config, llm=settings_of(loaded.model), llm_fingerprint=found)
        if Path(config.language_model).exists():  # found again from any folder
            known = replace(known, language_model=str(Path(config.language_model).absolute()))
        if config.tuning == "whole":  # its weights are going to be ours
            known = replace(known, language_model="", llm_fingerprint="")
        return loaded.model, known

    def _set_up_tuning(self) -> None:
        c = self.config
        if c.tuning == "whole":
            return
        self.language_model.requires_grad_(False)
        if c.tuning == "lora":
            peft = import_extra("peft", "qa")
            settings = peft.LoraConfig(
                r=c.lora_rank, lora_alpha=c.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
            )
            self.language_model = peft.inject_adapter_in_model(settings, self.language_model)

    @property
    def writer(self) -> Writer:
        """Writes questions as the language model reads them."""
        if self.tokenizer is None:
            raise ValueError("the model has no tokenizer; load one with `read_tokenizer(folder or hub id)`")
        return Writer(self.tokenizer, self.config.template, self.config.style)

    def read_tokenizer(self, source: str | Path) -> None:
        """Raises ValueError where it has more words than the language model."""
        self.tokenizer = load_tokenizer(source, self.language_model.get_input_embeddings().num_embeddings)

    def write_files(self, folder: Path) -> None:
        """The tokenizer, beside the weights."""
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder / "tokenizer")

    def read_files(self, folder: Path) -> None:
        if (folder / "tokenizer").is_dir():
            self.read_tokenizer(folder / "tokenizer")

    def train(self, mode: bool = True) -> VideoPanda:
        """A frozen language model draws no dropout."""
        super().train(mode)
        if self.config.tuning == "frozen":
            self.language_model.eval()
        return self

    # What it reads and answers --------------------------------------------------------------------------

    def see(self, clips: Tensor, valid: Tensor | None = None) -> list[VisualTokens]:
        """Tokens of clips (B, 3, T, H, W), normalised; valid: (B, T, H, W), zero where a pixel is margin."""
        seen = self.stab.encode(clips, valid)
        if not self.config.word_length:
            return seen
        # Left to themselves they grow to many times the words' length where learning rates are high, and
        # what the layers add to them is then lost.
        with torch.no_grad():
            length = self.language_model.get_input_embeddings().weight.norm(dim=1).mean()
        return [replace(v, frames=tuple(length * F.normalize(f, dim=-1) for f in v.frames)) for v in seen]

    def see_all(self, talks: Sequence[Talk]) -> list[VisualTokens | None]:
        """Tokens of the clip of every talk, None where there is none; clips of one size go together."""
        found: list[VisualTokens | None] = [None] * len(talks)
        alike: dict[Any, list[int]] = defaultdict(list)
        for i, talk in enumerate(talks):
            if talk.clip is not None:
                alike[talk.clip.shape, talk.valid is None].append(i)
        for members in alike.values():
            clips = [talks[i].clip for i in members]
            margins = [talks[i].valid for i in members if talks[i].valid is not None]
            seen = self.see(
                torch.stack(clips).to(self.device),  # ty: ignore[invalid-argument-type]
                torch.stack(margins).to(self.device) if margins else None,  # ty: ignore
            )
            for i, tokens in zip(members, seen, strict=True):
                found[i] = tokens
        return found

    @property
    def device(self) -> torch.device:
        return self.language_model.get_input_embeddings().weight.device

    def embed(self, ids: Tensor) -> Tensor:
        return self.language_model.get_input_embeddings()(ids.to(self.device))

    def pack(self, talks: Sequence[Talk]) -> Packed:
        """Clips with their questions, one sequence for each clip."""
        visual = self.see_all(talks)
        blocks = [() if tokens is None else tokens.frames for tokens in visual]
        heads = splice([talk.head for talk in talks], blocks, self.embed)
        shared = heads.mask.sum(1).tolist()
        rows, labels, positions, owners = [], [], [], []
        for i, talk in enumerate(talks):
            turns = [self.embed(turn.ids) for turn in talk.turns]
            rows.append(torch.cat([heads.embeddings[i, : shared[i]], *turns]))
            none = torch.full((shared[i],), IGNORED_LABEL)
            labels.append(torch.cat([none, *(turn.labels for turn in talk.turns)]))
            lengths = [len(turn.ids) for turn in talk.turns]
            starts = [torch.arange(n) + shared[i] for n in lengths]
            positions.append(torch.cat([torch.arange(shared[i]), *starts]))
            of_turn = [torch.full((n,), j) for j, n in enumerate(lengths, start=1)]
            owners.append(torch.cat([torch.zeros(shared[i], dtype=torch.long), *of_turn]))
        device = rows[0].device
        together = nn.utils.rnn.pad_sequence
        embeddings = together(rows, batch_first=True)
        owner = together(owners, True, -1).to(device)
        mask = owner >= 0
        if max(len(talk.turns) for talk in talks) > 1:
            mask = blocked(owner, embeddings.dtype)
        return Packed(
            embeddings,
            mask,
            together(positions, True, 0).to(device),
            together(labels, True, IGNORED_LABEL).to(device),
            tuple(visual),
            heads.spans,
        )

    def forward(self, talks: Sequence[Talk], *, hidden_states: bool = False) -> Answered:
        """Cross entropy of the next id, a mean over the answers' ids of the whole batch."""
        packed = self.pack(talks)
        wanted = packed.labels[:, 1:]
        kept = (wanted != IGNORED_LABEL).any(0).nonzero()[:, 0]  # where any talk has an answer
        if not len(kept):
            raise ValueError("no talk of the batch has an answer to learn from")
        out = self.language_model(
            inputs_embeds=packed.embeddings,
            attention_mask=packed.mask,
            position_ids=packed.positions,
            output_hidden_states=hidden_states,
            logits_to_keep=kept,
            use_cache=False,
        )
        scores, wanted = out.logits.flatten(0, 1).float(), wanted[:, kept].flatten()
        loss = F.cross_entropy(scores, wanted, ignore_index=IGNORED_LABEL)
        known = wanted != IGNORED_LABEL
        correct = (scores.detach().argmax(-1) == wanted)[known].float().mean()
        return Answered(loss, out.hidden_states if hidden_states else None, packed, correct)


def blocked(owner: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores so that every turn sees the head, which is turn 0, and itself.

    owner: (B, S), -1 where nothing stands. Returns (B, 1, S, S). Padding sees
    itself, so that no sum is 0.
    """
    own, other = owner[:, :, None], owner[:, None, :]
    now = torch.arange(owner.shape[1], device=owner.device)
    seen = (now[:, None] >= now) & (other >= 0) & ((other == 0) | (other == own))
    seen |= now[:, None] == now
    return torch.zeros(seen.shape, dtype=dtype, device=owner.device).masked_fill_(
        ~seen, torch.finfo(dtype).min
    )[:, None]


def found_again(config: VideoPandaConfig) -> str:
    """Where the language model of a saved model is now; FRAMECAST_LANGUAGE_MODEL names it where it was moved.

    Raises FileNotFoundError where it was a folder or file and is gone.
    """
    known = Path(config.language_model)
    if not config.llm_fingerprint or not known.is_absolute() or known.exists():
        return config.language_model
    if moved := os.environ.get(MOVED):
        return moved
    raise FileNotFoundError(
        f"the model answers through the language model {known}, which is not there; if it was moved, say "
        f"where it is: {MOVED}=FOLDER (its weights are checked)"
    )


def open_eyes(config: VideoPandaConfig, width: int) -> Stab | FrozenEncoder:
    """Fresh eyes for a language model of that width."""
    if not config.encoder:
        return Stab(checked_stab(config.stab, width))
    if config.stab:
        raise ValueError("stab and encoder are both set; the eyes of a model are one of them")
    checked = checked_overrides(EncoderConfig, config.encoder, "an encoder")
    return FrozenEncoder(replace(EncoderConfig(), **{**checked, "llm_width": width}))


def checked_stab(settings: dict[str, Any], width: int) -> StabConfig:
    if settings.get("llm_width", width) != width:
        raise ValueError(
            f"stab.llm_width is {settings['llm_width']} and the language model is {width} wide; leave it out"
        )
    return replace(StabConfig(llm_width=width), **checked_overrides(StabConfig, settings, "a STAB"))


# What a checkpoint holds --------------------------------------------------------------------------------


def kept_elsewhere(model: VideoPanda, key: str) -> bool:
    """Tensors that a checkpoint leaves out: of a language model that is known by name, and second names."""
    if not key.startswith("language_model."):
        return False
    head = model.language_model.get_output_embeddings()
    table = model.language_model.get_input_embeddings()
    if key == "language_model.lm_head.weight" and getattr(head, "weight", None) is table.weight:
        return True
    return bool(model.config.language_model) and "lora_" not in key


def _leave_out(model: Any, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    for key in [k for k in state if k.startswith(prefix) and kept_elsewhere(model, k.removeprefix(prefix))]:
        del state[key]


def _miss_nothing(model: Any, keys: Any) -> None:
    found = [k for k in keys.missing_keys if not kept_elsewhere(model, k[k.find("language_model.") :])]
    keys.missing_keys[:] = found


def with_eyes(language_model: str, **overrides: Any) -> VideoPanda:
    """Fresh eyes in front of a language model: a folder, a hub id or a .gguf file."""
    return video_panda(language_model=language_model, **overrides)


@register_model(
    tags=["ask", "language", "video", "image"],
    paper="https://arxiv.org/abs/2412.18609",
    params=6_783_482_194,
)
def video_panda(**overrides: Any) -> VideoPanda:
    """Video-Panda: STAB and a language model, by default one of the shape of Vicuna-7B."""
    checked = checked_overrides(VideoPandaConfig, overrides, "Video-Panda")
    return VideoPanda(replace(VideoPandaConfig(), **checked))
