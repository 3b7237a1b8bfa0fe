"""LOAN gives the numbers of its release: layer, network, training step, samples, metrics, maps, baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from golden import Fixture, fixtures, require, roots
from torch import Tensor, nn
from torch.testing import assert_close

import framecast as fc
from framecast.data.danger_patches import (
    DYNAMIC,
    LAND_COVER,
    STATIC,
    USED_DYNAMIC,
    USED_STATIC,
    DangerPatches,
    day_of_year,
    prepare_window,
    released_ranges,
)
from framecast.infer.danger_map import DangerMapper
from framecast.metrics.danger import DangerMetrics
from framecast.models.loan import OFFICIAL, DayEncoding, danger_loss
from framecast.nn.location_norm import LocationAwareNorm


def near(fixture: Fixture) -> dict[str, Any]:
    return {"rtol": 0.0, "atol": 0.0} | fixture.meta["tolerance"]


def released(fixture: Fixture) -> Any:
    """The released network that the fixture names."""
    found = [root / "loan" / fixture.meta["weights"] for root in roots()]
    path = next(path for path in found if path.exists())
    return fc.import_checkpoint("loan", path)


def inputs(given: dict[str, Tensor]) -> tuple[Tensor, ...]:
    static = torch.cat([given["x_s"], given["x_c"]], dim=1)
    return given["x_d"], static, *([given["x_t"]] if "x_t" in given else [])


def ours(key: str) -> str:
    """Our name of a release tensor."""
    name = OFFICIAL[0].translate(key)
    assert name is not None, f"{key} is not in the table of names"
    return name


def check_checkpoint(fixture: Fixture) -> None:
    model: Any = fc.import_checkpoint("loan", fixture.path)
    report, theirs = model.import_report, fixture.tensors
    assert len(report.matched) + len(report.ignored) == len(theirs)
    assert model.config.time_encoding == fixture.meta["pe"]
    for key, tensor in theirs.items():
        if key not in report.ignored:
            assert torch.equal(
                model.state_dict()[ours(key)], tensor.reshape(model.state_dict()[ours(key)].shape)
            )
    if "PositionalEncoding.pe" in theirs:
        assert_close(DayEncoding(256).table, theirs["PositionalEncoding.pe"], rtol=0, atol=1e-7)


def check_cnn(fixture: Fixture) -> None:
    model, given, expected = released(fixture), fixture.part("in"), fixture.part("out")
    assert model.config.time_encoding == fixture.meta["pe"]
    seen: dict[str, Tensor] = {}
    for name in ("modulate1.gamma", "modulate1.beta", "modulate2", "classify"):
        module = model.get_submodule(name)
        module.register_forward_hook(lambda m, i, out, name=name: seen.__setitem__(name, out[:1]))
    with torch.no_grad():
        log_prob = model(*inputs(given))
    assert_close(log_prob, expected["log_prob"], **near(fixture))
    assert_close(log_prob.exp(), expected["prob"], **near(fixture))
    middle = fixture.part("mid0")
    for key in ("mlp_gamma", "mlp_beta"):
        assert_close(
            seen[ours(f"loan1.{key}.x").removesuffix(".x")], middle[f"loan1.{key}"], rtol=0, atol=5e-5
        )
    assert_close(seen["modulate2"], middle["loan2"], rtol=0, atol=5e-5)
    assert_close(seen["classify"][..., None], middle["lastlayer4"], rtol=0, atol=5e-5)


def check_layer(fixture: Fixture) -> None:
    for case in ("norm", "nonorm"):
        given, expected = fixture.part(f"in.{case}"), fixture.part(f"out.{case}")
        layer = LocationAwareNorm(given["x"].shape[1], given["cond"].shape[1], norm=case == "norm")
        name = {key: ours(f"loan1.{key}").removeprefix("modulate1.") for key in fixture.part(f"state.{case}")}
        layer.load_state_dict({name[key]: t for key, t in fixture.part(f"state.{case}").items()})
        x, condition = given["x"].requires_grad_(), given["cond"].requires_grad_()
        out = layer.eval()(x, condition)
        rounding: dict[str, Any] = near(fixture) | {"rtol": 1e-6}  # of numbers up to 8, in their last places
        assert_close(out, expected["eval"], **rounding)
        gradients = fixture.part(f"grad.{case}")
        trained = layer.train()(x, condition)
        assert_close(trained, expected["train"], **rounding)
        for key, value in fixture.part(f"after.{case}").items():
            assert_close(layer.state_dict()[ours(f"loan1.{key}").removeprefix("modulate1.")], value)
        scalar = (trained * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum()
        scalar.backward()
        for key, gradient in gradients.items():
            own = {"x": x, "cond": condition}.get(key)
            own = dict(layer.named_parameters())[name[key]] if own is None else own
            assert_close(own.grad, gradient, rtol=1e-5, atol=1e-6 * float(gradient.abs().max()))


def check_train_step(fixture: Fixture) -> None:
    model, given = released(fixture).train(), fixture.part("in")
    model.drop.p = 0.0
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-5, weight_decay=0.02, eps=1e-4)
    log_prob = model(*inputs(given))
    loss = danger_loss(log_prob, given["target"])
    loss.backward()
    tolerance: dict[str, Any] = {"atol": 1e-6} | fixture.meta["tolerance"]
    assert_close(log_prob, fixture.part("out")["log_prob_train_mode"], rtol=0, atol=1e-5)
    assert_close(loss, fixture.part("out")["loss"], **tolerance)
    parameters = dict(model.named_parameters())
    assert len(parameters) == len(fixture.meta["grad_norms"])
    # A bias that the norm after it takes out has no gradient but rounding (4e-13 in float64, 1e-4 here).
    rounding = {key for key, norm in fixture.meta["grad_norms"].items() if norm < 2e-4}
    assert all(key.endswith(".bias") for key in rounding)
    for key, norm in fixture.meta["grad_norms"].items():
        own = float(parameters[ours(key)].grad.norm())
        assert own < 2e-4 if key in rounding else own == pytest.approx(norm, rel=1e-4), key
    for key, gradient in fixture.part("grad").items():
        own = parameters[ours(key)].grad.reshape(gradient.shape)
        if key not in rounding:
            assert_close(own, gradient, rtol=0, atol=1e-4 * float(gradient.abs().max()))
    optimiser.step()
    state = model.state_dict()
    for key, value in fixture.part("after").items():
        step = {"atol": 5e-6} if key in rounding else {}  # Adam makes steps of rounding, too
        assert_close(state[ours(key)].reshape(value.shape), value, **tolerance | step)


def check_loader(fixture: Fixture, folder: Path) -> None:
    about, given, expected = fixture.meta, fixture.part("in"), fixture.part("out")
    order = {"dynamic": DYNAMIC, "static": STATIC, "clc": LAND_COVER}
    assert {key: tuple(names) for key, names in about["raw_feature_order"].items()} == order
    used = {"dynamic": USED_DYNAMIC, "static": USED_STATIC}
    assert {key: tuple(names) for key, names in about["used"].items()} == used
    assert {name: day_of_year(name[:8]) for name in about["day_of_year"]} == about["day_of_year"]

    raw = [given[f"raw_{part}"].numpy() for part in ("dynamic", "static", "clc_vec")]
    for place, names in about["files_on_disk"].items():
        (folder / place).mkdir()
        for name in names:
            for part, array in zip(("dynamic", "static", "clc_vec"), raw, strict=True):
                np.save(folder / place / f"{name}_{part}.npy", array)

    for case, samples in about["lists"].items():
        subset, *rest = case.split("_")  # train_ratio2_seed3, val_all, test_after_2019
        seed = int(rest[-1].removeprefix("seed")) if subset == "train" else 0
        ratio = int(rest[0].removeprefix("ratio")) if subset == "train" else None
        data = DangerPatches(folder, subset, val_year=about["val_year"], negatives=ratio, seed=seed)
        assert [[s.name, s.burnt] for s in data.samples] == samples
    for data in (DangerPatches(folder, "train"), DangerPatches(folder, "train", num_days=5)):
        (sample,) = (s for s in (data[i] for i in range(len(data))) if s["sample"] == about["sample"])
        assert (sample["day"], sample["label"]) == (int(expected["day_of_year"]), int(expected["label"]))
        static = torch.cat([expected["static"], expected["clc"]]).float()
        assert_close(torch.from_numpy(sample["static"]), static, **near(fixture))
        dynamic = torch.from_numpy(sample["dynamic"])
        if data.num_days == 5:
            assert_close(dynamic[0], expected["dynamic_lag5_feature0"].float(), **near(fixture))
        else:
            assert_close(dynamic, expected["dynamic"].float(), **near(fixture))
    ranges = released_ranges(USED_DYNAMIC), released_ranges(USED_STATIC)
    with pytest.raises(ValueError, match="expected at least 11 days"):
        prepare_window(*raw, dynamic_ranges=ranges[0], static_ranges=ranges[1], num_days=11)


def check_metrics(fixture: Fixture) -> None:
    given, expected = fixture.part("in"), fixture.meta["metrics"]
    halves, whole = [DangerMetrics(), DangerMetrics()], DangerMetrics()
    for metrics, part in ((halves[0], slice(0, 256)), (halves[1], slice(256, None)), (whole, slice(None))):
        metrics.update(given["prob"][part, 1], given["target"][part])
    scores = whole.compute()
    assert halves[0].merge(halves[1]).compute() == scores
    kinds = ("background", "fire")
    theirs = {
        "auroc": expected["AUROC"],
        "auprc": expected["sklearn_AUPRC_not_official"],
        "oa": expected["OA"],
        **{f"mean_{key}": expected[f"mean_{name}"] for key, name in MEANS.items()},
        **{f"{key}_{kinds[k]}": expected[name][k] for key, name in PER_CLASS.items() for k in (0, 1)},
    }
    assert {key: scores[key] for key in theirs} == pytest.approx(theirs, **_absolute(fixture))


MEANS = {"recall": "recall", "f1": "F1", "iou": "IoU"}
PER_CLASS = {"precision": "precision", **MEANS}


def _absolute(fixture: Fixture) -> dict[str, Any]:
    return {"abs": fixture.meta["tolerance"]["atol"], "rel": 0.0}


def check_dense_map(fixture: Fixture) -> None:
    model, given, expected = released(fixture), fixture.part("in"), fixture.part("out")["log_prob"]
    dynamic, static = inputs(given)
    for impl in ("dense", "per-patch"):
        mapper = DangerMapper(model, impl=impl)
        log_prob = mapper.log_prob(dynamic[0], static[0], day=int(given["doy"]))
        margin = model.config.window_cells // 2
        inner = log_prob[:, margin:-margin, margin:-margin]
        assert_close(rearrange(inner, "c h w -> h w c"), expected, **near(fixture))
        assert torch.isnan(log_prob).sum() == log_prob.numel() - inner.numel()


def check_every_tile(fixture: Fixture) -> None:
    """Both released networks on the fixture's region: one pass in tiles of any size, and single windows."""
    dynamic, static = inputs(fixture.part("in"))
    for path in sorted(p for root in roots() for p in (root / "loan").glob("pretrained_*.safetensors")):
        model: Any = fc.import_checkpoint("loan", path)
        day = int(fixture.part("in")["doy"]) if model.config.time_encoding else None
        alone = DangerMapper(model, impl="per-patch").log_prob(dynamic[0], static[0], day=day)
        for tile in (1, 3, 7, 16, 64):
            whole = DangerMapper(model, impl="dense", tile=tile).log_prob(dynamic[0], static[0], day=day)
            assert_close(whole, alone, rtol=0, atol=1e-5, equal_nan=True)


def check_swin3d(fixture: Fixture) -> None:
    model: Any = fc.import_checkpoint("loan_transformers", fixture.part("state"))
    c, config = model.config, fixture.config
    assert [c.embed_width, c.depths, c.heads, c.attention_window] == [
        config["embed_dim"], *(tuple(config[k]) for k in ("depths", "num_heads", "window_size"))
    ]  # fmt: skip
    dynamic, static = inputs(fixture.part("in"))
    with torch.no_grad():
        assert_close(model(dynamic, static), fixture.part("out")["log_prob"], **near(fixture))
        embedded, *stages = model.feature_maps(dynamic, static)
    middle = fixture.part("mid0")
    assert_close(rearrange(embedded[:1], "b t h w c -> b c t h w"), middle["patch_embed"], rtol=0, atol=5e-5)
    for i, features in enumerate(stages):
        assert_close(features[:1], middle[f"layer{i}"], rtol=0, atol=5e-5)


def check_timesformer(fixture: Fixture) -> None:
    config = fixture.config
    model: Any = fc.import_checkpoint(
        "loan_transformers", fixture.part("state"), num_heads=config["num_heads"]
    )
    assert f"{model.config.attention}_space_time" == config["attention_type"]
    assert (model.config.depth, model.config.width) == (config["depths"], config["embed_dim"])
    dynamic, static = inputs(fixture.part("in"))
    with torch.no_grad():
        assert_close(model(dynamic, static), fixture.part("out")["log_prob"], **near(fixture))
        blocks, middle = model.blocks, fixture.part("mid0")
        for i in range(len(blocks)):
            model.blocks = nn.ModuleList(blocks[: i + 1])
            tokens = model.tokens(dynamic[:1], static[:1])
            patches = rearrange(tokens[:, 1:], "b (t n) d -> b (n t) d", t=model.config.num_days)
            tokens = torch.cat([tokens[:, :1], patches], dim=1)
            assert_close(tokens, middle[f"block{i}"], rtol=0, atol=5e-5)


CHECKS = {
    "checkpoint": check_checkpoint,
    "cnn": check_cnn,
    "layer": check_layer,
    "train_step": check_train_step,
    "metrics": check_metrics,
    "dense_map": check_dense_map,
    "swin3d": check_swin3d,
    "timesformer": check_timesformer,
}


@pytest.mark.parametrize("fixture", fixtures("loan"))
def test_loan(fixture: Fixture | None, tmp_path: Path) -> None:
    fixture = require(fixture)
    if fixture.kind == "loader":
        return check_loader(fixture, tmp_path)
    assert fixture.kind in CHECKS, f"unknown kind {fixture.kind}"
    if fixture.kind == "dense_map":
        check_every_tile(fixture)
    return CHECKS[fixture.kind](fixture)
