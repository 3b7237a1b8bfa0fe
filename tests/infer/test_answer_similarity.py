"""Answers are compared by embeddings: mechanics with a tiny random encoder, meaning with a real one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from framecast.infer.answer_similarity import AnswerSimilarity
from framecast.metrics.answers import AnswerMetrics

transformers = pytest.importorskip("transformers")

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "walk",
    "sit",
    "run",
    "dog",
    "cat",
    "the",
    "two",
    "red",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(vocab={w: i for i, w in enumerate(WORDS)}).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def similarity(folder: Path) -> AnswerSimilarity:
    return AnswerSimilarity(folder, batch_size=3)


def test_equal_answers_are_nearest(similarity: AnswerSimilarity) -> None:
    assert similarity("walk", "walk") == pytest.approx(1, abs=1e-5)
    assert similarity("walk", "sit") < 0.999
    assert similarity("walk", "sit") == pytest.approx(similarity("sit", "walk"), abs=1e-5)
    assert similarity("", "walk") == 0
    assert similarity.nearest_option("dog", ("walk", "dog", "cat")) == 1


def test_padding_and_batches_do_not_matter(similarity: AnswerSimilarity) -> None:
    texts = ["walk", "the dog", "two red dog run", "sit", "the cat sit", "walk"]
    together = similarity.embed(texts)
    alone = np.concatenate([similarity.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(together[0], together[5])


def test_scores_of_many_answers(similarity: AnswerSimilarity) -> None:
    metrics = AnswerMetrics()
    metrics.update("dog", ("cat", "dog"), type="what")  # the nearest of the accepted ones counts
    metrics.update("two", "two", type="count")
    metrics.update("", "two", type="count")
    metrics.update("two or three", "two", type="word")  # a number counts where it stands
    metrics.update("the dog", "no", type="word")  # however near it may be
    found = similarity.compute(metrics.predictions())
    assert found["similarity@what"] == pytest.approx(100, abs=1e-3)
    assert found["similar@count"] == 50
    assert found["similarity@word"] == found["similar@word"] == 50
    assert found["similar"] == pytest.approx(100 * 3 / 5)
    kinds = ("", "@what", "@count", "@word")
    assert set(found) == {f"{key}{kind}" for key in ("similarity", "similar") for kind in kinds}


def test_the_folder_says_how_tokens_are_pooled(folder: Path) -> None:
    stated = folder / "1_Pooling"
    stated.mkdir()
    (stated / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    try:
        first = AnswerSimilarity(folder)
        mean = AnswerSimilarity(folder, pooling="mean")
        assert (first.pooling, mean.pooling) == ("cls", "mean")
        assert not np.allclose(first.embed(["the dog"]), mean.embed(["the dog"]), atol=1e-3)
    finally:
        (stated / "config.json").unlink()
        stated.rmdir()
    with pytest.raises(ValueError, match="pooling is 'max'"):
        AnswerSimilarity(folder, pooling="max")


def test_wrong_use_is_refused(similarity: AnswerSimilarity, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no folder; pass that of a model"):
        AnswerSimilarity(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="cannot be read as a model of sentence embeddings"):
        AnswerSimilarity(tmp_path)
    with pytest.raises(ValueError, match="2 predictions, but 1 answers"):
        similarity.pairs(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="no answers to compare"):
        similarity.compute([])


def test_a_real_model_knows_synonyms() -> None:
    folder = os.environ.get("FRAMECAST_SENTENCE_MODEL", "")
    if not Path(folder, "config.json").is_file():
        pytest.skip("set FRAMECAST_SENTENCE_MODEL to the folder of a model of sentence embeddings")
    similarity = AnswerSimilarity(folder)
    assert similarity("the man is running", "a man jogs") > similarity("the man is running", "a red car")
    assert similarity.nearest_option("an automobile", ("a dog", "a car", "a tree")) == 1
