"""The networks of 2018: fast paths equal the plain ones, and decoding does what the paper says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import framecast as fc
from framecast.models.anticipation_cnn import ORDER, smoothing_matrix
from framecast.models.anticipation_rnn import NAMES
from framecast.models.label_encoding import one_hot_rows, rows_of, runs_of

CLASSES = 5


def rnn(**config: Any) -> Any:
    torch.manual_seed(0)
    model = fc.create_model("anticipation_rnn", num_classes=CLASSES, width=16, state=12, **config)
    return model.eval()


def cnn(**config: Any) -> Any:
    torch.manual_seed(0)
    small = {"num_classes": CLASSES, "num_rows": 16, "hidden": 32, "smoothing": 1.0}
    return fc.create_model("anticipation_cnn", **(small | config)).eval()


def random_labels(num_segments: int, seed: int = 0, longest: int = 30) -> np.ndarray:
    rng = np.random.default_rng(seed)
    steps = rng.integers(1, CLASSES, num_segments)  # neighbours differ
    return np.repeat(np.cumsum(steps) % CLASSES, rng.integers(5, longest, num_segments))


# --- encodings ---------------------------------------------------------------------------------------------


def test_runs_are_maximal_and_spell_the_labels() -> None:
    labels = random_labels(9)
    classes, lengths = runs_of(labels)
    assert len(classes) == 9
    np.testing.assert_array_equal(np.repeat(classes, lengths), labels)
    assert [len(part) for part in runs_of(labels[:0])] == [0, 0]


def test_rows_equal_the_labels_where_there_is_one_for_each_frame() -> None:
    labels = random_labels(6)
    np.testing.assert_array_equal(rows_of(labels, len(labels)), labels)
    np.testing.assert_array_equal(rows_of(labels, 4 * len(labels)), np.repeat(labels, 4))
    short = np.repeat([0, 1, 2], [50, 1, 49])
    np.testing.assert_array_equal(rows_of(short, 4), [0, 0, 2, 2])  # one frame of 100 disappears
    assert one_hot_rows(labels[:0], 4, CLASSES).sum() == 0


# --- recurrent network -------------------------------------------------------------------------------------


def test_cuts_read_at_once_equal_each_sequence_by_itself() -> None:
    model = rnn()
    examples = model.examples(random_labels(7), num_shares=3)
    tokens, count, target = examples.sequences(model.config.max_tokens)
    mask = torch.arange(tokens.shape[2]) < torch.from_numpy(count)[:, None]
    one_by_one = model(torch.from_numpy(tokens), mask)
    arrays = (examples.tokens, examples.cuts, examples.lengths)
    whole, cuts, lengths = (torch.from_numpy(a) for a in arrays)
    together = model.forward_cuts(whole[None], cuts[None], lengths)  # (M, L, K + 2)
    assert_close(together.transpose(0, 1).flatten(0, 1), one_by_one, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(target, examples.target.transpose(1, 0, 2).reshape(-1, 3))


def test_what_padding_holds_changes_nothing_and_release_reads_zeros() -> None:
    tokens = torch.randn(3, CLASSES + 1, 8)
    mask = torch.arange(8) < torch.tensor([8, 3, 5])[:, None]
    model = rnn()
    together = model(tokens, mask)
    for i, count in enumerate([8, 3, 5]):
        assert_close(model(tokens[i : i + 1, :, :count])[0], together[i], rtol=1e-4, atol=1e-5)
    release = rnn(padding="release", max_tokens=10)
    padded = torch.nn.functional.pad(tokens * mask[:, None], (0, 2))
    assert_close(release(tokens, mask), model(padded), rtol=1e-4, atol=1e-5)
    assert (release(tokens, mask) - together).abs().max() > 1e-3


def test_examples_hold_what_follows_each_cut() -> None:
    labels = np.repeat([0, 3, 1], [10, 20, 30])
    examples = rnn(time_units=6.0).examples(labels, num_shares=2)  # a unit is 10 frames
    assert examples.cuts.tolist() == [True, True, False]
    np.testing.assert_allclose(examples.lengths, [[0.2, 0.7], [0.5, 1.5]])
    np.testing.assert_allclose(examples.target[0], [[3, 2, 0.8], [3, 2, 0.3]])
    np.testing.assert_allclose(examples.target[1], [[1, 3, 1.5], [1, 3, 0.5]])
    partial = rnn(next_length="partial").examples(labels, num_shares=2)
    np.testing.assert_allclose(partial.target[0, :, 1], [0.5, 1.5])
    np.testing.assert_allclose(partial.target[1, :, 1], [3, 3])  # the last cut of a video


def test_long_sequences_keep_their_last_tokens() -> None:
    model = rnn(max_tokens=4)
    examples = model.examples(random_labels(9), num_shares=1)
    tokens, count, _ = examples.sequences(4)
    assert count.tolist() == [1, 2, 3, 4, 4, 4, 4, 4]
    np.testing.assert_array_equal(tokens[-1][:, :3], examples.tokens[:, 4:7])
    observed = random_labels(9)
    kept = observed[np.cumsum(runs_of(observed)[1])[4] :]  # the last 4 segments
    last, first = (rnn(max_tokens=4, too_long=c).forecast(observed, 60, 400) for c in ("last", "first"))
    np.testing.assert_array_equal(last, model.forecast(kept, 60, 400))
    assert not np.array_equal(last, first)


@pytest.mark.parametrize("build", [rnn, cnn])
def test_many_videos_at_once_equal_one_by_one_and_horizons_are_nested(build: Any) -> None:
    model = build()
    observed = [random_labels(n, seed=n) for n in (1, 4, 7)]
    total = [4 * len(o) for o in observed]
    together = model.forecast_many(observed, [len(o) for o in observed], total)
    for labels, length, future in zip(observed, total, together, strict=True):
        assert future.shape == (1, len(labels))
        np.testing.assert_array_equal(model.forecast(labels, len(labels), length), future)
        shorter = model.forecast(labels, len(labels) // 2, length)
        np.testing.assert_array_equal(shorter, future[:, : len(labels) // 2])


def test_samples_differ_and_repeat_with_their_seed() -> None:
    model = rnn()
    observed = random_labels(5)
    draws = [model.forecast(observed, 200, 400, 16, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert draws[0].shape == (16, 200)
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert len(np.unique(draws[0], axis=0)) > 1


def test_a_network_that_answers_nothing_repeats_the_last_action() -> None:
    model = rnn()
    with torch.no_grad():
        model.head_lengths.bias.fill_(-100.0)
    np.testing.assert_array_equal(model.forecast(np.array([0, 0, 2, 2]), 6, 20), [[2] * 6])


def test_it_learns_an_order_and_its_lengths() -> None:
    """Always 0, 1, 2 for 20, 40 and 40 % of a video: the future is known for certain."""
    videos = [np.repeat([0, 1, 2], [n, 2 * n, 2 * n]) for n in (20, 30, 40)]
    torch.manual_seed(0)
    model = fc.create_model("anticipation_rnn", num_classes=3, width=32, state=32)
    examples = [model.examples(video) for video in videos]
    batch = [torch.from_numpy(np.stack([getattr(e, name) for e in examples])) for name in ("tokens", "cuts")]
    lengths, target = (
        torch.from_numpy(np.concatenate([getattr(e, name) for e in examples]))
        for name in ("lengths", "target")
    )
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(200):
        loss = model.loss(model.forward_cuts(*batch, lengths), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    truth = np.repeat([0, 1, 2], [24, 48, 48])  # a length that it was not trained on
    future = model.forecast(truth[:30], 60, 120)[0]
    assert (future == truth[30:90]).mean() > 0.9


@pytest.mark.parametrize("build", [rnn, cnn])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([], dtype=np.int64), "nothing can be anticipated"),
        (np.array([0, 9]), r"label 9 at frame 1 is not one of the 5 classes"),
        (np.array([0.5]), "class indices, got float64"),
    ],
)
def test_observations_that_are_none_are_refused(build: Any, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build().forecast(labels, 5, 20)


def test_class_weights_count_in_the_loss() -> None:
    model = rnn()
    answers, target = torch.zeros(2, CLASSES + 2), torch.tensor([[0.0, 0, 0], [1, 0, 0]])
    answers[0, 0] = 5
    weight = torch.tensor([1.0, 3, 1, 1, 1])
    assert model.loss(answers, target, weight) > model.loss(answers, target)


def test_a_length_below_0_learns_unless_it_is_rectified() -> None:
    """The release rectifies while it trains: a head that starts below 0 stays there."""
    for how, learns in (("raw", True), ("rectified", False)):
        model = rnn(train_lengths=how).train()
        torch.nn.init.constant_(model.head_lengths.bias, -9.0)
        answers = model(torch.rand(2, CLASSES + 1, 3))
        model.loss(answers, torch.ones(2, 3)).backward()
        assert bool(model.head_lengths.weight.grad.any()) is learns
        assert (model.eval()(torch.rand(2, CLASSES + 1, 3))[:, -2:] == 0).all()


# --- convolutional network ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_rows", "sigma"), [(16, 3.0), (4, 3.0), (12, 0.8), (8, 0.0)])
def test_smoothing_mirrors_the_ends(num_rows: int, sigma: float) -> None:
    radius = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma, 1e-9)) ** 2)
    x = np.random.default_rng(0).random((2, num_rows))
    padded = np.pad(x, ((0, 0), (radius, radius)), mode="symmetric")
    expected = np.stack([np.convolve(row, kernel / kernel.sum(), mode="valid") for row in padded])
    got = torch.from_numpy(x).float() @ smoothing_matrix(num_rows, sigma)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_answer_rows_have_length_1_and_classes_do_not_meet_before_the_linear_maps() -> None:
    model = cnn()
    rows = torch.rand(3, CLASSES, 16)
    assert_close(model(rows).norm(dim=1), torch.ones(3, 16))


def test_the_last_label_goes_on_beyond_the_answer() -> None:
    model = cnn()
    future = model.forecast(random_labels(3), 90, 100, samples=2)
    assert future.shape == (2, 90)
    assert (future[:, 50:] == future[:, 49:50]).all()


def test_row_examples_are_the_past_and_the_next_half() -> None:
    labels = np.repeat([0, 1, 2, 3], 40)
    seen, following = cnn().examples(labels, observed=(0.5, 0.25))
    np.testing.assert_array_equal(seen[0].argmax(0), np.repeat([0, 1], 8))
    np.testing.assert_array_equal(following[0].argmax(0), np.repeat([2, 3], 8))
    np.testing.assert_array_equal(following[1].argmax(0), np.repeat([1, 2], 8))


# --- checkpoints of the release ----------------------------------------------------------------------------


def test_variables_are_read_by_the_order_of_their_creation() -> None:
    model = rnn()
    ours = model.state_dict()
    own = ("fc_in", "fc_out", "head_label", "head_lengths")
    values = [ours[f"{name}.{part}"] for name in own for part in ("weight", "bias")]
    state = {name: t.mT if t.ndim == 2 else t for name, t in zip(NAMES, values, strict=True)}
    for i in range(2):
        cell = f"rnn/multi_rnn_cell/cell_{i}/gru_cell"
        x, x_bias = ours[f"layers.{i}.input.weight"].mT, ours[f"layers.{i}.input.bias"]
        gates, candidate = ours[f"layers.{i}.gates.weight"].mT, ours[f"layers.{i}.candidate.weight"].mT
        state |= {
            f"{cell}/gates/kernel": torch.cat([x[:, :24], gates]),
            f"{cell}/gates/bias": x_bias[:24],
            f"{cell}/candidate/kernel": torch.cat([x[:, 24:], candidate]),
            f"{cell}/candidate/bias": x_bias[24:],
        }
    state["Variable/Adam"] = torch.zeros(2)
    state["beta1_power"] = torch.zeros(())
    again: Any = fc.import_checkpoint("anticipation_rnn", state)
    assert again.config.num_classes == CLASSES
    assert again.import_report.complete
    tokens = torch.randn(2, CLASSES + 1, 4)
    assert_close(again(tokens), model(tokens))


def test_variables_of_the_convolutional_network() -> None:
    model = cnn()
    ours = model.state_dict()
    values = [ours[f"{n}.{part}"] for n in ("conv1", "conv2", "fc1", "fc2") for part in ("weight", "bias")]
    kernels = [t.permute(2, 1, 0)[:, None] if t.ndim == 3 else t.mT if t.ndim == 2 else t for t in values]
    state = {"Variable" + (f"_{i}" if i else ""): t for i, t in enumerate(kernels)}
    assert len(state) == len(ORDER)
    again = fc.import_checkpoint(
        "anticipation_cnn", state, num_classes=CLASSES, num_rows=16, hidden=32, smoothing=1.0
    )
    rows = torch.rand(2, CLASSES, 16)
    assert_close(again(rows), model(rows))
