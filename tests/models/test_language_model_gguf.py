"""A language model in a GGUF file, written by the `gguf` package, answers as its folder does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from framecast.models.language_models import language_config, load_language_model
from framecast.models.video_panda import video_panda
from tiny_language_model import tiny_language_model

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def as_gguf(folder: Path, path: Path) -> Path:
    """The language model of a folder, in half precision, as llama.cpp's converter names and turns it."""
    model: Any = load_language_model(folder).model
    c = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(c.vocab_size)
    for key, tensor in model.model.state_dict().items():
        if key.endswith(("q_proj.weight", "k_proj.weight")):  # pairs of a rotation stand side by side there
            heads = c.num_attention_heads if "q_proj" in key else c.num_key_value_heads
            tensor = tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(tensor.shape)
        if key.startswith("layers."):
            _, number, *middle, kind = key.split(".")
            name = f"blk.{number}.{NAMES['.'.join(middle)]}.{kind}"
        else:
            name = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}[key]
        writer.add_tensor(name, (tensor.half() if tensor.ndim > 1 else tensor.float()).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gguf")
    folder = tiny_language_model(root / "folder")
    (root / "packed").mkdir()
    (root / "packed" / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        if (folder / name).is_file():
            (root / "packed" / name).write_bytes((folder / name).read_bytes())
    return as_gguf(folder, root / "packed" / "tiny.gguf")


@torch.inference_mode()
def test_a_gguf_file_is_the_folder_it_was_made_of(file: Path) -> None:
    known, packed = (load_language_model(source) for source in (file.parent.parent / "folder", file))
    ids = torch.tensor([known.tokenizer("what sits? cat").input_ids])
    assert packed.tokenizer("what sits? cat").input_ids == ids[0].tolist()
    ours, theirs = packed.model(ids).logits, known.model(ids).logits
    torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0.02)  # half precision
    assert load_language_model(file.parent).source == str(file.parent), "the folder of one file will do, too"
    assert language_config(file)["hidden_size"] == known.model.config.hidden_size


def test_eyes_before_a_gguf_file(file: Path) -> None:
    eyes = {"width": 16, "num_heads": 2, "temporal_heads": 2, "patch_size": 4, "image_size": 32}
    model = video_panda(language_model=str(file), stab=eyes)
    assert model.config.llm_fingerprint
    assert not any(key.startswith("language_model.") for key in model.state_dict())


def test_a_broken_gguf_file_is_told(file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"broken\.gguf cannot be read as a language model"):
        load_language_model(broken)
    with pytest.raises(FileNotFoundError, match=r"none\.gguf does not exist"):
        load_language_model(tmp_path / "none.gguf")
