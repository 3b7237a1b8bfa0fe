"""How the Focal-TSMP release names its tensors, and what their shapes say about the model."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from framecast.official import OfficialLayout

State = dict[str, Tensor]

BLOCK = r"(encoder|decoder)\.layers\.(\d+)\.blocks\.(\d+)\."
OURS = r"\1.levels.\2.\3."

KEYS = {
    r"encoder\.patch_embed\.(.*)": r"encoder.embed.\1",
    r"encoder\.absolute_pos_embed": r"encoder.position",
    r"encoder\.channel_attn\.mlp\.1\.(.*)": r"encoder.channel_attention.fc1.\1",
    r"encoder\.channel_attn\.mlp\.3\.(.*)": r"encoder.channel_attention.fc2.\1",
    # focal modulation
    BLOCK + r"gamma_(\d)": OURS + r"scale\4.gamma",
    BLOCK + r"modulation\.f\.(.*)": OURS + r"modulation.project_in.\4",
    BLOCK + r"modulation\.h\.(.*)": OURS + r"modulation.project_context.\4",
    BLOCK + r"modulation\.proj\.(.*)": OURS + r"modulation.project_out.\4",
    BLOCK + r"modulation\.ln\.(.*)": OURS + r"modulation.norm.\4",
    BLOCK + r"modulation\.focal_layers\.(\d+)\.0\.weight": OURS + r"modulation.focal.\4.weight",
    # Swin Transformer
    BLOCK + r"attn\.relative_position_bias_table": OURS + r"attn.bias.table",
    BLOCK + r"attn\.cpb_mlp\.0\.(.*)": OURS + r"attn.bias.fc1.\4",
    BLOCK + r"attn\.cpb_mlp\.2\.(.*)": OURS + r"attn.bias.fc2.\4",
    BLOCK + r"attn\.((?:qkv|proj)\.(?:weight|bias)|q_bias|v_bias|logit_scale)": OURS + r"attn.\4",
    # Wave-MLP
    BLOCK + r"mixing\.(.*)": OURS + r"mixing.\4",
    BLOCK + r"((?:norm|mlp).*)": OURS + r"\4",
    # between levels
    r"encoder\.layers\.(\d+)\.downsample\.(.*)": r"encoder.down.\1.\2",  # counted from 0 by `_prepare`
    r"decoder\.layers\.(\d+)\.upsample\.proj\.0\.(.*)": r"decoder.up.\1.proj.\2",
    r"decoder\.layers\.(\d+)\.upsample\.proj\.1\.(.*)": r"decoder.up.\1.point.\2",
    # convolutions
    r"(encoder|decoder)\.conv_blocks\.(\d+)\.norm_layer(\d)\.(.*)": r"\1.levels.\2.0.norm\3.\4",
    r"(encoder|decoder)\.conv_blocks\.(\d+)\.(.*)": r"\1.levels.\2.0.\3",
    r"encoder\.down_sampling_block\.(\d+)\.0\.(.*)": r"encoder.down.\1.conv.proj.\2",
    r"heads\.(.*)": r"heads.\1",  # joined by `_prepare`
}

IGNORED = {
    r".*\.attn_mask": "depends on the grid and is computed",
    r".*\.relative_(position_index|coords_table)": "depends on the window and is computed",
}

POINTWISE = r"\.(modulation\.h|mlp\.fc\d|phase|amplitude|alone|reweight\d|mixing\.proj)\.weight"

WAVE = {  # names inside the release's mixing layer
    r"theta_h_conv\.0": "along_rows.phase",
    r"theta_h_conv\.1": "along_rows.phase_norm",
    r"theta_w_conv\.0": "along_columns.phase",
    r"theta_w_conv\.1": "along_columns.phase_norm",
    r"fc_h": "along_rows.amplitude",
    r"fc_w": "along_columns.amplitude",
    r"fc_c": "alone",
    r"tfc_h": "along_rows.meet",
    r"tfc_w": "along_columns.meet",
    r"reweight\.fc(\d)": r"reweight\1",
    r"proj": "proj",
}


def _prepare(state: State) -> State:
    """One tensor for both heads; 1x1 convolutions as linear maps; levels that halve the grid from 0."""
    out: State = {}
    wave = {key.split(".blocks.")[0].split(".")[0] for key in state if ".attn.fc_h." in key}
    for key, tensor in state.items():
        if re.fullmatch(r"decoder\.(BT|NDVI)_block\..*", key):
            continue
        side = key.split(".")[0]
        if side in wave and ".attn." in key:
            before, inside = key.split(".attn.")
            for theirs, ours in WAVE.items():
                if re.match(theirs + r"\.(?!fc)", inside):
                    key = f"{before}.mixing.{re.sub(theirs, ours, inside, count=1)}"
                    break
        if re.search(
            r"\.(modulation\.h|mlp\.fc\d|phase|amplitude|alone|reweight\d|mixing\.proj)\.weight", key
        ):
            tensor = tensor.flatten(1) if tensor.ndim == 4 else tensor
        if key == "encoder.absolute_pos_embed":
            tensor = tensor[0]
        halving = re.fullmatch(r"encoder\.layers\.(\d+)\.downsample\.(.*)", key)
        if halving:
            key = f"encoder.layers.{int(halving[1]) - 1}.downsample.{halving[2]}"
        out[key] = tensor
    for conv, ours in (("conv1", "conv1"), ("conv3", "conv2")):
        for part in ("weight", "bias"):
            joined = [state[f"decoder.{target}_block.{conv}.{part}"] for target in ("BT", "NDVI")]
            out[f"heads.{ours}.{part}"] = torch.cat(joined)
    return out


def _read_config(state: State, settings: dict[str, Any]) -> dict[str, Any]:
    """What names and shapes tell; windows, ratios and where norms stand may have to be given."""
    encoder, decoder = _family(state, "encoder"), _family(state, "decoder")
    config: dict[str, Any] = {"encoder": encoder, "decoder": decoder, "targets": ("BT", "NDVI")}
    config["widths"] = _widths(state, encoder)
    if encoder == "cnn":
        config["in_channels"] = state["encoder.conv_blocks.0.conv1.weight"].shape[1]
        config["down_sampling"] = "conv" if _some(state, r"encoder\.down_sampling_block.*") else "max"
    else:
        patches = state["encoder.patch_embed.proj.weight"]
        config |= {"in_channels": patches.shape[1], "patch_size": patches.shape[2]}
        config["patch_norm"] = "encoder.patch_embed.norm.weight" in state
        config["depths"] = _depths(state, "encoder")
    if "encoder.channel_attn.mlp.1.weight" in state:
        hidden, channels = state["encoder.channel_attn.mlp.1.weight"].shape
        # any reduction that gives this hidden width; the release's own if it does
        config["channel_attention"] = 5 if channels // 5 == hidden else channels // hidden
    if decoder != "cnn":
        config["decoder_depths"] = _depths(state, "decoder")
        config["up_sampling"] = "conv" if _some(state, r".*upsample\.proj\.0\..*") else "bilinear"
    ratios = {"encoder": 4.0, "decoder": 2.0}
    for side, family in (("encoder", encoder), ("decoder", decoder)):
        prefix = "" if side == "encoder" else "decoder_"
        if family != "cnn":
            hidden, width = state[f"{side}.layers.0.blocks.0.mlp.fc1.weight"].shape[:2]
            ratios[side] = hidden / width
        if family == "focal":
            config[prefix + "focal_levels"], config[prefix + "focal_windows"] = _focal(state, side)
        if family in ("swin", "swin2"):
            config[prefix + "heads"], config["window"] = _heads(state, side, family)
    if "cnn" in (encoder, decoder):
        config["scrambled"] = True  # as the weights were trained
    config["mlp_ratio"] = (ratios["encoder"], ratios["decoder"])
    for setting, key in (("layer_scale", "gamma_1"), ("post_norm_modulation", "modulation.ln.weight")):
        config[setting] = tuple(
            family == "focal" and f"{side}.layers.0.blocks.0.{key}" in state
            for side, family in (("encoder", encoder), ("decoder", decoder))
        )
    return config


def _some(state: State, pattern: str) -> list[str]:
    return [key for key in state if re.fullmatch(pattern, key)]


def _family(state: State, side: str) -> str:
    first = f"{side}.layers.0.blocks.0."
    if f"{side}.conv_blocks.0.conv1.weight" in state:
        return "cnn"
    if first + "modulation.f.weight" in state:
        return "focal"
    if first + "mixing.proj.weight" in state:
        return "wave"
    return "swin2" if first + "attn.q_bias" in state else "swin"


def _levels(state: State, side: str) -> int:
    return 1 + max(int(key.split(".")[2]) for key in _some(state, side + r"\.layers\..*"))


def _depths(state: State, side: str) -> tuple[int, ...]:
    pattern = side + r"\.layers\.{}\.blocks\.\d+\.norm1\.weight"
    return tuple(len(_some(state, pattern.format(level))) for level in range(_levels(state, side)))


def _widths(state: State, family: str) -> tuple[int, ...]:
    if family == "cnn":
        blocks = _some(state, r"encoder\.conv_blocks\.\d+\.conv1\.weight")
        return tuple(state[key].shape[0] for key in sorted(blocks))
    return tuple(
        state[f"encoder.layers.{level}.blocks.0.norm1.weight"].shape[0]
        for level in range(_levels(state, "encoder"))
    )


def _focal(state: State, side: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    levels, windows = [], []
    for level in range(_levels(state, side)):
        first = rf"{side}\.layers\.{level}\.blocks\.0\.modulation\.focal_layers\.\d+\.0\.weight"
        kernels = [state[key].shape[-1] for key in _some(state, first)]
        levels.append(len(kernels))
        windows.append(min(kernels))
    return tuple(levels), tuple(windows)


def _heads(state: State, side: str, family: str) -> tuple[tuple[int, ...], int]:
    heads, window = [], 0
    for level in range(_levels(state, side)):
        attn = f"{side}.layers.{level}.blocks.0.attn."
        if family == "swin":
            offsets, count = state[attn + "relative_position_bias_table"].shape
            window = (round(offsets**0.5) + 1) // 2
        else:
            count = state[attn + "cpb_mlp.2.weight"].shape[0]
            window = round(state[attn + "relative_position_index"].shape[0] ** 0.5)
        heads.append(count)
    return tuple(heads), window


OFFICIAL = (
    OfficialLayout(
        name="the Focal-TSMP release",
        model="focal_tsmp",
        detect=r"decoder\.(BT|NDVI)_block\.conv1\.weight",
        licence="as stated by the release (code: MIT; weights: doi 10.5281/zenodo.10015048)",
        keys=KEYS,
        read_config=_read_config,
        ignored=IGNORED,
        prepare=_prepare,
    ),
)
