"""Checks that the golden numbers of GTDA and MANTA share."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from golden import Fixture
from torch import Tensor
from torch.testing import assert_close

import framecast as fc
from framecast.models.label_diffusion import sample
from framecast.nn.diffusion import sampling_times

GRADIENT = {"rtol": 2e-3, "atol": 1e-5}
OBJECTIVES = {"pred_x0": "x0", "pred_noise": "noise"}


def build(fixture: Fixture, **config: Any) -> Any:
    """The fixture's model with the diffusion that its metadata names."""
    meta = fixture.meta
    if "timesteps" in meta:
        config |= {
            "diffusion_steps": meta["timesteps"],
            "schedule": meta.get("beta_schedule", "cosine"),
            "objective": OBJECTIVES[meta["objective"]],
            "self_condition": meta.get("condition_x0", True),
        }
    model = fc.import_checkpoint(meta["system"], fixture.part("state"), **config)
    assert model.import_report.complete
    assert model.config.num_classes == fixture.config["num_classes"]
    assert model.config.feature_dim == fixture.config["input_dim"]
    return model


def inputs(fixture: Fixture) -> dict[str, Tensor]:
    """Sequences channel-first, masks (B, T) boolean."""
    given = fixture.part("in")
    out = {}
    for name, tensor in given.items():
        if "mask" in name:
            out[name] = (tensor[..., 0] if tensor.shape[-1] == 1 else tensor[:, 0]).bool()
        else:
            out[name] = tensor.mT.contiguous() if tensor.ndim == 3 else tensor
    return out


def translate(fixture: Fixture) -> dict[str, Tensor]:
    """Official gradients under our names, through the table that the weights went through."""
    module = importlib.import_module(f"framecast.models.{fixture.meta['system']}")
    gradients = fixture.part("grad")
    layout = next(layout for layout in module.OFFICIAL if layout.applies(gradients))
    return {layout.translate(key): t for key, t in layout.prepare(gradients).items()}


def check_gradients(fixture: Fixture, model: torch.nn.Module) -> None:
    expected = translate(fixture)
    ours = {name: p.grad for name, p in model.named_parameters()}
    assert ours.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_close(ours[name], gradient, **GRADIENT, msg=lambda text, n=name: f"{n}: {text}")


def check_denoiser(fixture: Fixture, model: Any, tolerance: dict[str, float], **extra: Any) -> None:
    """One forward pass, the loss on its answer, and gradients where there are some."""
    given, expected = inputs(fixture), fixture.part("out")
    mask = given["mask_all"]
    prediction = model(given["x_t"], given["t"], given["obs"], given["self_cond"], mask, **extra)
    assert_close(prediction.mT, expected["pred"], **tolerance)
    if "loss" in expected:
        error = (prediction - given["x0_onehot"]).square() * mask[:, None]
        loss = error.mean((2, 3)).sum()
        assert_close(loss.reshape(1), expected["loss"], rtol=1e-5, atol=1e-6)
        loss.backward()
        check_gradients(fixture, model)


def check_sampling(fixture: Fixture, model: Any, tolerance: dict[str, float]) -> None:
    """Every step of the trajectory by the plain forward pass, and the samples of the fast path."""
    meta, tensors = fixture.meta, fixture.tensors
    given, samples = inputs(fixture), meta["n_samples"]
    mask, observed = given["mask_all"], given["obs"]
    times = sampling_times(meta["timesteps"], meta["ddim_timesteps"], "release")
    sequence = tensors["ddim_timestep_seq"].tolist()
    assert sorted(times) == sorted(sequence)
    steps = [fixture.part(f"step.{i}") for i in range(meta["n_steps"])]
    assert [int(step["t"][0]) for step in steps] == times
    repeated, valid = observed.repeat(samples, 1, 1), mask.repeat(samples, 1)

    def predict(step: int, noisy: Tensor, self_cond: Tensor | None) -> Tensor:
        time = torch.full((len(noisy),), times[step])
        return model(noisy, time, repeated, self_cond, valid)[-1]

    start, eta = tensors["init_noise"].mT, meta["eta"]
    fresh = [step["noise"].mT for step in steps] if eta else []
    with torch.no_grad():
        walk = model.diffusion.trajectory(
            predict, start, times, eta=eta, draw=fresh.__getitem__, mask=valid[:, None]
        )
        for ours, step in zip(walk, steps, strict=True):
            assert_close(ours.noisy.mT, step["x_in"], **tolerance)
            assert_close(ours.x0.mT, step["x0_pred"], **tolerance)
            assert_close(ours.next.mT, step["x_out"], **tolerance)
    apart = (samples, len(observed))
    for at_once in (1, samples):
        out = sample(
            model,
            observed,
            mask,
            samples=samples,
            steps=times,
            eta=eta,
            noise=start.unflatten(0, apart),
            step_noise=[x.unflatten(0, apart) for x in fresh] or None,
            at_once=at_once,
        )
        assert_close(out, tensors["out.samples"], **tolerance)
        assert torch.equal(out.argmax(2), tensors["out.labels"])
