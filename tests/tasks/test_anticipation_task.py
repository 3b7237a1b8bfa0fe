"""Anticipation: what follows never leaks into what is observed, and every kind of model trains and scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from framecast.data.anticipation import AnticipationData, at_frames, beginning, open_anticipation
from framecast.data.synthetic import write_lookalike
from framecast.models.anticipation_baselines import create_forecaster
from framecast.tasks.anticipation import DenseAnticipationTask, ObservedShares, balanced_weights
from framecast.tasks.forecasting import Sampling, collect_futures, forecast_video
from framecast.tasks.label_anticipation import LabelAnticipationTask

DENSE: dict[str, dict[str, Any]] = {
    "gtda": {"num_stages": 2, "num_layers": 2, "width": 8, "diffusion_steps": 20},
    "manta": {"num_layers": 2, "width": 8, "diffusion_steps": 20},
    "gtda_deterministic": {"num_stages": 2, "num_layers": 2, "width": 8},
}
LABELS: dict[str, dict[str, Any]] = {
    "anticipation_rnn": {"width": 8, "state": 8},
    "anticipation_cnn": {"num_rows": 16, "hidden": 16},
}
FEW = Sampling(samples=3, steps=3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "breakfast"
    write_lookalike("breakfast", folder, seed=0, num_videos=8, feature_dim=6)
    return folder


def sides(root: Path, **settings: Any) -> tuple[AnticipationData, AnticipationData]:
    given = {"layout": "breakfast", "split": 1, "sample_rate": 5} | settings
    return open_anticipation(root, subset="train", **given), open_anticipation(root, subset="test", **given)


def make_task(root: Path, model: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    if model in LABELS:
        config, protocol = LABELS[model], "anticipation/2018"
        return LabelAnticipationTask(
            *sides(root),
            model=model,
            model_config=config,
            protocol=protocol,
            sampling=replace(FEW, samples=1),
        )
    protocol = "anticipation/official-any"
    data = sides(root, **settings)
    return DenseAnticipationTask(
        *data, model=model, model_config=DENSE[model], protocol=protocol, sampling=FEW
    )


@pytest.mark.parametrize("model", [*DENSE, *LABELS])
def test_every_model_learns_and_is_scored(model: str, root: Path) -> None:
    task = make_task(root, model)
    network = task.build_model()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    batch = task.collate([task.train_data[i] for i in range(min(6, len(task.train_data)))])
    losses = []
    for _ in range(25):
        torch.manual_seed(1)
        loss, _ = task.loss(network, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    scores = task.evaluate(network.eval(), torch.device("cpu"))
    assert 0 <= scores["moc" if model in LABELS else "mean_moc"] <= 100
    assert scores["num_videos"] == len(task.eval_data)
    assert scores == task.evaluate(network, torch.device("cpu"))  # the same noise for a video every time


@pytest.mark.parametrize("observe", ["labels", "features", "both"])
@pytest.mark.parametrize("model", [*DENSE, *LABELS])
def test_nothing_after_the_observation_changes_the_futures(model: str, observe: str, root: Path) -> None:
    if model in LABELS and observe != "labels":
        pytest.skip("reads labels only")
    task = make_task(root, model, observe=observe)
    network, data = task.build_model().eval(), task.eval_data
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    rng = np.random.default_rng(3)

    def futures(source: AnticipationData, share: float) -> list[np.ndarray]:
        walks = forecast_video(network, source, 0, share, 0.3, FEW)
        coupled = forecast_video(network, source, 0, share, 0.3, replace(FEW, draw="coupled"))
        redrawn = forecast_video(network, source, 0, share, 0.3, replace(FEW, draw="redrawn"))
        return [x for x in (*walks, *coupled, *redrawn) if x is not None]

    for share in rng.uniform(0.1, 0.6, 3):
        before, after = futures(data, share), futures(_Changed(data, share, rng), share)
        assert all(map(np.array_equal, before, after))
    before, after = futures(data, 0.5), futures(_Changed(data, 0.0, rng), 0.5)
    assert not all(map(np.array_equal, before, after)), "the past should matter, or this test sees nothing"


class _Changed(AnticipationData):
    """The same data, with labels and features after a share of every video drawn anew."""

    def __init__(self, data: AnticipationData, share: float, rng: np.random.Generator) -> None:
        vars(self).update(vars(data))
        self.share, self.rng, self.plain = share, rng, data

    def annotation(self, index: int) -> np.ndarray:
        labels = self.plain.annotation(index).copy()
        first = int(self.share * len(labels))
        labels[first:] = self.rng.integers(len(self.classes), size=len(labels) - first)
        return labels

    def __getitem__(self, index: int) -> dict[str, Any]:
        assert self.tracks is not None, "labels alone are read through annotation()"
        sample = dict(self.plain[index])
        now = int(self.share * len(self.plain.annotation(index)))
        first = int(np.searchsorted(self.tracks.step_frames(index), now))
        sample["labels"] = sample["labels"].copy()
        sample["labels"][first:] = self.rng.integers(len(self.classes), size=len(sample["labels"]) - first)
        sample["features"] = sample["features"].copy()
        sample["features"][:, first:] = 100 * self.rng.standard_normal(sample["features"][:, first:].shape)
        return sample


def test_a_beginning_is_cut_at_annotated_frames(root: Path) -> None:
    data, _ = sides(root, observe="both", sample_rate=5)
    frames = len(data.annotation(0))
    part = beginning(data, 0, 0.3, 0.5)
    assert part.past == -(-int(0.3 * frames) // 5)
    assert len(part.labels) == -(-int(0.8 * frames) // 5)
    assert part.observed.shape == (data.observed_dim, len(part.labels))
    assert not part.observed[:, part.past :].any()
    hot = part.observed[-len(data.classes) :, : part.past]
    assert np.array_equal(hot.argmax(0), part.labels[: part.past])
    assert (hot.sum(0) == 1).all()


def test_labels_alone_are_cut_into_steps_round_the_present(root: Path) -> None:
    data, _ = sides(root, observe="labels", sample_rate=4)
    labels = data.annotation(0)
    now, end = int(0.3 * len(labels)), int(0.8 * len(labels))
    part = beginning(data, 0, 0.3, 0.5)
    assert part.labels[part.past - 1] == labels[now - 1]
    assert part.frames[part.past] == now
    assert part.past == -(-now // 4)
    assert len(part.labels) - part.past == -(-(end - now) // 4)
    assert part.labels[part.past + 1] == labels[now + 4 + 2]
    assert np.array_equal(part.observed.argmax(0)[: part.past], part.labels[: part.past])
    spread = at_frames(part.labels[None], part.frames, now, end)
    assert (spread[0] == labels[now:end]).mean() > 0.8


def test_the_rate_of_labels_can_be_told(root: Path) -> None:
    told = open_anticipation(root, layout="breakfast", split=1, subset="test", label_fps=25.0)
    assert told.frames_per_second == 25


def test_frames_take_the_label_of_the_last_step_before_them() -> None:
    labels = at_frames(np.array([[1, 2, 3]]), np.array([2, 5, 8]), 0, 10)
    assert labels.tolist() == [[1, 1, 1, 1, 1, 2, 2, 2, 3, 3]]


def test_training_shares_are_redrawn_now_and_then(root: Path) -> None:
    data, _ = sides(root)
    task = make_task(root, "manta")
    assert len(task.train_data) == 3 * len(data) == len(task.train_data.lengths)
    fixed = DenseAnticipationTask(
        data, None, model="manta", model_config=DENSE["manta"], shares=ObservedShares(redraw=0.0)
    )
    assert {fixed.train_data[0]["past"] for _ in range(5)} == {beginning(data, 0, 0.2, 0.5).past}
    always = DenseAnticipationTask(
        data, None, model="manta", model_config=DENSE["manta"], shares=ObservedShares(redraw=1.0)
    )
    assert len({always.train_data[0]["past"] for _ in range(20)}) > 3


def test_settings_that_do_not_fit_are_refused(root: Path) -> None:
    data = sides(root)
    with pytest.raises(ValueError, match=r"counts 25 futures and sampling\.samples is 3"):
        DenseAnticipationTask(*data, model="manta", model_config=DENSE["manta"], sampling=FEW)
    with pytest.raises(ValueError, match="feature_dim is 7 but the data"):
        DenseAnticipationTask(*data, model="manta", model_config={"feature_dim": 7})
    with pytest.raises(ValueError, match="ltcontext is no anticipation model"):
        DenseAnticipationTask(*data, model="ltcontext", model_config={})
    with pytest.raises(ValueError, match="reads labels"):
        LabelAnticipationTask(*sides(root, observe="features"), model="anticipation_rnn")


@pytest.mark.parametrize("model", ["manta", *LABELS])
def test_rare_classes_can_weigh_more(model: str, root: Path) -> None:
    kind, config = (LabelAnticipationTask, LABELS) if model in LABELS else (DenseAnticipationTask, DENSE)
    given: dict[str, Any] = {"model": model, "model_config": config[model]}
    if model not in LABELS:
        given |= {"sampling": FEW, "protocol": "anticipation/official-any"}
    plain, weighed = kind(*sides(root), **given), kind(*sides(root), class_weight=0.5, **given)
    network = plain.build_model().eval()
    batch = plain.collate([plain.train_data[i] for i in range(4)])
    losses = []
    for task in (plain, weighed, plain):
        torch.manual_seed(0)
        losses.append(task.loss(network, batch)[0].item())
    assert losses[0] == losses[2] != losses[1]


def test_balanced_weights_are_1_on_average_and_0_for_what_does_not_occur() -> None:
    counts = np.array([8, 2, 0])
    weight = balanced_weights(counts, 0.5).numpy()
    assert weight[1] == pytest.approx(2 * weight[0])
    assert weight @ counts == pytest.approx(counts.sum())
    assert weight[2] == 0


def test_noise_levels_can_be_drawn_where_futures_are_decided(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[torch.Tensor] = []

    def loss(denoiser: Any, x0: Any, *_: Any, time: torch.Tensor, **__: Any) -> Any:
        drawn.append(time)
        return SimpleNamespace(per_video=x0.sum((1, 2)))

    monkeypatch.setattr("framecast.tasks.anticipation.denoising_loss", loss)
    for bias in (0.0, 3.0):
        task = DenseAnticipationTask(
            *sides(root),
            model="manta",
            model_config=DENSE["manta"] | {"diffusion_steps": 1000},
            noise_bias=bias,
            sampling=FEW,
            protocol="anticipation/official-any",
        )
        batch = task.collate([task.train_data[i % len(task.train_data)] for i in range(2000)])
        task.loss(task.build_model(), batch)
    uniform, late = ((times >= 800).float().mean().item() for times in drawn)
    assert uniform == pytest.approx(0.2, abs=0.05)
    assert late == pytest.approx(1 - 0.8**4, abs=0.05)
    assert drawn[1].max() <= 999


@pytest.mark.parametrize("model", DENSE)
def test_every_dense_model_can_draw_coupled(model: str, root: Path) -> None:
    task = make_task(root, model)
    network = task.build_model().eval()
    sampling = Sampling(samples=7, steps=2, draw="coupled", temperature=2.0)
    labels, chances = forecast_video(network, task.eval_data, 0, 0.2, 0.5, sampling)
    assert labels.shape[0] == 7
    assert len(np.unique(labels, axis=0)) > 1
    assert chances is not None
    np.testing.assert_allclose(chances.sum(0), 1, rtol=1e-5)
    again, _ = forecast_video(network, task.eval_data, 0, 0.2, 0.5, sampling)
    np.testing.assert_array_equal(labels, again)


def test_futures_of_a_baseline_are_scored_the_same_way(root: Path) -> None:
    train, test = sides(root)
    seen = [train.annotation(i) for i in range(len(train))]
    baseline = create_forecaster("repeat_last").fit(seen, len(train.classes))
    metrics = collect_futures(baseline, test, "anticipation/2018", replace(FEW, samples=1))
    scores = metrics.compute("anticipation/2018")
    last = [test.annotation(i)[int(0.2 * len(test.annotation(i))) - 1] for i in range(len(test))]
    labels, _ = forecast_video(baseline, test, 0, 0.2, 0.5, replace(FEW, samples=1))
    assert set(labels.ravel()) == {last[0]}
    assert scores["num_videos"] == len(test)
