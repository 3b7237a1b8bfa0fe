"""Names of the released Video-Panda: its vision part inside the shards of a language model.

The release knows the same modules by two names, for videos and for images (`vision_tower`, `mm_projector`);
a file may have either or both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from framecast.official import OfficialLayout

ALIASES = {"vision_tower.": "video_tower.", "mm_projector.": "video_projector."}


def prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """One name for each tensor; 1 x 1 convolutions and the patch kernel as the matrices that they are."""
    out: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = key.removeprefix("model.")
        for alias, first in ALIASES.items():
            if name.startswith(alias):
                name = first + name.removeprefix(alias)
        if name in out and not same(out[name], tensor):
            raise ValueError(f"{key} differs from the tensor of the same module under its other name")
        out[name] = as_ours(name, tensor)
    return out


def as_ours(name: str, tensor: Tensor) -> Tensor:
    if name.endswith("patch_embedding.weight"):
        return tensor.flatten(1)
    if name.endswith("temporal_cls_token"):
        return tensor.flatten()
    if ".pos_embed." in name and tensor.ndim == 5:  # the kernel over time keeps its three taps
        return tensor.flatten(2) if tensor.shape[2] > 1 else tensor.flatten(1)
    return tensor


def same(ours: Tensor, theirs: Tensor) -> bool:
    theirs = theirs.reshape(ours.shape) if theirs.numel() == ours.numel() else theirs
    return ours.is_meta or theirs.is_meta or torch.equal(ours, theirs)


def read_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    """Sizes from tensor shapes; heads follow from the width, as the release has it."""
    patches, projector = state["video_tower.patch_embedding.weight"], state["video_projector.0.weight"]
    width = patches.shape[0]
    return {
        "width": width,
        "llm_width": projector.shape[0],
        "patch_size": round((patches.shape[1] / 3) ** 0.5),
        "temporal_heads": 11 if width == 1408 else 8,
    }


_ATTENTION = {
    r"q\.0": "norm_query",
    r"q\.1": "query",
    r"kv\.0": "norm_tokens",
    r"kv\.1": "key_value",
    "proj": "proj",
}
_MIXING = {"0": "norm", "1": "down", "2": "time", "3": "up"}
_CLIP = {
    r"attn\.in_proj_": "query_key_value.",
    r"attn\.out_proj\.": "proj.",
    r"ln_1\.": "norm_query.",
    r"ln_2\.": "norm_mlp.",
    r"ln_3\.": "norm_patches.",
    r"mlp\.c_fc\.": "fc1.",
    r"mlp\.c_proj\.": "fc2.",
}
_TOWER = r"video_tower\."
KEYS = {
    _TOWER + r"patch_embedding\.weight": "patch_embed.weight",
    _TOWER + "class_embedding": "frame_token",
    _TOWER + "split_embedding": "row_token",
    _TOWER + "temporal_cls_token": "clip_summary.token",
    _TOWER + "balance": "balance",
    _TOWER + r"dpe\.(.*)": r"position.conv.\1",
    _TOWER + r"proj\.([02])\.(.*)": r"fuse.\1.\2",
    **{_TOWER + rf"lmhra1\.pos_embed\.{i}\.(.*)": rf"mixing.{ours}.\1" for i, ours in _MIXING.items()},
    **{_TOWER + rf"dec\.{theirs}(.*)": rf"clip_summary.{ours}\1" for theirs, ours in _CLIP.items()},
    **{
        _TOWER + rf"{part}_attention\.{theirs}\.(weight|bias)": rf"{name}_summary.{ours}.\1"
        for part, name in (("local", "window"), ("global", "frame"))
        for theirs, ours in _ATTENTION.items()
    },
    r"video_projector\.0\.(.*)": r"projector.fc1.\1",
    r"video_projector\.2\.(.*)": r"projector.fc2.\1",
}
IGNORED = {
    r"video_tower\.lmhra2\..*": "built by the release and never run",
    r"(video_tower|vision_tower)_compressor\..*": "only used while a teacher is imitated",
    r"(layers|embed_tokens|norm|lm_head)\..*": "the language model's own",
}
OFFICIAL = (
    OfficialLayout(
        name="Video-Panda",
        model="video_panda_stab",
        detect=r"(model\.)?(video_tower|vision_tower)\.patch_embedding\.weight",
        licence="Apache-2.0 (Video-Panda); the language model's licence covers its own tensors",
        keys=KEYS,
        ignored=IGNORED,
        read_config=read_config,
        prepare=prepare,
        fresh=r"unused\..*",
    ),
)
