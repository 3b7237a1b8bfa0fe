"""The batch script is run with stand-ins for srun and scontrol; submitit runs a job on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from framecast.train.records import read_summary
from framecast.train.slurm import Resources, sbatch_script, submit

from .test_resume import SCRIPT, wait_for_rows

TWO_NODES = Resources(
    nodes=2, gpus_per_node=4, time="2-00:00:00", partition="gpu", setup=("module load cuda",)
)


def test_the_script_is_bash_and_says_what_was_asked() -> None:
    script = sbatch_script(["framecast", "train", "my recipe", "--set", "a='b'"], TWO_NODES)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    for line in (
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=4",
        "#SBATCH --gpus-per-node=4",
        "#SBATCH --time=2-00:00:00",
        "#SBATCH --partition=gpu",
        "#SBATCH --signal=B:USR1@120",
        "#SBATCH --requeue",
        "module load cuda",
    ):
        assert line in script.splitlines()
    assert "framecast train 'my recipe' --set 'a='\"'\"'b'\"'\"''" in script
    assert "--account" not in script
    assert script.index("#SBATCH --requeue") < script.index(
        "module load"
    )  # Slurm reads up to the first command


def run_script(tmp_path: Path, command: str, resources: Resources, send: str = "") -> tuple[int, str]:
    """Run the batch script with a srun that starts one process; exit code and what scontrol was asked."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "srun").write_text('#!/bin/bash\nwhile [[ "$1" == --* ]]; do shift; done\nexec "$@"\n')
    asked = tmp_path / "scontrol.txt"
    (tools / "scontrol").write_text(
        f'#!/bin/bash\nif [ "$1" = show ]; then printf "node1\\nnode2\\n"; else echo "$@" >> {asked}; fi\n'
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    script = tmp_path / "job.sh"
    script.write_text(sbatch_script(["bash", "-c", command], resources))
    env = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "x",
    }
    process = subprocess.Popen(["bash", str(script)], env=env, cwd=tmp_path)
    if send:
        until = time.monotonic() + 20
        while not (tmp_path / "ready").exists() and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(process.pid, getattr(signal, send))
    return process.wait(timeout=20), asked.read_text() if asked.exists() else ""


SAVES_ON_SIGNAL = (
    "trap 'sleep 0.3; touch saved; exit 75' {name}; touch ready; while true; do sleep 0.05; done"
)


@pytest.mark.parametrize("name", ["USR1", "TERM"])
def test_a_signalled_job_saves_and_is_requeued(tmp_path: Path, name: str) -> None:
    code, asked = run_script(tmp_path, SAVES_ON_SIGNAL.format(name=name), Resources(), send=f"SIG{name}")
    assert (code, asked) == (75, "requeue 7\n")
    assert (tmp_path / "saved").exists()


def test_without_requeue_the_job_only_ends(tmp_path: Path) -> None:
    job = Resources(requeue=False)
    assert run_script(tmp_path, SAVES_ON_SIGNAL.format(name="USR1"), job, send="SIGUSR1") == (75, "")


def test_other_exit_codes_pass_through(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert run_script(tmp_path / "a", 'test "$MASTER_ADDR $MASTER_PORT" = "node1 20007"', Resources()) == (
        0,
        "",
    )
    assert run_script(tmp_path, "exit 3", Resources()) == (3, "")


@pytest.mark.parametrize(
    ("time", "minutes"),
    [("24:00:00", 1440), ("2-12:30", 3630), ("90", 90), ("10:30", 10), ("1-00:00:00", 1440)],
)
def test_times_are_read_as_slurm_reads_them(time: str, minutes: int) -> None:
    assert Resources(time=time).minutes == minutes


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"time": "soon"}, "not of the form"),
        ({"partition": "gpu\n#SBATCH --x"}, "characters that an #SBATCH line does not take"),
        ({"time": "2", "grace_s": 120}, "not longer than the 120 s"),
        ({"nodes": 0}, "at least 1 node"),
    ],
)
def test_wrong_resources_are_explained(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Resources(**wrong)


def test_dry_run_prints_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = submit(["framecast", "train", "x"], tmp_path, TWO_NODES, dry_run=True)
    assert capsys.readouterr().out == script == sbatch_script(["framecast", "train", "x"], TWO_NODES)


@pytest.mark.slow
def test_submitit_trains_on_two_local_processes_and_requeues(tmp_path: Path) -> None:
    """The preemption signal reaches rank 0, both processes save and the job comes back."""
    pytest.importorskip("submitit", reason="needs the slurm extra")
    run = tmp_path / "run"
    jobs = json.dumps([{"run": str(run), "changes": {"epochs": 20}, "slow": 0.02}])
    machine = Resources(gpus_per_node=2, time="60", cpus_per_process=1)  # without GPUs: two CPU processes
    job = submit([sys.executable, str(SCRIPT), jobs], tmp_path / "jobs", machine, cluster="local")
    wait_for_rows(run, 3)
    children = Path(f"/proc/{job._process.pid}/task/{job._process.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGUSR2)  # what submitit asks Slurm to send
    assert job.results() == [0, 0], job.stderr()
    sessions = json.loads((run / "environment.json").read_text())
    assert [session["processes"] for session in sessions] == [2, 2]
    assert 0 < sessions[1]["from_step"] < 60
    summary = read_summary(run)
    assert summary is not None
    assert summary["steps"] == 60


def test_missing_submitit_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ValueError, match=r"framecast\[slurm\]"):
        submit(["true"], tmp_path, Resources())


def test_missing_slurm_is_explained(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="needs the slurm extra")
    with pytest.raises(ValueError, match="is Slurm on this machine"):
        submit(["true"], tmp_path, Resources())
