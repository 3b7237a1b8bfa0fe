"""VideoMamba gives the numbers of its release on the golden fixtures; the scan and the convolution alone are
checked in files of their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from golden import Fixture, fixtures, require
from torch import Tensor, nn
from torch.testing import assert_close

import framecast as fc
from framecast.backbones.videomamba_pretraining import MaskedPretraining, SelfDistillation, direction_loss
from framecast.nn.embeddings import inflate_patch_kernel, resample_positions, resample_times
from framecast.nn.mamba import MambaMixer

ELSEWHERE = {"selective_scan", "causal_conv1d"}
SAME_MODEL = {"videomamba": {}, "stablemamba": {"pattern": "pure"}}  # StableMamba without attention is it too


def close(ours: Tensor, theirs: Tensor, atol: float) -> None:
    assert_close(ours, theirs, atol=atol, rtol=0)


def close_to_largest(ours: dict[str, Tensor], theirs: dict[str, Tensor], relative: float) -> None:
    """Gradients: the tolerance is relative to the largest number of each tensor."""
    assert ours.keys() == theirs.keys()
    for key, expected in theirs.items():
        assert_close(ours[key], expected, atol=relative * float(expected.abs().max()), rtol=0, msg=key)


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def check_model(fixture: Fixture) -> None:
    for system, config in SAME_MODEL.items():
        check_system(fixture, system, config)


def check_system(fixture: Fixture, system: str, config: dict[str, str]) -> None:
    tolerance, given, expected = fixture.meta["tolerance"], fixture.part("in"), fixture.part("out")
    model = fc.import_checkpoint(system, fixture.part("state"), **config)
    assert model.import_report.resampled == []
    x = given["image" if "image" in given else "clip"].requires_grad_()
    carried: list[tuple[Tensor, Tensor]] = []
    hooks = [m.register_forward_hook(lambda *a: carried.append(a[-1])) for m in model.layers]
    tokens = model.forward_features(x)
    for hook in hooks:
        hook.remove()
    for i, (h, r) in enumerate(carried):
        close(h, fixture.part("mid")[f"layer{i}_hidden"], tolerance["mid_atol"])
        close(r, fixture.part("mid")[f"layer{i}_residual"], tolerance["mid_atol"])
    assert len(carried) == fixture.config["depth"]
    logits = model(x)
    close(logits, expected["logits"], tolerance["output_atol"])
    close(model.forward_head(tokens), expected["logits"], tolerance["output_atol"])

    gradients = fixture.part("grad")
    if gradients:
        for answer in (logits, model.forward_head(tokens)):  # with and without the shortcut of the last layer
            model.zero_grad()
            x.grad = None
            loss = F.cross_entropy(answer, given["target"])
            loss.backward(retain_graph=True)
            close(loss, expected["loss"], 1e-5)
            ours = {"input": x.grad} | {n: torch.zeros_like(p) for n, p in model.named_parameters()}
            theirs = {"input": next(iter(fixture.part("grad_input").values()))} | gradients
            close_to_largest(ours | gradients_of(model), theirs, tolerance["grad_rel_to_tensor_max"])

    exact = model.double()(x.detach().double())
    close(exact, expected["logits_float64"], tolerance["float64_atol"])


def check_mixer(fixture: Fixture) -> None:
    c, tolerance, given = fixture.config, fixture.meta["tolerance"], fixture.part("in")
    mixer = MambaMixer(c["dim"], expand=c["d_inner"] // c["dim"], d_state=c["d_state"], dt_rank=c["dt_rank"])
    mixer.load_state_dict(fixture.part("state"))
    hidden = given["hidden"].requires_grad_()
    y = mixer(hidden)
    close(y, fixture.part("out")["hidden"], tolerance["atol"])
    y.backward(given["grad_out"])
    ours, theirs = {"input": hidden.grad} | gradients_of(mixer), fixture.part("grad")
    theirs = {"input": fixture.part("grad_input")["hidden"]} | theirs
    close_to_largest(ours, theirs, tolerance["grad_rel_to_tensor_max"])
    close(mixer(hidden, first_only=True), y[:, :1], 1e-6)


def check_distillation(fixture: Fixture) -> None:
    atol, given, expected = fixture.meta["tolerance"]["atol"], fixture.part("in"), fixture.part("out")
    state = fixture.part("state")
    teacher = fc.import_checkpoint("videomamba", fixture.part("state.teacher"))
    imported = fc.import_checkpoint("videomamba", fixture.part("state.student"))
    assert set(imported.import_report.ignored.values()) == {"only used while distilling"}
    both = SelfDistillation(imported, teacher.feature_dim)
    head = {k.removeprefix("student."): t for k, t in state.items() if k.startswith("student.distill_head.")}
    both.load_state_dict({f"student.{k}": t for k, t in imported.state_dict().items()} | head)
    logits, features = both(given["image"])
    wanted = teacher.forward_features(given["image"])
    loss = direction_loss(features, wanted)
    plain = F.cross_entropy(logits, given["target"])
    close(logits, expected["student_logits"], atol)
    close(teacher(given["image"]), expected["teacher_logits"], atol)
    close(F.normalize(features, dim=-1), expected["student_feats"], atol)
    close(F.normalize(wanted, dim=-1), expected["teacher_feats"], atol)
    close(loss, expected["loss_distill"], atol)
    close(plain, expected["loss_cls_plain_ce"], atol)
    close(plain + loss, expected["loss_total"], atol)


def check_masked_pretraining(fixture: Fixture) -> None:
    tolerance, given, expected = fixture.meta["tolerance"], fixture.part("in"), fixture.part("out")
    state = fixture.part("state")
    student = fc.import_checkpoint("videomamba", state)
    assert set(student.import_report.ignored.values()) == {"only used while pre-training"}
    both = MaskedPretraining(student, fixture.config["clip_output_dim"], skip_last_output=True)
    decoder = {k: t for k, t in state.items() if k.startswith("clip_decoder.")}
    both.load_state_dict({f"model.{k}": t for k, t in student.state_dict().items()} | decoder)
    aligned = both(given["clip"], given["mask"])
    close(aligned, expected["aligned"], tolerance["output_atol"])
    exact = both.double()(given["clip"].double(), given["mask"])
    close(exact, expected["aligned_float64"], tolerance["float64_atol"])


def check_tables(fixture: Fixture) -> None:
    """Positions of other grids, times of other lengths, kernels over time; the names say which."""
    atol, given = fixture.meta["tolerance"]["atol"], fixture.part("in")
    for name, expected in fixture.part("out").items():
        match name.split("_"):
            case ["pos", "embed", grid]:
                rows, columns = (int(n) for n in grid.split("x"))
                table, old = given["pos_embed_14x14"], (14, 14)
                close(resample_positions(table, old, (rows, columns), num_prefix=1), expected, atol)
            case ["temporal", steps]:
                close(resample_times(given["temporal_pos_embedding_8"], int(steps)), expected, atol)
            case ["patch", "weight", "3d", tubelet, how]:
                how = "centre" if how == "center" else how
                close(inflate_patch_kernel(given["patch_weight_2d"], int(tubelet[1:]), how), expected, atol)
            case _:
                pytest.fail(f"unknown table {name}")


CHECKS: dict[str, Callable[[Fixture], None]] = {
    "image": check_model,
    "video": check_model,
    "mixer": check_mixer,
    "distill": check_distillation,
    "masked_pretrain": check_masked_pretraining,
    "checkpoint_adapt": check_tables,
}


@pytest.mark.parametrize("fixture", fixtures("videomamba"))
def test_videomamba(fixture: Fixture | None) -> None:
    fixture = require(fixture)
    if fixture.kind in ELSEWHERE:
        pytest.skip(f"kind {fixture.kind} has a file of its own")
    assert fixture.kind in CHECKS, f"unknown kind {fixture.kind}"
    CHECKS[fixture.kind](fixture)
