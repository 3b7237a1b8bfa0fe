"""Peak memory of one call, measured in a fresh process, since what malloc has seen before changes the figure.

    python -m framecast.profile.memory < subject.json

On the CPU: the process's high-water mark minus its resident memory before the call (Linux). On a GPU: what
torch has allocated at most, minus what model and input take.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from framecast.profile.energy import NotMeasurable
from framecast.profile.subjects import Subject

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Memory:
    """Bytes."""

    weights: int  # parameters and buffers
    inputs: int
    peak: int  # what the call takes on top of them


def peak_memory(subject: Subject, batch: int, *, device: str, threads: int) -> Memory:
    """Run one warm call of the subject in a process of its own; NotMeasurable with the reason otherwise."""
    task = {"subject": asdict(subject), "batch": batch, "device": device, "threads": threads}
    done = subprocess.run(
        [sys.executable, "-m", "framecast.profile.memory"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    if done.returncode == 0 and lines:
        return Memory(**json.loads(lines[-1]))
    if done.returncode < 0:
        raise NotMeasurable(f"the measuring process was killed by signal {-done.returncode}, out of memory?")
    raise NotMeasurable(lines[-1].removeprefix("NotMeasurable: ") if lines else "the process said nothing")


@torch.inference_mode()
def measure_here(model: nn.Module, x: Tensor) -> Memory:
    """Peak memory of `model(x)` in this process; NotMeasurable where the system does not tell."""
    model(x)  # loads code and tables that every later call shares
    weights = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
        torch.cuda.reset_peak_memory_stats(x.device)
        before = torch.cuda.memory_allocated(x.device)
        model(x)
        return Memory(weights, x.nbytes, torch.cuda.max_memory_allocated(x.device) - before)
    if x.device.type != "cpu":
        raise NotMeasurable(f"peak memory is not known for {x.device.type}")
    _return_freed_memory()
    try:
        CLEAR_REFS.write_text("5")  # forgets the high-water mark
    except OSError:
        raise NotMeasurable("the high-water mark of memory cannot be reset (Linux only)") from None
    before = _status("VmRSS")
    model(x)
    return Memory(weights, x.nbytes, max(_status("VmHWM") - before, 0))


def _return_freed_memory() -> None:
    """Pages that the warm-up freed would hide what the measured call takes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def _status(field: str) -> int:
    for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])
    raise NotMeasurable(f"{STATUS} has no {field}")


def main() -> None:
    task: dict[str, Any] = json.load(sys.stdin)
    torch.set_num_threads(task["threads"])
    subject = Subject.from_json(task["subject"])
    model = subject.build(task["device"])
    try:
        print(json.dumps(asdict(measure_here(model, subject.random_input(task["batch"], task["device"])))))
    except NotMeasurable as reason:
        sys.exit(f"NotMeasurable: {reason}")


if __name__ == "__main__":
    main()
