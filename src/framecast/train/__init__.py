"""Training: one readable loop on torch.distributed, from a laptop CPU to a Slurm cluster.

`recipe` says what a run is, `config` reads and changes it, `loop.train` runs it. The rest are the
loop's parts: `batches` (which samples a step sees), `optim` (optimisers, schedules, EMA),
`distributed` (processes, DDP, FSDP2), `checkpoint` (exact resume), `guard` (non-finite numbers),
`signals` (preemption), `records` (what is written down), `study` (many seeds and splits) and `slurm`.
"""

from __future__ import annotations
