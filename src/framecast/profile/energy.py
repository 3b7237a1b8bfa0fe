"""Energy, where the machine lets it be read: RAPL of Intel and AMD processors, NVML of NVIDIA GPUs.

RAPL counts whole processor packages, so whatever else runs at the time is counted too.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch

POWERCAP = Path("/sys/class/powercap")


class NotMeasurable(Exception):
    """Why a figure cannot be had on this machine."""


class EnergyMeter(ABC):
    """A counter of joules that only goes up."""

    @abstractmethod
    def read(self) -> float:
        """Joules since some moment in the past."""

    def spent_since(self, before: float) -> float:
        return self.read() - before


def energy_meter(device: torch.device | str = "cpu", powercap: Path = POWERCAP) -> EnergyMeter:
    """The meter of a device; NotMeasurable with the reason where there is none."""
    device = torch.device(device)
    if device.type == "cuda":
        return GpuMeter(str(torch.cuda.get_device_properties(device).uuid))
    if device.type != "cpu":
        raise NotMeasurable(f"no energy counter is known for {device.type}")
    return RaplMeter(powercap)


class RaplMeter(EnergyMeter):
    """All processor packages together; a counter that has wrapped around is noticed when it is read."""

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self.packages = [d for d in sorted(powercap.glob("intel-rapl:*")) if d.name.count(":") == 1]
        if not self.packages:
            raise NotMeasurable("this machine shows no energy counters (RAPL)")
        try:
            self.limits = [_joules(d / "max_energy_range_uj") for d in self.packages]
            self.last = [_joules(d / "energy_uj") for d in self.packages]
        except PermissionError:
            raise NotMeasurable("reading the energy counters (RAPL) needs root") from None
        except (OSError, ValueError):
            raise NotMeasurable("the energy counters (RAPL) cannot be read") from None
        self.total = 0.0

    def read(self) -> float:
        now = [_joules(d / "energy_uj") for d in self.packages]
        for before, after, limit in zip(self.last, now, self.limits, strict=True):
            self.total += after - before if after >= before else after - before + limit
        self.last = now
        return self.total


def _joules(path: Path) -> float:
    return int(path.read_text()) / 1e6


class GpuMeter(EnergyMeter):
    """The whole GPU, by NVIDIA's management library; its counter moves every 20 to 100 ms."""

    def __init__(self, uuid: str, library: Any = None) -> None:
        try:
            self.library = library or ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            raise NotMeasurable("NVIDIA's management library (NVML) is not here") from None
        self.handle = ctypes.c_void_p()
        name = uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
        failed = self.library.nvmlInit_v2() or self.library.nvmlDeviceGetHandleByUUID(
            name.encode(), ctypes.byref(self.handle)
        )
        if failed:
            raise NotMeasurable(f"NVIDIA's management library does not know the GPU (error {failed})")
        self.read()

    def read(self) -> float:
        millijoules = ctypes.c_ulonglong()
        failed = self.library.nvmlDeviceGetTotalEnergyConsumption(self.handle, ctypes.byref(millijoules))
        if failed:
            raise NotMeasurable(f"the GPU has no energy counter (NVML error {failed})")
        return millijoules.value / 1e3
