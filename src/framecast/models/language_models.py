"""Language models of Hugging Face, from a folder, a hub id or a GGUF file, with the tokenizer of each.

Weights are read from safetensors or GGUF, never from pickles, and no code of a model's folder is run. The
package `transformers` is imported when a language model is (extra `qa`).
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from framecast.extras import import_extra

TOKENIZER = "tokenizer.json"
SAMPLED = 1000  # values of a tensor that a fingerprint is taken of


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model and its tokenizer."""

    model: nn.Module  # transformers' PreTrainedModel
    tokenizer: Any  # transformers' fast tokenizer
    source: str  # folder, hub id or file that they come from


def transformers() -> Any:
    """The package, or MissingExtra that says how to install it; its bars are for terminals."""
    library = import_extra("transformers", "qa")
    if not sys.stderr.isatty():
        library.utils.logging.disable_progress_bar()
    return library


def load_language_model(source: str | Path, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """A causal language model from a folder, a hub id ("owner/name") or a .gguf file.

    Raises FileNotFoundError where there is none, ValueError where its files cannot be read or the tokenizer
    is another model's.
    """
    place, gguf = _place(source)
    options: dict[str, Any] = {"dtype": dtype}
    if gguf:
        import_extra("gguf", "qa")
        options["gguf_file"] = gguf
    else:
        options["use_safetensors"] = True
    model = _read(source, transformers().AutoModelForCausalLM, place, options)
    _forget_quantisation(model)
    return LanguageModel(model.eval(), load_tokenizer(source, model.config.vocab_size), str(source))


def load_tokenizer(source: str | Path, vocab_size: int | None = None) -> Any:
    """The tokenizer of a folder, a hub id or a GGUF file; of a folder with both, the one that has files.

    vocab_size: of the language model; a tokenizer with more words is refused. Raises ValueError too where it
    is no fast tokenizer, which alone tell where in the text a token stands.
    """
    place, gguf = _place(source)
    beside = gguf and (Path(place) / TOKENIZER).is_file()
    options = {"gguf_file": gguf} if gguf and not beside else {}
    tokenizer = _read(source, transformers().AutoTokenizer, place, options)
    if not tokenizer.is_fast:
        raise ValueError(f"{source} has only a slow tokenizer; save it with its tokenizer.json")
    if vocab_size is not None and len(tokenizer) > vocab_size:
        raise ValueError(
            f"the tokenizer of {source} has {len(tokenizer):,} words and the language model {vocab_size:,}; "
            "it is another model's"
        )
    return tokenizer


def language_config(source: str | Path) -> dict[str, Any]:
    """The settings of a language model without its weights, as `build_language_model` takes them."""
    place, gguf = _place(source)
    options = {"gguf_file": gguf} if gguf else {}
    return _as_dict(_read(source, transformers().AutoConfig, place, options))


def build_language_model(config: dict[str, Any]) -> nn.Module:
    """A language model with fresh weights from its settings, of which `model_type` says the family."""
    library, settings = transformers(), dict(config)
    family = settings.pop("model_type", None)
    if family is None:
        raise ValueError("the settings of a language model name no model_type, for example llama")
    try:
        return library.AutoModelForCausalLM.from_config(library.AutoConfig.for_model(family, **settings))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"no language model can be built as {family}: {error}") from None


def settings_of(model: nn.Module) -> dict[str, Any]:
    """What `build_language_model` needs to build the same model again."""
    config: Any = model.config
    return _as_dict(config)


def fingerprint(model: nn.Module) -> str:
    """16 digits that tell one language model's weights from another's, from some values of every tensor."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        some = tensor.detach().flatten()[:: max(1, tensor.numel() // SAMPLED)].cpu().float()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(some.numpy().tobytes())
    return digest.hexdigest()[:16]


def end_tokens(model: nn.Module, tokenizer: Any) -> tuple[int, ...]:
    """Ids that end an answer, as the model's own generation settings and its tokenizer name them."""
    stated = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = stated if isinstance(stated, list | tuple) else [stated]
    return tuple(dict.fromkeys(i for i in (*listed, tokenizer.eos_token_id) if i is not None))


def _place(source: str | Path) -> tuple[str, str]:
    """Folder or hub id, and the name of the GGUF file where there is one."""
    path = Path(source)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; pass a .gguf file, a folder or a hub id")
        return str(path.parent), path.name
    if path.is_dir():
        files = sorted(path.glob("*.gguf"))
        if files and not (path / "config.json").is_file():
            return str(path), files[0].name
        return str(path), ""
    if path.is_absolute() or str(source).startswith((".", "~")) or str(source).count("/") != 1:
        raise FileNotFoundError(
            f"{source} is no folder of a language model; pass a folder, a .gguf file or a hub id owner/name"
        )
    return str(source), ""


def _read(source: str | Path, kind: Any, place: str, options: dict[str, Any]) -> Any:
    try:
        return kind.from_pretrained(place, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{source} cannot be read as a language model: {lines[0]}") from None


def _forget_quantisation(model: Any) -> None:
    """A GGUF file is read into plain floats; notes on how it was packed would keep them from being saved."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False


def _as_dict(config: Any) -> dict[str, Any]:
    """Settings that JSON can hold and that differ from the library's defaults, and the family."""
    dropped = ("transformers_version", "_name_or_path", "_model_name_or_path", "quantization_config", "dtype")
    stated = {k: v for k, v in config.to_diff_dict().items() if k not in dropped}
    return {**stated, "model_type": config.model_type}
