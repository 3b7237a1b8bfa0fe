"""Slurm: a batch script to read and keep, or submission through submitit.

Slurm starts one process per GPU (`srun`), `distributed.start_world` finds its place from SLURM_*. Before
the time is up, or on preemption, the processes are signalled, save together and exit with code 75, and
the job is put back into the queue; the same command then goes on from the checkpoint. torchrun is not
used here: it turns the exit code of its workers into 1 and by default kills them 30 s after a signal.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from framecast.train.signals import REQUEUE_EXIT_CODE

_WORD = re.compile(r"[\w.,:/@%+=-]+")


@dataclass(frozen=True)
class Resources:
    """What a job asks Slurm for; empty strings leave a choice to the cluster."""

    nodes: int = 1
    gpus_per_node: int = 1  # one process each; 0 = one CPU process per node
    cpus_per_process: int = 8
    time: str = "24:00:00"  # [days-]hours:minutes:seconds
    partition: str = ""
    account: str = ""
    memory: str = ""  # per node, for example "64G"
    name: str = "framecast"
    output: str = "slurm-%j.out"
    requeue: bool = True
    grace_s: int = 120  # signal so long before the end; longer than a step, an evaluation and a save
    setup: tuple[str, ...] = ()  # shell lines before the command, for example "source .venv/bin/activate"

    def __post_init__(self) -> None:
        for name in ("time", "partition", "account", "memory", "name", "output"):
            value = getattr(self, name)
            if value and not _WORD.fullmatch(value):
                raise ValueError(f"Slurm {name} {value!r} has characters that an #SBATCH line does not take")
        if self.nodes < 1 or self.gpus_per_node < 0 or self.cpus_per_process < 1 or self.grace_s < 1:
            raise ValueError(f"a job needs at least 1 node, 1 CPU per process and 1 s of grace, got {self}")
        if self.minutes * 60 <= self.grace_s:
            raise ValueError(
                f"time {self.time} is not longer than the {self.grace_s} s that are kept for saving"
            )

    @property
    def processes_per_node(self) -> int:
        return max(self.gpus_per_node, 1)

    @property
    def minutes(self) -> int:
        """`time` in minutes, as Slurm reads it: a bare number is minutes."""
        match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", self.time)
        if match is None:
            raise ValueError(f"Slurm time {self.time!r} is not of the form [days-]hours:minutes:seconds")
        days, first, second, third = (int(part) if part else None for part in match.groups())
        assert first is not None
        if days is not None:
            return days * 1440 + first * 60 + (second or 0)
        if third is not None:
            return first * 60 + (second or 0)
        return first  # minutes, or minutes:seconds


def sbatch_script(command: Sequence[str], resources: Resources) -> str:
    """A batch script that runs the command, one process per GPU, and requeues it when it was preempted."""
    r = resources
    options = {
        "job-name": r.name,
        "nodes": r.nodes,
        "ntasks-per-node": r.processes_per_node,
        "gpus-per-node": r.gpus_per_node or "",
        "cpus-per-task": r.cpus_per_process,
        "time": r.time,
        "partition": r.partition,
        "account": r.account,
        "mem": r.memory,
        "output": r.output,
        "open-mode": "append",
        "signal": f"B:USR1@{r.grace_s}",
    }
    lines = ["#!/bin/bash", *(f"#SBATCH --{key}={value}" for key, value in options.items() if value)]
    lines += ["#SBATCH --requeue" if r.requeue else "#SBATCH --no-requeue", ""]
    lines += [*r.setup, ""] if r.setup else []
    lines += _BODY.format(command=shlex.join(command)).splitlines()
    if r.requeue:
        lines += _REQUEUE.format(code=REQUEUE_EXIT_CODE).splitlines()
    return "\n".join([*lines, 'exit "$code"', ""])


_BODY = """\
# The processes meet on the first node.
export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-1}}

# This shell gets the signals; srun hands them on to every process.
trap 'kill -USR1 "$step" 2>/dev/null' USR1
trap 'kill -TERM "$step" 2>/dev/null' TERM

# Processes that outlive the first one by a minute are stuck; killing them at once would hide its exit code.
srun --kill-on-bad-exit=0 --wait=60 {command} &
step=$!
wait "$step"; code=$?
while kill -0 "$step" 2>/dev/null; do  # a signal ends `wait` before the processes have saved
    wait "$step"; code=$?
done
"""

_REQUEUE = """\
if [ "$code" -eq {code} ]; then  # stopped by a signal and saved
    scontrol requeue "$SLURM_JOB_ID"
fi
"""


def submit(
    command: Sequence[str],
    folder: str | Path,
    resources: Resources,
    *,
    cluster: Literal["slurm", "local"] = "slurm",
    dry_run: bool = False,
) -> Any:
    """Submit with submitit, logs and state in `folder`; returns the submitit job.

    cluster "local" runs the same job on this machine. dry_run prints the batch script and returns it
    instead. ValueError where submitit or Slurm is not there.
    """
    if dry_run:
        script = sbatch_script(command, resources)
        print(script, end="")
        return script
    try:
        import submitit
    except ImportError:
        raise ValueError(
            'submitting needs submitit: pip install "framecast[slurm]"; or use --dry-run and sbatch'
        ) from None
    try:
        executor = submitit.AutoExecutor(folder=Path(folder), cluster=cluster, slurm_max_num_timeout=1000)
    except RuntimeError as error:
        raise ValueError(f"cannot submit ({error}); is Slurm on this machine?") from None
    executor.update_parameters(
        name=resources.name,
        nodes=resources.nodes,
        tasks_per_node=resources.processes_per_node,
        gpus_per_node=resources.gpus_per_node,
        cpus_per_task=resources.cpus_per_process,
        timeout_min=resources.minutes,
    )
    if cluster == "slurm":
        options = {"partition": resources.partition, "account": resources.account, "mem": resources.memory}
        executor.update_parameters(
            slurm_signal_delay_s=resources.grace_s,
            slurm_setup=list(resources.setup),
            slurm_additional_parameters={key: value for key, value in options.items() if value},
        )
    return executor.submit(_Command(tuple(command), resources.requeue))


class _Command:
    """One process of the job: runs the command, and hands a stop request on to it."""

    def __init__(self, command: tuple[str, ...], requeue: bool) -> None:
        self.command, self.requeue = command, requeue

    def __call__(self) -> int:
        """Exit code of the command, 0 or 75."""
        from submitit.helpers import TorchDistributedEnvironment

        # overwrite: the job may have been submitted from inside another one
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        self.process = subprocess.Popen(self.command)
        while self.process.poll() is None:
            time.sleep(0.2)
        code = self.process.returncode
        if code == REQUEUE_EXIT_CODE and self.requeue:  # stopped by Slurm itself, submitit does not know yet
            signal.raise_signal(getattr(signal, "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")))
        if code not in (0, REQUEUE_EXIT_CODE):
            raise RuntimeError(f"{shlex.join(self.command)} ended with exit code {code}")
        return code

    def checkpoint(self) -> Any:
        """Called by submitit's signal handler in the first process: let the command save, queue it again."""
        from submitit.helpers import DelayedSubmission

        self.process.send_signal(signal.SIGUSR1)  # the training processes tell each other
        with suppress(ChildProcessError):  # it has ended already
            # not `process.wait`: its lock may be held by the `poll` that this handler interrupts
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(_Command(self.command, self.requeue)) if self.requeue else None
