"""The alignment with a teacher: which patches count, at which resolution, and that it can be learned."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from framecast.models.video_panda_alignment import (
    AlignmentConfig,
    TeacherAlignment,
    released_alignment,
    teacher_frames,
)

TINY = AlignmentConfig(llm_width=12, teacher_width=16, num_layers=6, layer_step=3, num_heads=4)
GRID, FINE = (2, 3), (4, 6)


def alignment() -> TeacherAlignment:
    torch.manual_seed(0)
    return TeacherAlignment(TINY)


def states(positions: int, texts: int = 1) -> list[Tensor]:
    return list(torch.randn(7, texts, positions, 12))


def test_layers_are_counted_from_the_last_one() -> None:
    assert TINY.layers == (6, 3, 0)
    assert AlignmentConfig().layers == (32, 28, 24, 20, 16, 12, 8, 4, 0)
    assert AlignmentConfig(num_layers=30).layers[-1] == 2


def test_only_patches_of_frames_with_a_target_count() -> None:
    model, hidden = alignment(), states(20)
    spans, grids = [[(1, 9), (10, 9)]], [[GRID, GRID]]
    teacher: list[list[Tensor | None]] = [[torch.randn(*GRID, 16), None]]
    loss = model.loss(hidden, spans, grids, teacher)
    patches = [2, 3, 4, 6, 7, 8]  # behind the context; 5 and 9 end rows
    for position in range(20):
        changed = [layer.clone() for layer in hidden]
        for layer in changed:
            layer[:, position] += 1.0
        moved = model.loss(changed, spans, grids, teacher) != loss
        assert bool(moved) is (position in patches)
    alone = model.loss(hidden, [spans[0][:1]], [grids[0][:1]], [teacher[0][:1]])
    assert_close(alone, loss)


def test_no_frame_at_all_is_no_loss_but_has_a_gradient() -> None:
    hidden = [layer.requires_grad_() for layer in states(9)]
    loss = alignment().loss(hidden, [[(0, 9)]], [[GRID]], [[None]])
    loss.backward()
    assert loss == 0
    assert hidden[0].grad is not None


def test_a_finer_student_is_averaged_over_the_teachers_patches() -> None:
    model, target = alignment(), torch.randn(*GRID, 16)
    coarse = torch.randn(7, 1, *GRID, 12)
    fine = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def sequence(grid: Tensor) -> list[Tensor]:  # with context in front and ends of rows
        rows = torch.cat([grid, torch.randn(*grid.shape[:3], 1, 12)], dim=3).flatten(2, 3)
        return list(torch.cat([torch.randn(7, 1, 1, 12), rows], dim=2))

    losses = [
        model.loss(sequence(x), [[(0, 1 + rows * (columns + 1))]], [[(rows, columns)]], [[target]])
        for x, (rows, columns) in ((coarse, GRID), (fine, FINE))
    ]
    assert_close(*losses)


def test_it_is_a_mean_over_frames_and_can_be_learned() -> None:
    model, hidden = alignment(), states(18)
    spans, grids = [[(0, 9), (9, 9)]], [[GRID, GRID]]
    teacher: list[list[Tensor | None]] = [[torch.randn(*GRID, 16) for _ in range(2)]]
    halves = [model.loss(hidden, [[spans[0][i]]], [[GRID]], [[teacher[0][i]]]) for i in (0, 1)]
    first = model.loss(hidden, spans, grids, teacher)
    assert_close(first, sum(halves) / 2)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        loss = model.loss(hidden, spans, grids, teacher)
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
        optimiser.step()
    assert loss < 0.2 * first


def test_a_teachers_frames_are_cropped_like_the_students() -> None:
    features, valid = torch.randn(2, 4, 4, 16), torch.zeros(2, 4, 4, dtype=torch.bool)
    valid[0, 1:3] = True
    inner, empty = teacher_frames(features, valid)
    assert inner is not None
    assert torch.equal(inner, features[0, 1:3])
    assert empty is None


def test_misfits_are_named() -> None:
    model = alignment()
    with pytest.raises(ValueError, match="6 hidden states of a language model with 6 layers"):
        model.loss(states(9)[:6], [[(0, 9)]], [[GRID]], [[None]])
    with pytest.raises(ValueError, match="2 x 3 tokens but 2 x 2 patches of the teacher"):
        model.loss(states(9), [[(0, 9)]], [[GRID]], [[torch.randn(2, 2, 16)]])
    with pytest.raises(ValueError, match="needs two layers or more"):
        TeacherAlignment(AlignmentConfig(num_layers=2))
    with pytest.raises(ValueError, match="holds no alignment"):
        released_alignment({"model.video_tower.balance": torch.zeros(3)})
