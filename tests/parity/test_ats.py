"""Adaptive token sampling gives the numbers of its release: the sampler, and whole models in every mode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from golden import Fixture, fixtures, require
from torch import Tensor
from torch.testing import assert_close

import framecast as fc
from framecast.nn.token_sampling import nearest, normalised_cdf, sample_points, sample_tokens, significance

DEFECTS = {"defect_n3"}  # fixtures that document what the release does wrong


def parts(fixture: Fixture, case: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return fixture.part(f"{case}.in"), fixture.part(f"{case}.out")


def check_sampler(fixture: Fixture) -> None:
    for case, about in fixture.meta["cases"].items():
        given, expected = parts(fixture, case)
        if "significance" not in expected:
            assert case in DEFECTS
            check_three_tokens(given)
            continue
        check_case(given, expected, about, fixture.meta["tolerance"])


def check_case(
    given: dict[str, Tensor], expected: dict[str, Tensor], about: dict[str, Any], near: dict[str, Any]
) -> None:
    alive = given["policy"][:, 1:, 0] > 0
    norms = given["v"].transpose(1, 2).flatten(2).norm(dim=-1)[:, 1:]
    scores = significance(given["attn"][:, :, 0, 1:].mT, norms, alive)
    assert_close(scores.clamp(min=0), expected["significance"], atol=near["significance"], rtol=0)

    ranked = scores.sort(dim=-1, stable=True).values
    from_zero = ~alive.all(-1)
    cdf = normalised_cdf(ranked, ranked < 0, from_zero=from_zero)
    assert_close(cdf, expected["normalized_cdf"], atol=near["normalized_cdf"], rtol=0)
    points = about["n_ref_tokens"] - 1
    heights = sample_points(cdf, points)
    assert_close(heights, expected["ys"], atol=near["ys"], rtol=0)

    order, kept = sample_tokens(scores, points, from_zero=from_zero)
    decided = about["decision_margin"] > 1e-6
    if decided:
        lowest = ranked.shape[1] - points
        assert torch.equal(nearest(cdf, heights).clamp(min=lowest), expected["picked_sorted_pos"])
    assert kept.sum(-1).tolist() == about["kept_patch_tokens"]
    tied = any((row[row > 0].diff() == 0).any() for row in expected["sorted_scores"])
    for b, (row, keep) in enumerate(zip(order, kept, strict=True)):
        ids = row[keep] + 1
        theirs = expected["kept_patch_ids"][b]
        theirs = theirs[theirs > 0]
        if decided and not tied:
            assert torch.equal(ids.sort().values, theirs)
            whole = torch.cat([torch.zeros(1, dtype=torch.int64), ids])
            assert torch.equal(given["raw_x"][b, whole], expected["selected_x"][b, : len(whole)])
            assert_close(given["attn"][b][:, whole], expected["attn_rows"][b][:, : len(whole)])
        elif decided:
            assert_close(scores[b, ids - 1], scores[b, theirs - 1].sort().values)


def check_three_tokens(given: dict[str, Tensor]) -> None:
    """The release loses both patches of three tokens; the more significant one must stay."""
    norms = given["v"].transpose(1, 2).flatten(2).norm(dim=-1)[:, 1:]
    scores = significance(given["attn"][:, :, 0, 1:].mT, norms)
    order, kept = sample_tokens(scores, 2)
    assert order[kept].tolist() == scores.argmax(-1).tolist()


def load(fixture: Fixture, semantics: str) -> Any:
    config = fixture.config
    blocks = tuple(config["ATS_BLOCKS"])
    model: Any = fc.import_checkpoint(
        "ats",
        fixture.part("state"),
        num_heads=config["NUM_HEADS"],
        image_size=config["IMG_SIZE"],
        budget=tuple(config["NUM_TOKENS"][i] for i in range(len(blocks))),
        semantics=semantics,
    )
    assert model.config.blocks == blocks  # told by the tensors of the release
    assert len(model.import_report.ignored) == len(blocks)
    return model


def check_model(fixture: Fixture) -> None:
    tolerance = fixture.meta["tolerance"]
    given, expected, middle = fixture.part("in"), fixture.part("out"), fixture.part("mid")
    image = given["image"]
    near: dict[str, Any] = {"atol": tolerance["logits_atol"], "rtol": 0}
    drops = fixture.config["DROP_TOKENS"]

    model = load(fixture, "batch-coupled" if drops else "mask")
    image.requires_grad_("grad_input.image" in fixture.tensors)
    logits = model(image)
    assert_close(logits, expected["logits"], **near)
    assert_close(model.forward_masked(image), expected["logits"], **near)
    with torch.no_grad():  # other kernels
        assert_close(model(image), expected["logits"], **near)
    check_tokens(model, image, middle, tolerance)

    alone = load(fixture, "per-sample" if drops else "mask")
    assert_close(alone(image), expected["logits_single"], **near)
    for i in range(len(image)):
        assert_close(alone(image[i : i + 1]), expected["logits_single"][i : i + 1], **near)
    check_counts(alone, image, fixture.meta["kept_tokens_incl_cls_single"])
    if "logits_mask_mode" in expected:
        mask = load(fixture, "mask")
        assert_close(mask(image), expected["logits_mask_mode"], **near)
        kept = fixture.meta["kept_tokens_incl_cls_mask_mode"]
        check_counts(mask, image, [{key: n[i] for key, n in kept.items()} for i in range(len(image))])

    gradients = fixture.part("grad")
    if gradients:
        loss = F.cross_entropy(logits, given["target"])
        loss.backward()
        near = {"rtol": tolerance["grad_rtol"], "atol": tolerance["grad_atol"]}
        assert_close(loss, expected["loss"], atol=1e-5, rtol=0)
        ours = {key: p.grad for key, p in model.named_parameters()}
        assert ours.keys() == gradients.keys()
        for key, gradient in gradients.items():
            assert_close(ours[key], gradient, **near)
        for name, gradient in fixture.part("grad_input").items():
            assert_close(given[name].grad, gradient, **near)


def check_tokens(model: Any, image: Tensor, middle: dict[str, Tensor], tolerance: dict[str, float]) -> None:
    """Tokens that are left after each block, in the release's order: class token, then ascending score."""
    policy = torch.ones(middle["block0_out"].shape[:2])
    for i in range(model.config.depth):
        policy = middle.get(f"block{i}_policy", policy)
        tokens = model.tokens(image, layer=i)
        assert tokens.layout.counts == policy.sum(-1).int().tolist()
        assert_close(tokens.x, middle[f"block{i}_out"][policy > 0], atol=tolerance["mid_atol"], rtol=0)


def check_counts(model: Any, image: Tensor, expected: list[dict[str, int]]) -> None:
    for block in model.config.blocks:
        counts = model.tokens(image, layer=block).layout.counts
        assert counts == [sample[f"block{block}_policy"] for sample in expected]


CHECK = {"sampler": check_sampler, "model": check_model}


@pytest.mark.parametrize("fixture", fixtures("ats"))
def test_ats(fixture: Fixture | None) -> None:
    fixture = require(fixture)
    assert fixture.kind in CHECK, f"unknown kind {fixture.kind}"
    CHECK[fixture.kind](fixture)
