"""The networks of 2018 give the numbers of the release: forward, loss, examples, decoding, encoding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from golden import Fixture, fixtures, require
from torch import Tensor
from torch.testing import assert_close

import framecast as fc
from framecast.models.anticipation_rnn import AnticipationRNN
from framecast.models.label_encoding import one_hot_rows, runs_of
from framecast.models.segment_tokens import Transcripts

CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
NEAR_A_FRAME = 1e-3  # real lengths nearer to a whole number of frames may be cut to another one


def cases(tensors: dict[str, Tensor], prefix: str, count: int) -> list[dict[str, np.ndarray]]:
    """Tensors of the sub-cases `<prefix><i>.`, without that."""
    starts = [f"{prefix}{i}." for i in range(count)]
    arrays = {key: tensor.numpy() for key, tensor in tensors.items()}
    return [{k.removeprefix(s): a for k, a in arrays.items() if k.startswith(s)} for s in starts]


def check_rnn(fixture: Fixture) -> None:
    meta, given = fixture.meta, fixture.tensors
    model: Any = fc.import_checkpoint(
        "anticipation_rnn",
        fixture.part("state"),
        max_tokens=meta["max_seq_sz"],
        time_units=float(meta["alpha"]),
        padding="release",
        too_long="first",
        next_length="partial",
    )
    assert (model.config.num_classes, model.config.state) == (meta["num_classes"], meta["rnn_size"])
    assert len(model.layers) == meta["num_layers"]

    examples = model.examples(given["ex.labels"].numpy(), meta["n_iterations_in_ex"])
    tokens, count, target = examples.sequences(model.config.max_tokens)
    assert_close(torch.from_numpy(tokens).mT, given["ex.input"], **CLOSE)
    assert_close(torch.from_numpy(count), given["ex.seq_len"])
    assert_close(torch.from_numpy(target[:, 0]).long(), given["ex.target"][:, :-2].argmax(1))
    assert_close(torch.from_numpy(target[:, 1:]), given["ex.target"][:, -2:], **CLOSE)

    answers = model(given["ex.input"].mT)
    assert_close(answers[:, :-2], given["fwd.label_logits"], **CLOSE)
    assert_close(answers[:, -2:], given["fwd.lengths"], **CLOSE)
    assert_close(model.loss(answers, torch.from_numpy(target)).reshape(1), given["fwd.loss"], **CLOSE)
    for i, case in enumerate(cases(given, "dec.", len(meta["decodes"]))):
        check_decoding(model, case, meta["decodes"][i]["pred_len"], meta["decodes"][i]["vid_len"])


def check_decoding(
    model: AnticipationRNN, case: dict[str, np.ndarray], num_future: int, total_length: int
) -> None:
    observed, everything = case["observed"], case["recognition"]
    unit = total_length / model.config.time_units
    lengths = np.concatenate([case["final_lengths"], unit * case["net_outputs"][:, -2:].reshape(-1)])
    inserted = lengths[lengths != np.round(lengths)]  # observed ones are whole
    if np.abs(inserted - np.round(inserted)).min(initial=1) > NEAR_A_FRAME:
        future = model.forecast(observed, num_future, total_length)
        assert future.shape == (1, num_future)
        np.testing.assert_array_equal(future[0], everything[len(observed) :])
    check_every_step(model, case, num_future, unit)


@torch.no_grad()
def check_every_step(
    model: AnticipationRNN, case: dict[str, np.ndarray], num_future: int, unit: float
) -> None:
    """What the network reads and answers at each step of decoding, and the segments in the end."""
    c = model.config
    paths = Transcripts([runs_of(case["observed"])], np.array([num_future]), np.array([unit]))
    for expected in case["net_outputs"]:
        active = paths.unfinished()
        tokens, mask = paths.tokens(active, c.num_classes, c.max_tokens, c.too_long)
        answer = model(torch.from_numpy(tokens), torch.from_numpy(mask))
        assert_close(answer[0], torch.from_numpy(expected), **CLOSE)
        next_length, rest = answer[:, -2:].double().numpy().T * unit
        paths.extend(active, answer[:, :-2].argmax(1).numpy(), next_length, rest)
    assert not len(paths.unfinished())
    count = paths.count[0]
    np.testing.assert_array_equal(paths.labels[0, :count], case["final_labels"])
    np.testing.assert_allclose(paths.lengths[0, :count], case["final_lengths"], rtol=1e-5, atol=1e-2)


def check_cnn(fixture: Fixture) -> None:
    meta, given = fixture.meta, fixture.tensors
    model: Any = fc.import_checkpoint(
        "anticipation_cnn",
        fixture.part("state"),
        num_classes=meta["num_classes"],
        num_rows=meta["n_rows"],
        smoothing=float(meta["sigma"]),
    )
    assert model.config.hidden == meta["hidden"]
    for about, case in zip(meta["cases"], cases(given, "case.", len(meta["cases"])), strict=True):
        observed, everything, total = case["observed"], case["recognition"], about["vid_len"]
        rows = one_hot_rows(observed, meta["n_rows"], meta["num_classes"])
        np.testing.assert_array_equal(rows.T, case["input"])
        answer = model(torch.from_numpy(rows)[None])
        assert_close(answer[0].T, torch.from_numpy(case["pred"]), **CLOSE)
        assert_close(model.smoothed(answer)[0].T, torch.from_numpy(case["smoothed"]), **CLOSE)
        loss = model.loss(answer, torch.from_numpy(case["target"].T)[None])
        assert_close(loss.reshape(1), torch.from_numpy(case["loss"]), **CLOSE)
        future = model.forecast(observed, len(everything) - len(observed), total)
        np.testing.assert_array_equal(future[0], everything[len(observed) :])


def check_encoding(fixture: Fixture) -> None:
    meta = fixture.meta
    for about, case in zip(meta["cases"], cases(fixture.tensors, "", len(meta["cases"])), strict=True):
        labels, lengths = runs_of(case["labels"])
        np.testing.assert_array_equal(labels, case["seg_labels"])
        np.testing.assert_array_equal(lengths, case["seg_lengths"])
        np.testing.assert_array_equal(
            one_hot_rows(case["labels"], about["rows"], about["cols"]).T, case["encoded"]
        )


CHECKS: dict[str, Any] = {"rnn": check_rnn, "cnn": check_cnn, "encode_content": check_encoding}


@pytest.mark.parametrize("fixture", fixtures("anticipation_2018"))
def test_anticipation_2018(fixture: Fixture | None) -> None:
    fixture = require(fixture)
    assert fixture.kind in CHECKS, f"unknown kind {fixture.kind}"
    CHECKS[fixture.kind](fixture)
