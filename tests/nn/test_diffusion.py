"""Noise schedules and samplers against what they must be by definition."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from framecast.nn.diffusion import (
    Diffusion,
    Objective,
    Predict,
    Schedule,
    Solver,
    noise_schedule,
    sampling_times,
    schedule_tables,
    signal_levels,
    sinusoid,
)


def exact(diffusion: Diffusion, mean: Tensor, spread: float, times: list[int]) -> Predict:
    """The best denoiser there is where data are N(mean, spread²): E[x_0 | x_t], as x_0 or as noise."""

    def predict(step: int, noisy: Tensor, self_cond: Tensor | None) -> Tensor:
        level = float(signal_levels(diffusion.schedule, diffusion.steps)[times[step]])
        gain = math.sqrt(level) * spread**2 / (level * spread**2 + 1 - level)
        x0 = mean + gain * (noisy - math.sqrt(level) * mean)
        return x0 if diffusion.objective == "x0" else (noisy - math.sqrt(level) * x0) / math.sqrt(1 - level)

    return predict


def drawn(diffusion: Diffusion, steps: int, solver: Solver, eta: float, *, number: int = 4000) -> Tensor:
    torch.manual_seed(0)
    times = sampling_times(diffusion.steps, steps, "even" if solver == "ddim" else "snr")
    predict = exact(diffusion, torch.tensor([2.0, -1.0], dtype=torch.float64), 0.5, times)
    start = torch.randn(number, 2, dtype=torch.float64)
    noise = [torch.randn(number, 2, dtype=torch.float64) for _ in times]
    walk = diffusion.trajectory(predict, start, times, eta=eta, solver=solver, draw=noise.__getitem__)
    return list(walk)[-1].next


@pytest.mark.parametrize("objective", ["x0", "noise"])
@pytest.mark.parametrize(
    ("solver", "eta", "steps"), [("ddim", 0.0, 100), ("ddim", 1.0, 250), ("dpm++2m", 0.0, 25)]
)
def test_samplers_draw_from_the_distribution(
    objective: Objective, solver: Solver, eta: float, steps: int
) -> None:
    x = drawn(Diffusion(objective=objective), steps, solver, eta)
    assert_close(x.mean(0), torch.tensor([2.0, -1.0], dtype=torch.float64), rtol=0.03, atol=0.03)
    assert_close(x.std(0), torch.full((2,), 0.5, dtype=torch.float64), rtol=0.08, atol=0.0)


def test_the_second_order_solver_needs_fewer_steps() -> None:
    diffusion, mean = Diffusion(), torch.tensor([2.0, -1.0], dtype=torch.float64)
    torch.manual_seed(0)
    start = torch.randn(50, 2, dtype=torch.float64)

    def answer(times: list[int], solver: Solver) -> Tensor:
        predict = exact(diffusion, mean, 0.5, times)
        return list(diffusion.trajectory(predict, start, times, solver=solver))[-1].next

    even, snr = sampling_times(1000, 10), sampling_times(1000, 10, "snr")
    fine = answer(list(range(even[0], -1, -1)), "ddim")
    first = (answer(even, "ddim") - fine).abs().mean()
    second = (answer(snr, "dpm++2m") - fine).abs().mean()
    assert second < 0.3 * first


def test_a_step_of_eta_one_over_all_times_is_ancestral() -> None:
    """Mean and variance of DDIM's step are those of q(x_{t-1} | x_t, x_0)."""
    diffusion = Diffusion(steps=50)
    tables = {name: table.double() for name, table in schedule_tables("cosine", 50).items()}
    x, x0, noise = torch.randn(3, 7, dtype=torch.float64)
    for time in (49, 20, 1):
        walk = diffusion.trajectory(
            lambda *_: x0, x, [time, time - 1], eta=1.0, draw=lambda _: noise, solver="ddim"
        )
        mean = tables["posterior_mean_coef1"][time] * x0 + tables["posterior_mean_coef2"][time] * x
        expected = mean + tables["posterior_variance"][time].sqrt() * noise
        assert_close(next(iter(walk)).next, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("objective", ["x0", "noise"])
def test_what_was_noised_is_found_again(objective: Objective) -> None:
    diffusion = Diffusion("linear", 100, objective)
    x0, noise = torch.randn(2, 3, 4, 5)
    time = torch.tensor([0, 40, 99])
    noisy = diffusion.noised(x0, time, noise)
    assert_close(diffusion.clean(noisy, x0 if objective == "x0" else noise, time), x0, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
@pytest.mark.parametrize("steps", [50, 1000])
def test_signal_falls_from_almost_all_to_almost_nothing(kind: Schedule, steps: int) -> None:
    levels = signal_levels(kind, steps)
    assert (levels.diff() < 0).all()
    assert levels[0] > 0.95
    assert levels[-1] < 1e-3


def test_times_of_a_sampler() -> None:
    assert sampling_times(1000, 50)[:2] == [980, 960]
    assert sampling_times(60, 7, "release") == list(range(56, -1, -8))  # eight of them, as in the release
    cases = [(60, 7), (1000, 1), (13, 13), (1000, 50), (1000, 400)]
    for (total, steps), spacing in product(cases, ("even", "snr")):
        times = sampling_times(total, steps, spacing)
        assert len(times) == steps
        assert times[-1] == 0
        assert times == sorted(set(times), reverse=True)
    with pytest.raises(ValueError, match="60 sampling steps were asked of 50 diffusion steps; take 1 to 50"):
        sampling_times(50, 60)


def test_misfits_are_named() -> None:
    walk = {"predict": lambda *_: torch.zeros(1), "start": torch.zeros(1), "times": [1, 0]}
    with pytest.raises(ValueError, match="solver 'euler' is unknown"):
        next(Diffusion().trajectory(**walk, solver="euler"))  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match=r"eta is 1\.0, but dpm"):
        next(Diffusion().trajectory(**walk, solver="dpm++2m", eta=1.0))
    with pytest.raises(ValueError, match="noise schedule 'sigmoid' is unknown"):
        noise_schedule("sigmoid", 10)  # ty: ignore[invalid-argument-type]


def test_sinusoid_has_sines_then_cosines() -> None:
    waves = sinusoid(torch.tensor([0, 3]), 8)
    assert_close(waves[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    assert_close(waves[1, :1], torch.tensor([3.0]).sin())
    assert_close(waves[1, 7:], (torch.tensor([3.0]) / 10_000).cos())
