"""Adaptive models have the interface and the weights of their hosts, and leave tokens out by the rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

import framecast as fc
from framecast.backbones.adaptive_int8 import int8
from framecast.backbones.adaptive_model import num_points

SMALL = {"width": 48, "depth": 4, "num_heads": 3, "patch_size": 8, "image_size": 48, "num_classes": 5}
FRAMES = {"num_frames": 4}
HOSTS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_tiny", {}),
    "vit, mean of patches": ("vit_tiny", {"pooling": "mean"}),
    "vit, registers and layer scale": ("vit_tiny", {"num_registers": 2, "layer_scale": True}),
    "vit, distilled": ("deit_tiny_distilled", {}),
    "joint": ("vit_tiny_joint", FRAMES),
    "timesformer": ("timesformer_base", {**FRAMES, "drop_path": 0.0}),
    "timesformer, joint": ("timesformer_base", {**FRAMES, "attention": "joint", "drop_path": 0.0}),
    "timesformer, space": ("timesformer_base", {**FRAMES, "attention": "space_only", "drop_path": 0.0}),
    "xvit": (
        "xvit_base",
        {**FRAMES, "group_frames": 2, "time_steps": 2, "temporal_heads": 3, "head_width": 24},
    ),
    "stablemamba": ("stablemamba_tiny", {"pattern": "1:1"}),
    "stablemamba, clips": ("stablemamba_tiny", {**FRAMES, "pattern": "1:1"}),
}
MASKED = [name for name in HOSTS if "mamba" not in name]
IN_FRAMES = ["timesformer", "timesformer, space", "xvit"]
every_host = pytest.mark.parametrize("name", HOSTS)


def host(name: str, **config: Any) -> Any:
    torch.manual_seed(0)
    model, settings = HOSTS[name]
    made = fc.create_model(model, **SMALL | settings | config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def pixels(name: str, batch: int = 3) -> Tensor:
    torch.manual_seed(1)
    frames = [4] if "num_frames" in HOSTS[name][1] else []
    return torch.randn(batch, 3, *frames, 48, 48)


@every_host
class TestEveryHost:
    def test_something_leaves_and_the_scores_have_the_hosts_shape(self, name: str) -> None:
        model = host(name)
        adaptive, x = fc.adaptive(model), pixels(name)
        with torch.no_grad(), adaptive.record() as record:
            scores = adaptive(x)
        assert scores.shape == model(x).shape
        assert (record.macs < record.full_macs).all()
        assert (record.counts.diff(dim=1) <= 0).all()

    def test_a_sample_does_not_depend_on_its_batch(self, name: str) -> None:
        adaptive, x = fc.adaptive(host(name), budget=0.8), pixels(name, 5)
        with torch.no_grad():
            together = adaptive(x)
            alone = torch.cat([adaptive(one[None]) for one in x])
            order = torch.tensor([3, 0, 4, 1, 2])
            assert_close(adaptive(x[order]), together[order], atol=1e-6, rtol=1e-6)
        assert_close(alone, together, atol=1e-6, rtol=1e-6)

    def test_kept_ids_are_unique_and_nested(self, name: str) -> None:
        adaptive, x = fc.adaptive(host(name)), pixels(name)
        with torch.no_grad(), adaptive.record() as record:
            adaptive(x)
        patches = 36 * (x.shape[2] if x.ndim == 5 else 1)
        class_rows = adaptive.host.num_prefix_tokens if name != "timesformer" else x.shape[2]
        class_rows = x.shape[2] if name == "timesformer, space" else class_rows
        before = [set(range(patches))] * len(x)
        for stage, samples in enumerate(record.ids):
            for i, ids in enumerate(samples):
                kept = set(ids.tolist())
                assert len(kept) == len(ids)
                assert kept <= before[i]
                assert record.counts[i, stage] == len(ids) + class_rows  # the class token always stays
                before[i] = kept

    def test_nothing_is_copied(self, name: str) -> None:
        model = host(name)
        adaptive = fc.adaptive(model)
        assert adaptive.host is model
        assert all(a is b for a, b in zip(adaptive.parameters(), model.parameters(), strict=True))
        assert adaptive.state_dict().keys() == model.state_dict().keys()
        adaptive.train()
        assert model.training
        assert {k for k, _ in adaptive.named_parameters()} == {k for k, _ in model.named_parameters()}
        assert adaptive.layer_groups() == model.layer_groups()

    def test_saved_and_loaded(self, name: str, tmp_path: Path) -> None:
        adaptive, x = fc.adaptive(host(name), budget=0.7, semantics="mask"), pixels(name)
        again: Any = fc.load(fc.save(adaptive, tmp_path / "saved"))
        assert again.config == adaptive.config
        with torch.no_grad():
            assert torch.equal(again(x), adaptive(x))
        assert type(again.host) is type(adaptive.host)

    def test_a_training_step_reaches_every_parameter(self, name: str) -> None:
        model = host(name)
        adaptive, x = fc.adaptive(model).train(), pixels(name)
        F.cross_entropy(adaptive(x), torch.arange(3)).backward()
        for key, parameter in adaptive.named_parameters():
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key

    def test_gradients_are_those_of_the_choice_held_fast(self, name: str) -> None:
        """Along a random direction, where the step is too small to change the choice."""
        adaptive, x = fc.adaptive(host(name).double()), pixels(name).double()
        direction = torch.randn_like(x)
        x.requires_grad_()
        loss = adaptive(x).square().sum()
        (gradient,) = torch.autograd.grad(loss, x)
        slope, step = (gradient * direction).sum(), 1e-6
        with torch.no_grad():
            plus, minus = (adaptive(x + s * direction).square().sum() for s in (step, -step))
        assert_close((plus - minus) / (2 * step), slope, rtol=1e-4, atol=1e-6)

    def test_with_budget_is_the_same_host_at_another_setting(self, name: str) -> None:
        adaptive, x = fc.adaptive(host(name)), pixels(name)
        fewer = adaptive.with_budget(0.4)
        assert fewer.host is adaptive.host
        assert fewer.config.blocks == adaptive.config.blocks
        with torch.no_grad(), adaptive.record() as a, fewer.record() as b:
            adaptive(x)
            fewer(x)
        assert (b.macs < a.macs).all()

    def test_stochastic_depth_draws_for_each_sequence(self, name: str) -> None:
        adaptive, x = fc.adaptive(host(name, drop_path=0.5)).train(), pixels(name)
        first, second = adaptive(x), adaptive(x)
        assert not torch.equal(first, second)
        assert torch.isfinite(first).all()


OPTIONS: list[dict[str, Any]] = [
    {},
    {"semantics": "mask"},
    {"semantics": "batch-coupled"},
    {"grid": "paper"},
    {"scope": "clip"},
    {"budget": 0.5},
    {"budget": (30, 20), "blocks": (0, 2)},
    {"select": "top"},
    {"select": "stride"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", MASKED)
def test_tokens_that_are_gone_and_tokens_that_nobody_sees_are_the_same(
    name: str, options: dict[str, Any]
) -> None:
    adaptive, x = fc.adaptive(host(name), **options), pixels(name)
    with torch.no_grad():
        assert_close(adaptive(x), adaptive.forward_masked(x), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("name", IN_FRAMES)
def test_the_frames_of_a_clip_keep_the_same_places_where_they_shall(name: str) -> None:
    adaptive = fc.adaptive(host(name), scope="clip")
    with torch.no_grad(), adaptive.record() as record:
        adaptive(pixels(name))
    for samples in record.ids[:-1]:
        for ids in samples:
            places = [sorted((ids[ids // 36 == t] % 36).tolist()) for t in range(4)]
            assert places[0] == places[1] == places[2] == places[3]


def test_stablemamba_of_attention_alone_is_the_vit() -> None:
    """Two ways of running the same blocks, one of which keeps the order of tokens."""
    vit = host("vit")
    twin: Any = fc.import_checkpoint("stablemamba", vit.state_dict(), num_heads=3, image_size=48)
    x = pixels("vit")
    with torch.no_grad():
        assert_close(fc.adaptive(twin)(x), fc.adaptive(vit)(x), atol=2e-6, rtol=1e-5)


def test_scans_see_the_tokens_that_are_left_in_their_order() -> None:
    model = host("stablemamba", depth=3, pattern="1:1")  # Mamba, attention, Mamba
    adaptive, x = fc.adaptive(model, blocks=(1,)), pixels("stablemamba", 1)
    with torch.no_grad():
        with adaptive.record() as record:
            scores = adaptive(x)
        kept = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + record.ids[0][0].sort().values])
        h, r = model.carry(model.embed(x), 1, 1)
        h, r = model.layers[1](h, r)
        h, r = model.layers[2](h[:, kept], r[:, kept])
        expected = model.forward_head(model.norm_f(h + r))
    assert_close(scores, expected, atol=1e-6, rtol=1e-5)


class TestBudgets:
    def test_points_and_candidates(self) -> None:
        assert num_points(1.0, 196) == num_points(197, 196) == num_points(500, 196) == 196
        assert num_points(0.5, 196) == 97  # 98 tokens, the class token among them
        assert num_points(21, 64) == 20
        assert num_points(0.001, 196) == num_points(2, 196) == 7  # 8 tokens at least
        assert num_points(3, 4) == 4  # never more than there are

    def test_a_budget_of_all_tokens_changes_nothing(self) -> None:
        model, x = host("vit"), pixels("vit")
        with torch.no_grad():
            expected = fc.adaptive(model)(x)
            for budget in (1.0, 37, 10_000):
                assert torch.equal(fc.adaptive(model, budget=budget)(x), expected)

    def test_never_more_than_the_budget_and_only_the_most_significant(self) -> None:
        adaptive: Any = fc.adaptive(host("vit"), blocks=(1,), budget=12)
        x = pixels("vit")
        whole: Any = fc.adaptive(adaptive.host, blocks=(1,), select="top")
        with torch.no_grad():
            tokens, best = adaptive.tokens(x, layer=1), whole.tokens(x, layer=1)
        assert max(tokens.layout.counts) <= 12
        for few, many in zip(
            tokens.ids.split(tokens.layout.counts), best.ids.split(best.layout.counts), strict=True
        ):
            assert set(few.tolist()) <= set(many[-11:].tolist()) | {-1}

    def test_blocks_are_the_last_three_quarters(self) -> None:
        with torch.device("meta"):
            assert fc.adaptive(fc.create_model("vit_small")).config.blocks == tuple(range(3, 12))
        assert fc.adaptive(host("vit")).config.blocks == (1, 2, 3)
        assert fc.adaptive(host("stablemamba")).config.blocks == (1, 3)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"blocks": (4,)}, "block 4 cannot sample tokens; those that can are 0, 1, 2, 3"),
            ({"blocks": ()}, "no block can sample"),
            ({"budget": 0}, "budget is 0"),
            ({"budget": 1.5}, r"budget is 1\.5; it must be a ratio above 0 up to 1, or a count"),
            ({"budget": (0.5, 0.5)}, r"2 budgets are given for 3 blocks \(\(1, 2, 3\)\)"),
            ({"semantics": "masked"}, "semantics is 'masked'; it must be one of 'per-sample'"),
            ({"select": "best"}, "select is 'best'"),
        ],
    )
    def test_misfits_are_named(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            fc.adaptive(host("vit"), **options)

    def test_models_without_attention_are_refused(self) -> None:
        with pytest.raises(ValueError, match="tokens of MSTCN cannot be sampled; pass a ViT"):
            fc.adaptive(fc.create_model("mstcn"))
        with pytest.raises(ValueError, match="no block can sample"):
            fc.adaptive(host("stablemamba", pattern="pure"))


class TestRecord:
    def test_multiply_adds_are_the_sheets_formula(self) -> None:
        adaptive, x = fc.adaptive(host("vit"), blocks=(1, 2)), pixels("vit")
        with torch.no_grad(), adaptive.record() as record:
            adaptive(x)
        width = 48
        for i in range(3):
            received = [37, 37, *record.counts[i].tolist()]
            kept = [37, *record.counts[i].tolist(), 1]
            expected = sum(
                2 * n * width**2 + 2 * m * width**2 + 2 * m * n * width + 8 * m * width**2
                for n, m in zip(received, kept, strict=True)
            )
            assert record.macs[i] == expected
        assert record.full_macs == 4 * (12 * 37 * width**2 + 2 * 37**2 * width)

    def test_calls_are_put_together(self) -> None:
        adaptive, x = fc.adaptive(host("vit")), pixels("vit")
        with torch.no_grad():
            with adaptive.record() as whole:
                adaptive(x)
            with adaptive.record() as parts:
                adaptive(x[:2])
                adaptive(x[2:])
            adaptive(x)  # outside nothing is noted
        assert torch.equal(whole.counts, parts.counts)
        assert torch.equal(whole.macs, parts.macs)
        for a, b in zip(whole.ids, parts.ids, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

    def test_ids_come_by_ascending_score_and_are_those_of_the_tokens(self) -> None:
        adaptive: Any = fc.adaptive(host("vit"))
        x = pixels("vit")
        with torch.no_grad(), adaptive.record() as record:
            adaptive(x)
            tokens = adaptive.tokens(x, layer=1)
        ids = [part[1:] for part in tokens.ids.split(tokens.layout.counts)]
        assert all(torch.equal(a, b) for a, b in zip(ids, record.ids[0], strict=True))


def test_settings_of_the_host_and_of_the_sampling_are_one() -> None:
    config = fc.adaptive(host("vit"), budget=0.5).config
    assert (config.image_size, config.num_classes, config.budget) == (48, 5, (0.5, 0.5, 0.5))
    assert json.loads(json.dumps(config.sampling()))["blocks"] == [1, 2, 3]
    with pytest.raises(AttributeError):
        config.budget = (1.0,)


def test_a_named_size_takes_both_kinds_of_settings(tmp_path: Path) -> None:
    model = fc.create_model("deit_tiny_ats", **SMALL, budget=0.5, blocks=[1, 3], grid="paper")
    assert model.config.blocks == (1, 3)
    assert (model.host.config.width, model.config.grid) == (48, "paper")
    again: Any = fc.load(fc.save(model.with_budget(0.3), tmp_path / "saved"))
    assert again.registered_name == "deit_tiny_ats"
    assert again.config.budget == (0.3, 0.3)
    with pytest.raises(ValueError, match=r"no setting 'bugdet', did you mean 'budget'"):
        fc.create_model("deit_tiny_ats", bugdet=0.5)


@pytest.mark.parametrize("prefix", ["", "base_model."])
def test_weights_of_the_release(prefix: str) -> None:
    vit, x = host("vit"), pixels("vit")
    state = {prefix + key: tensor for key, tensor in vit.state_dict().items()}
    for block in (2, 3):
        state[f"{prefix}blocks.{block}.attn.out_zero_mask"] = torch.zeros(1, 48)
    model: Any = fc.import_checkpoint("ats", state, num_heads=3)
    assert model.config.blocks == (2, 3)
    assert len(model.import_report.ignored) == 2
    assert model.import_report.complete
    assert len(model.import_report.matched) == len(vit.state_dict())
    with torch.no_grad():
        assert_close(model(x), fc.adaptive(vit, blocks=(2, 3))(x))
    del state[f"{prefix}blocks.0.norm1.weight"]
    with pytest.raises(ValueError, match="1 missing"):
        fc.import_checkpoint("ats", state, num_heads=3)


def test_autocast_decides_in_float32() -> None:
    adaptive, x = fc.adaptive(host("vit")), pixels("vit")
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        scores = adaptive(x)
    with torch.no_grad():
        assert_close(scores.float(), adaptive(x), atol=0.1, rtol=0.1)


def test_adapters_on_the_projections_are_heard() -> None:
    """A map that is no plain linear one is used as it is."""

    class Adapted(nn.Module):
        def __init__(self, inner: nn.Linear) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    model, x = host("vit"), pixels("vit")
    with torch.no_grad():
        expected = fc.adaptive(model)(x)
        for block in model.blocks:
            block.attn.qkv = Adapted(block.attn.qkv)
        assert_close(fc.adaptive(model)(x), expected, atol=1e-6, rtol=1e-5)


def test_int8() -> None:
    adaptive, x = fc.adaptive(host("vit")), pixels("vit")
    small = int8(adaptive)
    with torch.no_grad():
        scores, expected = small(x), adaptive(x)
        alone = torch.cat([small(one[None]) for one in x])
    assert (scores - expected).abs().max() < 0.05 * expected.abs().max()
    assert not torch.equal(scores, expected)
    assert (scores - alone).abs().max() < 0.03 * expected.abs().max()  # each token has a scale of its own
    assert type(adaptive.host.blocks[0].attn.qkv) is nn.Linear  # the model itself is as it was


# timm -------------------------------------------------------------------------------------------------


def timm_vit(**options: Any) -> Any:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    sizes = {"img_size": 48, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 3, "num_classes": 5}
    model = timm.models.vision_transformer.VisionTransformer(**sizes | options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


TIMM: list[dict[str, Any]] = [
    {},
    {"qk_norm": True, "init_values": 0.5},
    {"global_pool": "avg"},
    {"global_pool": "avg", "fc_norm": False},
    {"reg_tokens": 2, "no_embed_class": True, "pre_norm": True},
    {"scale_attn_norm": True},
]


class TestTimm:
    @pytest.mark.parametrize("options", TIMM, ids=str)
    def test_all_tokens_give_its_own_scores(
        self, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With a choice of everything the blocks here are timm's."""
        from framecast.backbones.adaptive_blocks import Stage
        from framecast.nn.token_sampling import Choice

        def all_of_them(_self: Stage, scores: Tensor, *_: Any, **__: Any) -> Choice:
            return Choice(scores.argsort(-1), torch.ones_like(scores, dtype=torch.bool))

        model, x = timm_vit(**options), pixels("vit")
        monkeypatch.setattr(Stage, "choose", all_of_them)
        monkeypatch.setattr(Stage, "plain", False)  # kernels would not ask it
        with torch.no_grad():
            assert_close(fc.adaptive(model)(x), model(x), atol=2e-6, rtol=1e-5)

    @pytest.mark.parametrize("options", TIMM, ids=str)
    def test_gone_and_unseen_are_the_same(self, options: dict[str, Any]) -> None:
        adaptive, x = fc.adaptive(timm_vit(**options)), pixels("vit")
        with torch.no_grad(), adaptive.record() as record:
            scores = adaptive(x)
            assert_close(scores, adaptive.forward_masked(x), atol=2e-6, rtol=1e-5)
        assert (record.macs < record.full_macs).all()

    def test_the_same_weights_in_our_vit_give_the_same_scores(self) -> None:
        model, x = timm_vit(), pixels("vit")
        ours = fc.import_checkpoint("vit", model.state_dict(), num_heads=3)
        with torch.no_grad():
            assert_close(fc.adaptive(model)(x), fc.adaptive(ours)(x), atol=2e-6, rtol=1e-5)

    def test_a_training_step(self) -> None:
        adaptive, x = fc.adaptive(timm_vit(drop_path_rate=0.3, proj_drop_rate=0.1)).train(), pixels("vit")
        F.cross_entropy(adaptive(x), torch.arange(3)).backward()
        assert all(p.grad is not None for p in adaptive.parameters())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"class_token": False, "global_pool": "avg"}, "has no class token"),
            ({"global_pool": "map"}, "pools by 'map'"),
        ],
    )
    def test_what_cannot_be_sampled_is_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            fc.adaptive(timm_vit(**options))

    def test_other_blocks_are_refused(self) -> None:
        timm = pytest.importorskip("timm")
        with pytest.raises(ValueError, match="blocks of ParallelScalingBlock"):
            fc.adaptive(timm_vit(block_fn=timm.models.vision_transformer.ParallelScalingBlock))

    def test_only_models_of_ours_are_saved(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="only those can be saved"):
            fc.save(fc.adaptive(timm_vit()), tmp_path / "saved")
