"""How near a predicted answer is in meaning to the right one, by a local model of sentence embeddings.

    similarity = AnswerSimilarity("models/all-MiniLM-L6-v2")
    similarity("the person walks", "walking")                  # cosine, -1..1
    similarity.compute(metrics.predictions())["similar"]

Source: Sentence-BERT (Reimers and Gurevych, EMNLP 2019, https://arxiv.org/abs/1908.10084). An embedding knows
synonyms but holds "yes" and "no", and "two" and "three", for much the same: where the right answer is one of
these, `compute` looks for its word instead. Read it beside exact match, never alone.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from framecast.extras import import_extra
from framecast.metrics.answers import contains, normalise

LONGEST = 128  # tokens of an answer that are looked at


class AnswerSimilarity:
    """Embeds answers with a Hugging Face encoder from a folder or hub id.

    threshold: cosine from which on two answers count as the same. pooling: "mean" of the tokens or "cls";
    None = what the folder says (1_Pooling/config.json), or the mean. Raises FileNotFoundError, ValueError for
    what is no encoder with a tokenizer, MissingExtra without transformers.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        device: str | torch.device = "cpu",
        threshold: float = 0.7,
        batch_size: int = 64,
        pooling: str | None = None,
    ) -> None:
        library = import_extra("transformers", "qa")
        path = Path(source)
        if not path.is_dir() and (
            path.is_absolute() or str(source).count("/") != 1 or str(source)[0] in ".~"
        ):
            raise FileNotFoundError(f"{source} is no folder; pass that of a model of sentence embeddings")
        try:
            self.tokenizer = library.AutoTokenizer.from_pretrained(str(source), trust_remote_code=False)
            model = library.AutoModel.from_pretrained(
                str(source), trust_remote_code=False, use_safetensors=True, dtype=torch.float32
            )
        except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(
                f"{source} cannot be read as a model of sentence embeddings: {lines[0]}"
            ) from None
        if self.tokenizer.pad_token is None:
            raise ValueError(f"{source}: its tokenizer has no padding; pass an encoder, not a language model")
        self.pooling = pooling or _stated_pooling(path)
        if self.pooling not in ("mean", "cls"):
            raise ValueError(f"pooling is {self.pooling!r}; it must be mean or cls")
        self.device, self.threshold, self.batch_size = torch.device(device), threshold, batch_size
        self.source = str(source)
        self.model = model.eval().to(self.device)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) float32 unit vectors; equal texts are embedded once."""
        unique = sorted(set(texts), key=lambda text: (len(text), text))  # equal lengths need less padding
        if not unique:
            raise ValueError("there is no text to embed")
        found = [self._embed(unique[i : i + self.batch_size]) for i in range(0, len(unique), self.batch_size)]
        place = {text: i for i, text in enumerate(unique)}
        return np.concatenate(found)[[place[text] for text in texts]]

    @torch.inference_mode()
    def _embed(self, texts: list[str]) -> np.ndarray:
        encoded = self.tokenizer(
            texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        encoded = {key: value.to(self.device) for key, value in encoded.items()}
        hidden = self.model(**encoded).last_hidden_state  # (N, L, D)
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            mask = encoded["attention_mask"][..., None].to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        return F.normalize(pooled, dim=-1).cpu().numpy()

    def __call__(self, predicted: str, answer: str) -> float:
        """Cosine of two answers."""
        return float(self.pairs([predicted], [answer])[0])

    def pairs(self, predicted: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """(N,) cosines of predictions and answers, place by place; an empty prediction has 0."""
        if len(predicted) != len(answers):
            raise ValueError(f"{len(predicted)} predictions, but {len(answers)} answers")
        vectors = self.embed([*predicted, *answers])
        cosines = (vectors[: len(predicted)] * vectors[len(predicted) :]).sum(1)
        return np.where([bool(text.strip()) for text in predicted], cosines, 0.0)

    def nearest_option(self, text: str, options: Sequence[str]) -> int:
        """The option whose meaning is nearest to a free answer."""
        vectors = self.embed([text, *options])
        return int((vectors[1:] @ vectors[0]).argmax())

    def compute(self, predictions: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """Of `AnswerMetrics.predictions()`: similarity (mean cosine) and similar (share above the threshold).

        Both in -100..100 or 0..100, also by type as similarity@type and similar@type. Of several accepted
        answers the nearest counts.
        """
        rows = list(predictions)
        if not rows:
            raise ValueError("there are no answers to compare")
        pairs = [(i, row["predicted"], answer) for i, row in enumerate(rows) for answer in row["answers"]]
        cosines = self.pairs([p for _, p, _ in pairs], [a for *_, a in pairs])
        cosines = [
            float(contains(p, a)) if _is_exact(a) else cosine
            for (_, p, a), cosine in zip(pairs, cosines, strict=True)
        ]
        best = np.full(len(rows), -1.0)
        np.maximum.at(best, [i for i, *_ in pairs], cosines)
        groups: defaultdict[str, list[float]] = defaultdict(list)
        for row, value in zip(rows, best, strict=True):
            groups[""].append(value)
            if row.get("type"):
                groups[f"@{row['type']}"].append(value)
        found: dict[str, float] = {}
        for name, values in groups.items():
            found[f"similarity{name}"] = 100 * float(np.mean(values))
            found[f"similar{name}"] = 100 * float(np.mean(np.array(values) >= self.threshold))
        return found


def _is_exact(answer: str) -> bool:
    """Yes, no or a number, whose neighbours are wrong however near they are."""
    words = normalise(answer)
    return words in ("yes", "no") or words.replace(".", "").isdecimal()


def _stated_pooling(folder: Path) -> str:
    path = folder / "1_Pooling" / "config.json"
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "mean"
    return "cls" if stated.get("pooling_mode_cls_token") else "mean"
