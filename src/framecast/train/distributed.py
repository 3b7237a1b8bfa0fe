"""Several processes: who am I, how is the model spread, sums over all.

Processes come from torchrun (RANK, WORLD_SIZE, LOCAL_RANK) or from one Slurm task per GPU (SLURM_*).
Sums use gloo on CPUs and nccl on GPUs. One process needs none of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from inspect import signature
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

TIMEOUT = timedelta(minutes=30)  # longer than any evaluation on one process that the others wait for


@dataclass(frozen=True)
class World:
    """This process among all of the run."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


@contextmanager
def start_world(device: str | torch.device | None = None) -> Generator[World]:
    """Join the other processes, if there are any, and leave them at the end; may be nested."""
    rank, size, local_rank, meeting = _place()
    chosen = _device(device, local_rank)
    ours = size > 1 and not dist.is_initialized()
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    if ours:
        bound = chosen if chosen.type == "cuda" else None
        dist.init_process_group(
            backend, meeting, rank=rank, world_size=size, timeout=TIMEOUT, device_id=bound
        )
    try:
        yield World(rank, size, chosen)
    finally:
        if ours:
            dist.destroy_process_group()
            if backend == "gloo":
                # Its threads outlive the group and may still hold tensors of the last sums. Freed while
                # the interpreter ends, they abort a process whose work is done (pytorch#179291).
                time.sleep(0.2)


def _place() -> tuple[int, int, int, str]:
    """(rank, world size, local rank, address to meet at) from the environment."""
    env = os.environ
    local_rank = int(env.get("LOCAL_RANK", env.get("SLURM_LOCALID", 0)))
    if dist.is_initialized():
        return dist.get_rank(), dist.get_world_size(), local_rank, ""
    if "WORLD_SIZE" in env:
        return int(env.get("RANK", 0)), int(env["WORLD_SIZE"]), local_rank, "env://"
    # Only srun sets SLURM_STEP_NUM_TASKS; the batch script alone has SLURM_NTASKS, but is one process.
    size = int(env.get("SLURM_STEP_NUM_TASKS", 1))
    if size == 1:
        return 0, 1, 0, ""
    one_node = int(env.get("SLURM_STEP_NUM_NODES", 1)) == 1
    address = env.get("MASTER_ADDR", "127.0.0.1" if one_node else "")
    port = env.get("MASTER_PORT", str(20000 + int(env.get("SLURM_JOB_ID", 0)) % 20000))
    if not address:
        raise ValueError(
            "several Slurm nodes need MASTER_ADDR; put this before srun: "
            'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
        )
    return int(env["SLURM_PROCID"]), size, local_rank, f"tcp://{address}:{port}"


def _device(wanted: str | torch.device | None, local_rank: int) -> torch.device:
    if wanted is None:
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(wanted)
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise ValueError(f"device {wanted} was asked for but torch sees no GPU; use device cpu")
    if device.index is None:
        visible = torch.cuda.device_count()
        # one visible GPU per task is how Slurm may bind them: then every task uses its device 0
        index = 0 if visible == 1 and "SLURM_STEP_NUM_TASKS" in os.environ else local_rank
        if index >= visible:
            raise ValueError(
                f"process {local_rank} of this machine has no GPU, {visible} are visible; start {visible} "
                "processes per machine"
            )
        device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device


class _Replicated(DistributedDataParallel):
    """A replicated model is still the model: attributes are found on it."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def spread(
    model: nn.Module, world: World, parallel: Literal["ddp", "fsdp"], *, unused_parameters: bool = False
) -> nn.Module:
    """The module to call in training: copies (DDP), shards (FSDP2, in place), or the model itself.

    FSDP2 shards each repeated block on its own, so one block at a time is whole in memory.
    """
    if world.size == 1:
        return model
    if parallel == "ddp":
        ids = [world.device.index] if world.device.type == "cuda" else None
        # Constant buffers need no traffic, running statistics are shared after the step.
        renamed = "forward_sync_buffers" in signature(DistributedDataParallel).parameters  # in newer torch
        sync: dict[str, Any] = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
        return _Replicated(model, device_ids=ids, find_unused_parameters=unused_parameters, **sync)
    mesh = init_device_mesh(world.device.type, (world.size,))
    for block in repeated_blocks(model):
        fully_shard(block, mesh=mesh)
    # By default the root stays whole after an evaluation; checkpoints and averages need its shards.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    return model


def gradients_not_shared(model: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Around a micro-batch: gradients are exchanged only after the last one of a step."""
    if isinstance(model, DistributedDataParallel):
        return nullcontext() if last else model.no_sync()
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
    return nullcontext()


@contextmanager
def whole_weights(model: nn.Module) -> Generator[None]:
    """Inside, a sharded model is whole on every process, which may then call it as often as it likes."""
    shards = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in shards:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in shards:
            module.reshard()
            module.set_reshard_after_forward(True, recurse=False)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The elements of innermost module lists: transformer blocks, layers of a stage."""
    return [
        block
        for holder in model.modules()
        if isinstance(holder, nn.ModuleList)
        for block in holder
        if any(True for _ in block.parameters())
        and not any(isinstance(inner, nn.ModuleList) for inner in block.modules())
    ]


def recompute_blocks(model: nn.Module) -> None:
    """Activation checkpointing: every repeated block forgets its inside and recomputes it backwards."""
    blocks = repeated_blocks(model)
    if not blocks:
        raise ValueError(
            f"activation_checkpointing: {type(model).__name__} has no module list of blocks; switch it off"
        )
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def running_statistics(model: nn.Module) -> list[Tensor]:
    """Buffers that a training forward pass changes: running means and variances of batch norms."""
    return [
        buffer
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats
        for buffer in module.buffers(recurse=False)
    ]


def share_running_statistics(model: nn.Module, world: World) -> None:
    """Running statistics become those of rank 0; each process has seen other samples."""
    if world.size > 1:
        for buffer in running_statistics(model):
            dist.broadcast(buffer, src=0)


def gather_weights(model: nn.Module, world: World) -> dict[str, Tensor] | None:
    """Whole weights of a sharded model on the CPU of rank 0; None for a model that is whole already."""
    state = model.state_dict()
    if not any(isinstance(value, DTensor) for value in state.values()):
        return None
    whole = {}
    for name, value in state.items():  # one at a time: only rank 0 keeps them
        value = value.full_tensor() if isinstance(value, DTensor) else value
        if world.is_main:
            whole[name] = value.cpu()
    return whole


def sum_over_ranks(values: Tensor, world: World) -> Tensor:
    """Sum of a small tensor over all processes; back on the CPU."""
    if world.size > 1:
        values = values.to(world.device)
        dist.all_reduce(values)
    return values.cpu()


def gather_objects(value: Any, world: World) -> list[Any]:
    """The value of every process, in the order of ranks, on every process."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value)
    return values


def wait_for_all(world: World) -> None:
    if world.size > 1:
        dist.barrier()
