"""GTDA and MANTA beside their golden numbers: fast sampling, padding, leaks, losses, containers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

import framecast as fc
from framecast.models.label_diffusion import denoising_loss, sample, staged_cross_entropy
from framecast.nn.diffusion import schedule_tables

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
CLASSES = 5
SIZES: dict[str, dict[str, Any]] = {
    "gtda": {"num_stages": 3, "num_layers": 3, "width": 32},
    "manta": {"num_layers": 3, "width": 32},
}


def model_of(name: str, feature_dim: int = 12, **config: Any) -> Any:
    """A small model, far from special values: MANTA's layer scale starts at almost nothing."""
    torch.manual_seed(0)
    sizes = {"num_classes": CLASSES, "feature_dim": feature_dim, "diffusion_steps": 100}
    model = fc.create_model(name, **sizes, **SIZES[name] | config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def batch(lengths: list[int], feature_dim: int = 12) -> dict[str, Tensor]:
    """Inputs of a denoiser; the observation is zero beyond each video's first third."""
    torch.manual_seed(1)
    videos, frames = len(lengths), max(lengths)
    mask = torch.arange(frames) < torch.tensor(lengths)[:, None]
    past = torch.arange(frames) < torch.tensor([max(n // 3, 1) for n in lengths])[:, None]
    return {
        "noisy": torch.randn(videos, CLASSES, frames),
        "time": torch.randint(100, (videos,)),
        "observed": torch.randn(videos, feature_dim, frames) * past[:, None],
        "self_cond": torch.randn(videos, CLASSES, frames),
        "mask": mask,
    }


def sampled(model: Any, given: dict[str, Tensor], **settings: Any) -> Tensor:
    return sample(model, given["observed"], given["mask"], **{"samples": 3, "steps": 5, **settings})


def plainly(model: Any, observed: Tensor, mask: Tensor, noise: Tensor, times: list[int]) -> Tensor:
    """The same walk through the plain forward pass, one sample after the other."""

    def predict(step: int, noisy: Tensor, self_cond: Tensor | None) -> Tensor:
        return model(noisy, torch.full((len(noisy),), times[step]), observed, self_cond, mask)[-1]

    with torch.no_grad():
        walks = [model.diffusion.trajectory(predict, x, times, mask=mask[:, None]) for x in noise]
        return torch.stack([list(walk)[-1].x0 for walk in walks]) * mask[:, None]


both = pytest.mark.parametrize("name", ["gtda", "manta"])
VARIANTS = [
    pytest.param("gtda", {}, id="gtda"),
    pytest.param("gtda", {"gated": False}, id="gtda-plain-layers"),
    pytest.param("gtda", {"use_features": False}, id="gtda-probabilities-only"),
    pytest.param("gtda", {"kernel_size": 5}, id="gtda-five-taps"),
    pytest.param("gtda", {"self_condition": False, "objective": "noise"}, id="gtda-noise"),
    pytest.param("manta", {}, id="manta"),
    pytest.param("manta", {"mask_inside": False}, id="manta-plain"),
]


@pytest.mark.parametrize(("name", "config"), VARIANTS)
@pytest.mark.parametrize("lengths", [[40], [31, 12, 3]])
def test_the_fast_path_is_the_plain_one(name: str, config: dict, lengths: list[int]) -> None:
    model, given = model_of(name, **config), batch(lengths)
    noise = torch.randn(3, len(lengths), CLASSES, max(lengths))
    fast = sampled(model, given, noise=noise, steps=[80, 60, 40, 20, 0], at_once=2)
    plain = plainly(model, given["observed"], given["mask"], noise, [80, 60, 40, 20, 0])
    scale = plain.abs().max()
    assert_close(fast / scale, plain / scale, **TOLERANCE)


@both
@settings(deadline=None, max_examples=10, derandomize=True)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=3))
def test_a_padded_batch_is_each_video_alone(name: str, lengths: list[int]) -> None:
    model, given_ = model_of(name), batch(lengths)
    dirty = {k: x + 3.0 * ~given_["mask"][:, None] if x.ndim == 3 else x for k, x in given_.items()}
    with torch.no_grad():
        together, spoilt = model(**given_), model(**dirty)
        assert_close(together, spoilt, **TOLERANCE)
        for b, n in enumerate(lengths):
            alone = {k: x[b : b + 1, ..., :n] if x.ndim > 1 else x[b : b + 1] for k, x in given_.items()}
            assert_close(together[:, b : b + 1, :, :n], model(**alone), **TOLERANCE)
            assert not together[:, b, :, n:].any()


def test_the_plain_mamba_sees_padding_and_ours_does_not() -> None:
    given_ = batch([30, 11])
    alone = {k: x[1:, ..., :11] if x.ndim > 1 else x[1:] for k, x in given_.items()}
    differences = []
    for inside in (True, False):
        model = model_of("manta", mask_inside=inside)
        with torch.no_grad():
            differences.append(float((model(**given_)[:, 1, :, :11] - model(**alone)[:, 0]).abs().max()))
    assert differences[0] < 1e-5
    assert differences[1] > 1e-4


@both
@pytest.mark.parametrize("labels", [False, True], ids=["features", "labels"])
@settings(deadline=None, max_examples=8, derandomize=True)
@given(seen=st.integers(1, 39))
def test_the_future_is_not_seen(name: str, labels: bool, seen: int) -> None:
    """Whatever is observed after the past changes nothing once the past's mask is given."""
    torch.manual_seed(seen)
    width = CLASSES if labels else 12
    model = model_of(name, width)

    def observation() -> Tensor:
        if labels:
            return torch.nn.functional.one_hot(torch.randint(CLASSES, (1, 40)), CLASSES).mT.float()
        return torch.randn(1, width, 40)

    past = (torch.arange(40) < seen)[None]
    first = observation()
    other = torch.where(past[:, None], first, observation())
    noise = torch.randn(2, 1, CLASSES, 40)
    futures = [
        sample(model, x, past=past, samples=2, steps=4, noise=noise) for x in (first, other, first * past)
    ]
    assert torch.equal(futures[0], futures[1])
    assert torch.equal(futures[0], futures[2])
    earlier = torch.where(past[:, None], observation() + 1, first)
    assert not torch.equal(sample(model, earlier, past=past, samples=2, steps=4, noise=noise), futures[0])


@both
def test_noise_of_a_sample_depends_on_the_seed_alone(name: str) -> None:
    model, given_ = model_of(name), batch([30, 11])

    def run(seed: int = 7, **settings: Any) -> Tensor:
        return sampled(model, given_, generator=torch.Generator().manual_seed(seed), **settings)

    for eta in (0.0, 1.0):
        assert_close(run(at_once=1, eta=eta), run(at_once=3, eta=eta), **TOLERANCE)
    assert torch.equal(run(), run())
    assert not torch.equal(run(), run(seed=8))
    assert not torch.equal(run(eta=0.0), run(eta=1.0))
    assert not torch.equal(run()[0], run()[1])


@both
def test_fewer_steps_by_another_solver(name: str) -> None:
    futures = sampled(model_of(name), batch([30, 11]), solver="dpm++2m", steps=4)
    assert futures.shape == (3, 2, CLASSES, 30)
    assert torch.isfinite(futures).all()
    assert not futures[:, 1, :, 11:].any()


@both
def test_misfits_are_named(name: str) -> None:
    model = model_of(name)
    with pytest.raises(ValueError, match="observed has 7 channels; this model was made for feature_dim=12"):
        sample(model, torch.zeros(1, 7, 10))
    with pytest.raises(ValueError, match=r"noise has shape \(1, 1, 5, 10\); 25 samples here need"):
        sample(model, torch.zeros(1, 12, 10), noise=torch.zeros(1, 1, 5, 10))


# Training ---------------------------------------------------------------------------------------------


@both
def test_a_few_steps_learn_a_sequence(name: str) -> None:
    model = model_of(name, CLASSES)
    torch.manual_seed(0)
    labels = (torch.arange(24) * CLASSES // 24).expand(4, 24)
    x0 = torch.nn.functional.one_hot(labels, CLASSES).mT.float()
    past, mask = (torch.arange(24) < 8).expand(4, 24), torch.ones(4, 24, dtype=torch.bool)
    optimizer = torch.optim.Adam(model.train().parameters(), lr=5e-3)
    for _ in range(100):
        loss = denoising_loss(model, x0, x0 * past[:, None], mask).per_video.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    futures = sample(model.eval(), x0, past=past, samples=2, steps=10).argmax(2)
    assert (futures == labels).float().mean() > 0.9


@both
def test_the_loss_of_a_padded_batch(name: str) -> None:
    model, given_ = model_of(name), batch([30, 11])
    x0 = torch.randn(2, CLASSES, 30)
    drawn = {"time": given_["time"], "noise": given_["noisy"], "self_conditioned": False}
    both_, valid = (
        denoising_loss(model, x0, given_["observed"], given_["mask"], **drawn, padded_mean=padded).per_video
        for padded in (True, False)
    )
    assert_close(both_ * 30, valid * torch.tensor([30, 11]), **TOLERANCE)
    alone = denoising_loss(
        model,
        x0[1:, :, :11],
        given_["observed"][1:, :, :11],
        given_["mask"][1:, :11],
        time=given_["time"][1:],
        noise=given_["noisy"][1:, :, :11],
        self_conditioned=False,
    )
    assert_close(alone.per_video, valid[1:], **TOLERANCE)


@both
@pytest.mark.parametrize("active", [False, True])
def test_dropout_sleeps_in_training_unless_it_is_asked_for(name: str, active: bool) -> None:
    model, given_ = model_of(name, dropout_active=active).train(), batch([30])
    with torch.no_grad():
        assert torch.equal(model(**given_), model(**given_)) == (not active)
    assert model.training


def test_deterministic_training_drops_and_its_loss_counts_masked_frames() -> None:
    model = fc.create_model(
        "gtda_deterministic", num_classes=CLASSES, feature_dim=12, obs_stages=1, **SIZES["gtda"]
    )
    observed, mask = batch([30, 11])["observed"], batch([30, 11])["mask"]
    past = torch.arange(30)[None] < torch.tensor([[10], [3]])
    assert not torch.equal(model(observed, mask, past), model(observed, mask, past))
    model.eval()
    logits = model(observed, mask, past)
    assert not logits[0, 0, :, 10:].any()  # the first stage sees the past only
    labels = torch.randint(CLASSES, (2, 30))
    loss = staged_cross_entropy(logits, labels, model.stage_masks(mask, past))
    changed = torch.where(mask, labels, (labels + 1) % CLASSES)
    assert torch.equal(loss, staged_cross_entropy(logits, changed, model.stage_masks(mask, past)))
    with pytest.raises(ValueError, match="1 stages of this model see the past only"):
        model(observed, mask)


# Official containers ----------------------------------------------------------------------------------


def official_names(name: str, model: Any) -> dict[str, Tensor]:
    """Our tensors under the release's names, as `epoch-N.model` has them."""
    out = {}
    for key, tensor in model.state_dict().items():
        if name == "manta":
            key = key if key.startswith(("proj", "time", "layers")) else f"?{key}"
            key = f"stage1.{key}".replace(".mixer.", ".mamba.").replace(".scale.gamma", ".drop_path.scale")
            tensor = tensor[None, :, None] if key.endswith("drop_path.scale") else tensor
        key = key.replace(".time.fc1.", ".time_mlp.1.").replace(".time.fc2.", ".time_mlp.3.")
        key = key.replace(".modulation.proj.", ".time_mlp.1.").replace(".proj_out.", ".conv_out.")
        mixing = ".mamba." not in key and (".proj_in." in key or ".proj." in key)
        key = key.replace(".proj_in.", ".conv_1x1.").replace(".proj.", ".conv_1x1.") if mixing else key
        pointwise = key.endswith((".conv_1x1.weight", ".conv_out.weight"))
        tensor = tensor[..., None] if pointwise else tensor
        if ".conv." in key:
            value, gate = tensor.chunk(2)
            out["ms_tcn." + key.replace(".conv.", ".conv_dilated.")] = value
            key, tensor = key.replace(".conv.", ".gate_conv_dilated."), gate
        out[f"ms_tcn.{key}"] = tensor
    return out


@both
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_both_official_files_are_read(name: str, schedule: Any) -> None:
    model = model_of(name)
    weights = official_names(name, model)
    tables = schedule_tables(schedule, 60)
    container = {"initted": torch.tensor([True]), "step": torch.tensor([400])}
    for copy, factor in (("online_model", 2.0), ("ema_model", 1.0)):
        container |= {f"{copy}.{key}": table for key, table in tables.items()}
        container |= {f"{copy}.model.{key}": factor * tensor for key, tensor in weights.items()}
    for source, steps in ((weights, 1000), (container, 60)):
        read = fc.import_checkpoint(name, dict(source))
        assert all(torch.equal(t, read.state_dict()[key]) for key, t in model.state_dict().items())
        assert read.config.diffusion_steps == steps
    report = read.import_report
    assert report.complete
    assert len(report.ignored) == 2 + 2 * 12 + len(weights)
    assert read.config.schedule == schedule
    container["ema_model.alphas_cumprod"] = tables["alphas_cumprod"] ** 2
    with pytest.raises(ValueError, match="noise schedule of 60 steps in it is neither cosine nor linear"):
        fc.import_checkpoint(name, container)


@pytest.mark.parametrize("name", ["gtda", "manta"])
def test_evidence_is_exact_prepared_and_starts_alike_for_all_classes(name: str) -> None:
    """What is shown of x_t does not depend on padding or path, and a fresh network passes labels through."""
    torch.manual_seed(0)
    small = {"gtda": {"num_stages": 2, "num_layers": 2}, "manta": {"num_layers": 2, "layer_scale": 0.0}}
    config = {"num_classes": 6, "feature_dim": 6, "width": 16, "noisy": "evidence", "beyond": "held"}
    model = fc.create_model(name, **config, **small[name]).eval()
    with torch.device("meta"):
        fc.create_model(name, **config, **small[name])
    labels = torch.randint(6, (1, 12))
    observed = F.one_hot(labels, 6).mT.float() * (torch.arange(12) < 5)
    noisy = torch.randn(1, 6, 12)
    with torch.no_grad():
        plain = model(noisy, torch.tensor([700]), observed)[-1]
        prepared = model.prepared(observed, None, [700])(0, noisy.mT, None).mT
        torch.testing.assert_close(plain, prepared, atol=1e-5, rtol=1e-5)
        mask = torch.arange(15)[None] < 12
        longer = model(
            F.pad(noisy, (0, 3), value=9.0), torch.tensor([700]), F.pad(observed, (0, 3)), None, mask
        )
        torch.testing.assert_close(longer[-1][..., :12], plain, atol=1e-5, rtol=1e-5)
        clear = F.one_hot(labels, 6).mT.float()
        answer = model(clear, torch.tensor([0]), observed)[-1]
    assert (answer.argmax(1)[:, :5] == labels[:, :5]).all(), "what was observed and x_t agree there"
