"""A language model of 20,000 random weights with a tokenizer of letters and a few words, as a folder."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

WORDS = ("what", "who", "where", "cat", "dog", "walks", "sits", "yes", "no", "three", "USER", "ASSISTANT")
CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WIDTH, LAYERS = 24, 4


def tiny_language_model(folder: Path, *, seed: int = 0, chat: bool = True) -> Path:
    """Written into the folder as Hugging Face has it; the same for the same seed."""
    tokenizer = tiny_tokenizer(chat=chat)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=40,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        initializer_range=0.3,  # far from uniform answers
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_tokenizer(*, chat: bool = True) -> transformers.PreTrainedTokenizerFast:
    """Letters one by one; a few words as they are."""
    letters = [chr(i) for i in range(32, 127)] + ["\n"]
    special = ["<unk>", "<s>", "</s>", "<pad>", "<|user|>", "<|assistant|>"]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*special, *letters, *WORDS]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    known = Regex("|".join(WORDS) + r"|[\s\S]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(known, "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
    )
    if chat:
        fast.chat_template = CHAT
    return fast
