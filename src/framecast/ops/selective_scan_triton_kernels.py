# ty: ignore   Triton writes its own language in functions
"""Triton kernels of the selective scan, in tiles of steps that are walked at the same time.

A tile's effect on the state is h -> decay h + end. `ends` finds the ends of all tiles from a state of zeros,
`carry` takes the state from tile to tile, `answers` walks the tiles again from the right state. The gradient
is the same recurrence in the other direction, with `pulls` on the state instead of ends; the states inside a
tile are found again from the one before it, which the forward pass kept. Nothing is divided, and the decay of
a tile is exp(A Σ t), so that no delta overflows.

Shapes: S directions (the second walks from the end), B batch, L steps in T tiles, D channels in blocks, N
states, G groups. `_l`, `_b`, `_s`, `_g`: distances between steps, sequences, directions and groups.
"""
# ruff: noqa: RUF005   it knows no (*tuple, item)

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _channels(block, per_group, CHANNELS: tl.constexpr):
    """Channels of a block, which of them exist, and their group; no block lies in two groups."""
    blocks = tl.cdiv(per_group, CHANNELS)
    group = block // blocks
    first = (block % blocks) * CHANNELS
    within = first + tl.arange(0, CHANNELS)
    return group * per_group + within, within < per_group, group


@triton.jit
def _step_size(delta, row, stride, c, known, bias, SOFTPLUS: tl.constexpr):
    """t and its slope over delta; zero where there is no step, which leaves the state as it is."""
    x = tl.load(delta + row * stride + c, mask=known, other=0.0).to(tl.float32) + bias
    if SOFTPLUS:
        # log(1 + e) = 2 artanh(e / (2 + e)), which stays exact where e is tiny
        e = tl.exp(-tl.abs(x))
        s = e / (2.0 + e)
        q = s * s
        p = 1 / 15.0
        p = p * q + 1 / 13.0
        p = p * q + 1 / 11.0
        p = p * q + 1 / 9.0
        p = p * q + 1 / 7.0
        p = p * q + 1 / 5.0
        p = p * q + 1 / 3.0
        p = p * q + 1.0
        t = tl.maximum(x, 0.0) + 2.0 * s * p
        slope = tl.sigmoid(x)
    else:
        t = x
        slope = x * 0.0 + 1.0
    return tl.where(known, t, 0.0), tl.where(known, slope, 0.0)


@triton.jit
def _weights(x, row, stride, n, known, fixed, FIXED: tl.constexpr):
    """B or C of a step: (1, N) for all channels of the group, or the fixed (channels, N)."""
    if FIXED:
        w = fixed
    else:
        w = tl.load(x + row * stride + n, mask=known, other=0.0).to(tl.float32)[None, :]
    return w


@triton.jit
def _fixed(x, matrix, inside, FIXED: tl.constexpr):
    """The (channels, N) of fixed B or C, else anything."""
    w = 0.0
    if FIXED:
        w = tl.load(x + matrix, mask=inside, other=0.0).to(tl.float32)
    return w


@triton.jit
def _vector(x, at, inside, THERE: tl.constexpr):
    """D or the bias of delta, 0 where there is none."""
    v = 0.0
    if THERE:
        v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    return v


@triton.jit
def _gate(z, row, stride, c, known, GATED: tl.constexpr):
    """silu(z) and its slope, 1 and 0 without a gate."""
    if GATED:
        x = tl.load(z + row * stride + c, mask=known, other=0.0).to(tl.float32)
        s = tl.sigmoid(x)
        gate = x * s
        slope = s * (1.0 + x * (1.0 - s))
    else:
        gate = 1.0
        slope = 0.0
    return gate, slope


@triton.jit
def ends(
    u, delta, A, B, bias, ends, totals,
    steps, channels, states, per_group, batch,
    u_s, u_b, u_l, delta_s, delta_b, delta_l, B_s, B_b, B_l, B_g,
    SOFTPLUS: tl.constexpr, BIASED: tl.constexpr, FIXED_B: tl.constexpr, REVERSE: tl.constexpr,
    TILE: tl.constexpr, CHANNELS: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """Where each tile leaves a state of zeros, and its Σ t."""
    tile, s, b = tl.program_id(0), tl.program_id(2) // batch, tl.program_id(2) % batch
    c, real, group = _channels(tl.program_id(1), per_group, CHANNELS)
    n = tl.arange(0, STATES)
    matrix = (s * channels + c)[:, None] * states + n[None, :]
    inside = real[:, None] & (n < states)[None, :]
    a = tl.load(A + matrix, mask=inside, other=0.0).to(tl.float32)
    fixed = _fixed(B, matrix, inside, FIXED_B)
    shift = _vector(bias, s * channels + c, real, BIASED)
    u += s.to(tl.int64) * u_s + b.to(tl.int64) * u_b
    delta += s.to(tl.int64) * delta_s + b.to(tl.int64) * delta_b
    B += s.to(tl.int64) * B_s + b.to(tl.int64) * B_b + group * B_g
    h = tl.zeros((CHANNELS, STATES), tl.float32)
    total = tl.zeros((CHANNELS,), tl.float32)
    backwards = s == 1 - REVERSE
    for i in range(TILE):
        row = (tile * TILE + tl.where(backwards, TILE - 1 - i, i)).to(tl.int64)
        t, _ = _step_size(delta, row, delta_l, c, real & (row < steps), shift, SOFTPLUS)
        x = tl.load(u + row * u_l + c, mask=real & (row < steps), other=0.0).to(tl.float32)
        w = _weights(B, row, B_l, n, (n < states) & (row < steps), fixed, FIXED_B)
        h = tl.exp(t[:, None] * a) * h + (t * x)[:, None] * w
        total += t
    place = ((s * batch + b).to(tl.int64) * tl.num_programs(0) + tile) * channels + c
    tl.store(ends + place[:, None] * states + n[None, :], h, mask=inside)
    tl.store(totals + place, total, mask=real)


@triton.jit
def pulls(
    delta, A, C, z, grad, bias, pulls, totals,
    steps, channels, states, per_group, batch,
    delta_s, delta_b, delta_l, C_s, C_b, C_l, C_g, z_b, z_l, grad_b, grad_l,
    SOFTPLUS: tl.constexpr, BIASED: tl.constexpr, FIXED_C: tl.constexpr, GATED: tl.constexpr,
    REVERSE: tl.constexpr, TILE: tl.constexpr, CHANNELS: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """The gradient that each tile's own answers send to the state before it, and its Σ t."""
    tile, s, b = tl.program_id(0), tl.program_id(2) // batch, tl.program_id(2) % batch
    c, real, group = _channels(tl.program_id(1), per_group, CHANNELS)
    n = tl.arange(0, STATES)
    matrix = (s * channels + c)[:, None] * states + n[None, :]
    inside = real[:, None] & (n < states)[None, :]
    a = tl.load(A + matrix, mask=inside, other=0.0).to(tl.float32)
    fixed = _fixed(C, matrix, inside, FIXED_C)
    shift = _vector(bias, s * channels + c, real, BIASED)
    delta += s.to(tl.int64) * delta_s + b.to(tl.int64) * delta_b
    C += s.to(tl.int64) * C_s + b.to(tl.int64) * C_b + group * C_g
    z += b.to(tl.int64) * z_b
    grad += b.to(tl.int64) * grad_b
    pull = tl.zeros((CHANNELS, STATES), tl.float32)
    total = tl.zeros((CHANNELS,), tl.float32)
    backwards = s == 1 - REVERSE
    for i in range(TILE):
        row = (tile * TILE + tl.where(backwards, i, TILE - 1 - i)).to(tl.int64)
        known = real & (row < steps)
        t, _ = _step_size(delta, row, delta_l, c, known, shift, SOFTPLUS)
        gate, _ = _gate(z, row, z_l, c, known, GATED)
        g = tl.load(grad + row * grad_l + c, mask=known, other=0.0).to(tl.float32) * gate
        w = _weights(C, row, C_l, n, (n < states) & (row < steps), fixed, FIXED_C)
        pull = tl.exp(t[:, None] * a) * (pull + g[:, None] * w)
        total += t
    place = ((s * batch + b).to(tl.int64) * tl.num_programs(0) + tile) * channels + c
    tl.store(pulls + place[:, None] * states + n[None, :], pull, mask=inside)
    tl.store(totals + place, total, mask=real)


@triton.jit
def carry(
    ends, totals, A, start, last,
    channels, states, batch, tiles,
    STARTED: tl.constexpr, REVERSE: tl.constexpr, CHANNELS: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """From tile to tile: what each tile leaves is replaced by what it is met with."""
    s, b = tl.program_id(1) // batch, tl.program_id(1) % batch
    c, n = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS), tl.arange(0, STATES)
    inside = (c < channels)[:, None] & (n < states)[None, :]
    matrix = c[:, None] * states + n[None, :]
    a = tl.load(A + s * channels * states + matrix, mask=inside, other=0.0).to(tl.float32)
    sequence = (s * batch + b).to(tl.int64)
    h = tl.zeros((CHANNELS, STATES), tl.float32)
    if STARTED:
        h = tl.load(start + sequence * channels * states + matrix, mask=inside, other=0.0).to(tl.float32)
    backwards = s == 1 - REVERSE
    for i in range(tiles):
        place = (sequence * tiles + tl.where(backwards, tiles - 1 - i, i)) * channels
        end = tl.load(ends + place * states + matrix, mask=inside, other=0.0)
        total = tl.load(totals + place + c, mask=c < channels, other=0.0)
        tl.store(ends + place * states + matrix, h, mask=inside)
        h = tl.exp(total[:, None] * a) * h + end
    tl.store(last + sequence * channels * states + matrix, h, mask=inside)


@triton.jit
def answers(
    u, delta, A, B, C, D, z, bias, kept, partial, y,
    steps, channels, states, per_group, batch,
    u_s, u_b, u_l, delta_s, delta_b, delta_l, B_s, B_b, B_l, B_g, C_s, C_b, C_l, C_g, z_b, z_l,
    SOFTPLUS: tl.constexpr, BIASED: tl.constexpr, SKIP: tl.constexpr, GATED: tl.constexpr,
    FIXED_B: tl.constexpr, FIXED_C: tl.constexpr, REVERSE: tl.constexpr, DIRECTIONS: tl.constexpr,
    TILE: tl.constexpr, CHANNELS: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """y of a tile, the directions added (`partial` holds those done) and gated."""
    tile, b = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c, real, group = _channels(tl.program_id(1), per_group, CHANNELS)
    n = tl.arange(0, STATES)
    inside = real[:, None] & (n < states)[None, :]
    z += b * z_b
    for s in range(DIRECTIONS):
        matrix = (s * channels + c)[:, None] * states + n[None, :]
        a = tl.load(A + matrix, mask=inside, other=0.0).to(tl.float32)
        fixed_B, fixed_C = _fixed(B, matrix, inside, FIXED_B), _fixed(C, matrix, inside, FIXED_C)
        shift, skip = _vector(bias, s * channels + c, real, BIASED), _vector(D, s * channels + c, real, SKIP)
        delta_here, u_here = delta + s * delta_s + b * delta_b, u + s * u_s + b * u_b
        B_here, C_here = B + s * B_s + b * B_b + group * B_g, C + s * C_s + b * C_b + group * C_g
        place = ((s * batch + b) * tl.num_programs(0) + tile) * channels + c
        h = tl.load(kept + place[:, None] * states + n[None, :], mask=inside, other=0.0)
        backwards = s == 1 - REVERSE
        tl.debug_barrier()  # the partial answers are there
        for i in range(TILE):
            row = (tile * TILE + tl.where(backwards, TILE - 1 - i, i)).to(tl.int64)
            known, known_n = real & (row < steps), (n < states) & (row < steps)
            t, _ = _step_size(delta_here, row, delta_l, c, known, shift, SOFTPLUS)
            x = tl.load(u_here + row * u_l + c, mask=known, other=0.0).to(tl.float32)
            w = _weights(B_here, row, B_l, n, known_n, fixed_B, FIXED_B)
            h = tl.exp(t[:, None] * a) * h + (t * x)[:, None] * w
            w = _weights(C_here, row, C_l, n, known_n, fixed_C, FIXED_C)
            out = tl.sum(w * h, axis=1) + skip * x
            here = (b * steps + row) * channels + c
            out += tl.load(partial + here, mask=known & (s > 0), other=0.0)
            gate, _ = _gate(z, row, z_l, c, known, GATED)
            tl.store(y + here, out * gate, mask=known & (s == DIRECTIONS - 1))
            tl.store(partial + here, out, mask=known & (s < DIRECTIONS - 1))


@triton.jit
def gradients(
    u, delta, A, B, C, D, z, bias, grad, kept, pulls, partial, inner,
    grad_u, grad_delta, grad_B, grad_C, grad_z, grad_D, grad_bias,
    steps, channels, states, per_group, batch,
    u_s, u_b, u_l, delta_s, delta_b, delta_l, B_s, B_b, B_l, B_g, C_s, C_b, C_l, C_g,
    z_b, z_l, grad_b, grad_l,
    SOFTPLUS: tl.constexpr, BIASED: tl.constexpr, SKIP: tl.constexpr, GATED: tl.constexpr,
    FIXED_B: tl.constexpr, FIXED_C: tl.constexpr, REVERSE: tl.constexpr, DIRECTIONS: tl.constexpr,
    TILE: tl.constexpr, INNER: tl.constexpr, CHANNELS: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """All gradients of a tile: its states once more, then the way back. A's takes the place of the pulls.

    The first walk leaves every INNER-th state in `inner`; the way back fills in those between in registers.
    """
    tile, block, b = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    c, real, group = _channels(block, per_group, CHANNELS)
    n = tl.arange(0, STATES)
    inside = real[:, None] & (n < states)[None, :]
    z += b * z_b
    grad += b * grad_b
    for s in range(DIRECTIONS):
        matrix = (s * channels + c)[:, None] * states + n[None, :]
        a = tl.load(A + matrix, mask=inside, other=0.0).to(tl.float32)
        fixed_B, fixed_C = _fixed(B, matrix, inside, FIXED_B), _fixed(C, matrix, inside, FIXED_C)
        shift, skip = _vector(bias, s * channels + c, real, BIASED), _vector(D, s * channels + c, real, SKIP)
        delta_here, u_here = delta + s * delta_s + b * delta_b, u + s * u_s + b * u_b
        B_here, C_here = B + s * B_s + b * B_b + group * B_g, C + s * C_s + b * C_b + group * C_g
        sequence = s * batch + b
        place = (sequence * tl.num_programs(0) + tile) * channels + c
        kept_here = place[:, None] * states + n[None, :]
        inner_here = inner + (sequence * tl.num_programs(0) + tile) * (TILE // INNER) * channels * states
        inner_here += c[:, None] * states + n[None, :]
        backwards = s == 1 - REVERSE
        h = tl.load(kept + kept_here, mask=inside, other=0.0)
        tl.debug_barrier()  # the partial answers are there
        for i in range(TILE):
            if i % INNER == 0:
                tl.store(inner_here + i // INNER * channels * states, h, mask=inside)
            row = (tile * TILE + tl.where(backwards, TILE - 1 - i, i)).to(tl.int64)
            known, known_n = real & (row < steps), (n < states) & (row < steps)
            t, _ = _step_size(delta_here, row, delta_l, c, known, shift, SOFTPLUS)
            x = tl.load(u_here + row * u_l + c, mask=known, other=0.0).to(tl.float32)
            w = _weights(B_here, row, B_l, n, known_n, fixed_B, FIXED_B)
            h = tl.exp(t[:, None] * a) * h + (t * x)[:, None] * w
            if GATED:
                w = _weights(C_here, row, C_l, n, known_n, fixed_C, FIXED_C)
                out = tl.sum(w * h, axis=1) + skip * x
                here = (b * steps + row) * channels + c
                out += tl.load(partial + here, mask=known & (s > 0), other=0.0)
                _, slope = _gate(z, row, z_l, c, known, GATED)
                g = tl.load(grad + row * grad_l + c, mask=known, other=0.0).to(tl.float32)
                tl.store(grad_z + here, g * out * slope, mask=known & (s == DIRECTIONS - 1))
                tl.store(partial + here, out, mask=known & (s < DIRECTIONS - 1))
        tl.debug_barrier()  # the inner states are there

        pull = tl.load(pulls + kept_here, mask=inside, other=0.0)
        sum_A = tl.zeros((CHANNELS, STATES), tl.float32)
        sum_B = tl.zeros((CHANNELS, STATES), tl.float32)
        sum_C = tl.zeros((CHANNELS, STATES), tl.float32)
        sum_D = tl.zeros((CHANNELS,), tl.float32)
        sum_bias = tl.zeros((CHANNELS,), tl.float32)
        for k in range(TILE // INNER):
            first = TILE - INNER * (k + 1)
            h = tl.load(inner_here + first // INNER * channels * states, mask=inside, other=0.0)
            walked = (h,)
            for m in tl.static_range(INNER):
                row = (tile * TILE + tl.where(backwards, TILE - 1 - first - m, first + m)).to(tl.int64)
                known, known_n = real & (row < steps), (n < states) & (row < steps)
                t, _ = _step_size(delta_here, row, delta_l, c, known, shift, SOFTPLUS)
                x = tl.load(u_here + row * u_l + c, mask=known, other=0.0).to(tl.float32)
                w = _weights(B_here, row, B_l, n, known_n, fixed_B, FIXED_B)
                h = tl.exp(t[:, None] * a) * h + (t * x)[:, None] * w
                walked = walked + (h,)
            for j in tl.static_range(INNER):
                at = first + INNER - 1 - j
                row = (tile * TILE + tl.where(backwards, TILE - 1 - at, at)).to(tl.int64)
                known, known_n = real & (row < steps), (n < states) & (row < steps)
                t, slope = _step_size(delta_here, row, delta_l, c, known, shift, SOFTPLUS)
                x = tl.load(u_here + row * u_l + c, mask=known, other=0.0).to(tl.float32)
                gate, _ = _gate(z, row, z_l, c, known, GATED)
                g = tl.load(grad + row * grad_l + c, mask=known, other=0.0).to(tl.float32) * gate
                w_B = _weights(B_here, row, B_l, n, known_n, fixed_B, FIXED_B)
                w_C = _weights(C_here, row, C_l, n, known_n, fixed_C, FIXED_C)
                # a row of (S, blocks, B, L, N): summed over the blocks of a group afterwards
                part = (((s * tl.num_programs(1) + block) * batch + b) * steps + row) * states + n
                if FIXED_C:
                    sum_C += g[:, None] * walked[INNER - j]
                else:
                    tl.store(grad_C + part, tl.sum(g[:, None] * walked[INNER - j], axis=0), mask=known_n)
                reach = pull + g[:, None] * w_C
                if FIXED_B:
                    sum_B += reach * (t * x)[:, None]
                else:
                    tl.store(grad_B + part, tl.sum(reach * (t * x)[:, None], axis=0), mask=known_n)
                grad_tx = tl.sum(reach * w_B, axis=1)
                pull = tl.exp(t[:, None] * a) * reach
                exponent = pull * walked[INNER - 1 - j]
                sum_A += exponent * t[:, None]
                grad_x = (tl.sum(exponent * a, axis=1) + x * grad_tx) * slope
                out_row = (sequence * steps + row) * channels + c
                tl.store(grad_u + out_row, t * grad_tx + skip * g, mask=known)
                tl.store(grad_delta + out_row, grad_x, mask=known)
                sum_bias += grad_x
                sum_D += g * x
        tl.store(pulls + kept_here, sum_A, mask=inside)
        if FIXED_B:
            tl.store(grad_B + kept_here, sum_B, mask=inside)
        if FIXED_C:
            tl.store(grad_C + kept_here, sum_C, mask=inside)
        if SKIP:
            tl.store(grad_D + place, sum_D, mask=real)
        if BIASED:
            tl.store(grad_bias + place, sum_bias, mask=real)
