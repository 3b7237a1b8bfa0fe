"""Time, memory and energy: what is reported is what happened, or the words that it could not be measured."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from framecast.profile.energy import GpuMeter, NotMeasurable, RaplMeter, energy_meter
from framecast.profile.memory import measure_here, peak_memory
from framecast.profile.profiler import Settings, profile_model
from framecast.profile.subjects import Subject, find_subject
from framecast.profile.timing import measure, num_threads


def test_timing_is_the_median_of_warm_runs() -> None:
    lasting = iter([0.2, 0.01, 0.01, 0.01, 0.05])  # the first call is slow, one later call is disturbed
    timing = measure(lambda: time.sleep(next(lasting)), batch=4, seconds=0)
    assert timing.runs == 3
    assert 10 <= timing.wall_ms < 40
    assert timing.per_second == pytest.approx(4000 / timing.wall_ms)
    assert timing.cpu_ms < timing.wall_ms  # sleeping takes no CPU time
    low, high = timing.wall_ms_range
    assert low <= timing.wall_ms <= high


def test_threads_are_named_and_given_back() -> None:
    before = torch.get_num_threads()
    with num_threads(2) as threads:
        assert threads == torch.get_num_threads() == 2
        assert measure(lambda: None, seconds=0).threads == 2
    assert torch.get_num_threads() == before


def write_package(folder: Path, name: str, microjoules: int, limit: int = 10_000_000) -> Path:
    package = folder / name
    package.mkdir(exist_ok=True)
    (package / "energy_uj").write_text(f"{microjoules}\n")
    (package / "max_energy_range_uj").write_text(f"{limit}\n")
    return package


def test_rapl_adds_packages_and_survives_a_wrap(tmp_path: Path) -> None:
    write_package(tmp_path, "intel-rapl:0", 9_000_000)
    write_package(tmp_path, "intel-rapl:1", 0)
    write_package(tmp_path, "intel-rapl:0:0", 0)  # cores of package 0, contained in it
    meter = RaplMeter(tmp_path)
    before = meter.read()
    write_package(tmp_path, "intel-rapl:0", 1_000_000)
    write_package(tmp_path, "intel-rapl:1", 500_000)
    write_package(tmp_path, "intel-rapl:0:0", 900_000)
    assert meter.spent_since(before) == pytest.approx(2.5)
    assert meter.spent_since(meter.read()) == 0


def test_joules_are_per_input(tmp_path: Path) -> None:
    write_package(tmp_path, "intel-rapl:0", 0)
    spent = iter(range(1_000_000, 9_000_000, 1_000_000))

    def call() -> None:
        write_package(tmp_path, "intel-rapl:0", next(spent))

    timing = measure(call, batch=2, seconds=0, meter=RaplMeter(tmp_path))
    assert timing.joules == pytest.approx(0.5)  # 1 J per call of two inputs; the warm-up does not count


def test_a_machine_without_counters_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotMeasurable, match="no energy counters"):
        energy_meter("cpu", tmp_path)
    (write_package(tmp_path, "intel-rapl:0", 0) / "energy_uj").write_text("unreadable")
    with pytest.raises(NotMeasurable, match="cannot be read"):
        energy_meter("cpu", tmp_path)


class FakeNvml:
    """Counts 1500 mJ more at every reading."""

    def __init__(self, fails: int = 0) -> None:
        self.fails, self.millijoules, self.asked = fails, 0, b""

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:
        self.asked = uuid
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, out: Any) -> int:
        self.millijoules += 1500
        out._obj.value = self.millijoules
        return self.fails


def test_gpu_energy_comes_from_nvml() -> None:
    library = FakeNvml()
    meter = GpuMeter("1234-ab", library)
    assert library.asked == b"GPU-1234-ab"
    assert meter.spent_since(meter.read()) == pytest.approx(1.5)
    with pytest.raises(NotMeasurable, match="no energy counter"):
        GpuMeter("1234-ab", FakeNvml(fails=3))


class Hungry(nn.Module):
    """Needs 64 MiB for a moment."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(256))

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(16 << 20).mul_(self.weight[0]).sum() + x.sum()


linux_only = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")


@linux_only
def test_peak_memory_is_what_a_call_takes_on_top() -> None:
    memory = measure_here(Hungry(), torch.zeros(1, 1000))
    assert (memory.weights, memory.inputs) == (1024, 4000)
    assert memory.peak == pytest.approx(64 << 20, rel=0.05)


@linux_only
def test_peak_memory_is_taken_in_a_fresh_process() -> None:
    subject = find_subject("mstcn", "32x40000")
    memory = peak_memory(subject, 1, device="cpu", threads=1)
    assert memory.inputs == 32 * 40_000 * 4
    stream = 64 * 40_000 * 4  # one layer's output
    assert stream < memory.peak < 20 * stream


def test_a_process_that_fails_is_not_measurable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(NotMeasurable, match="said nothing"):
        peak_memory(Subject("any", "mstcn"), 1, device="cpu", threads=1)


def test_any_module_can_be_profiled() -> None:
    profile = profile_model(nn.Linear(8, 4), torch.randn(3, 8), settings=Settings(seconds=0))
    assert profile.name == "Linear"
    assert profile.total.macs == 32  # of one input, whatever the batch
    assert profile.timing is not None
    assert profile.timing.batch == 3
