"""Models, backbones, weights and options with which nothing can be predicted or imported."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
import torch
from bad_input import (
    NOISE,
    Case,
    Cases,
    Command,
    Harm,
    changed_copy,
    check,
    label_free,
    with_model,
    write,
)
from small_world import World

import framecast as fc

CASES = Cases()
bad = CASES.add


def test_bad_input(case: Case, world: World, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(case, world, here, monkeypatch)


# predict ---------------------------------------------------------------------------------------------


@bad("neither model nor unsupervised", r"--model RUN .* or --unsupervised")
def _(w: World, here: Path) -> Command:
    return ["predict", w.video]


@bad("both model and unsupervised", r"--model RUN .* or --unsupervised")
def _(w: World, here: Path) -> Command:
    return ["predict", w.video, "--model", w.run, "--unsupervised"]


@bad("label-free option for a model", r"--min-segment is for label-free")
def _(w: World, here: Path) -> Command:
    return [*with_model(w, w.track), "--min-segment", "2"]


@bad("model that is not there", r"runs/kitchn does not exist")
def _(w: World, here: Path) -> Command:
    Path("runs").mkdir()
    return ["predict", w.track, "--model", "runs/kitchn"]


@bad("hub model without a connection", r"someone/model is not here, and the hub")
def _(w: World, here: Path) -> Command:
    return ["predict", w.track, "--model", "someone/model"]


@bad("run folder without a model", r"run is neither a saved model")
def _(w: World, here: Path) -> Command:
    shutil.copytree(w.run, "run", ignore=shutil.ignore_patterns("model"))
    return ["predict", w.track, "--model", "run"]


@bad("backbone for a model", r"needs a segmentation model.*vit_tiny is none")
def _(w: World, here: Path) -> Command:
    return ["predict", w.track, "--model", w.vit]


@bad("model with truncated weights", r"model\.safetensors cannot be read as safetensors")
def _(w: World, here: Path) -> Command:
    shutil.copytree(w.run / "model", "model")
    write("model/model.safetensors", (w.run / "model" / "model.safetensors").read_bytes()[:-40])
    return ["predict", w.track, "--model", "model"]


@bad("model whose config is no JSON", r"config\.json is not the config of a saved framecast model")
def _(w: World, here: Path) -> Command:
    shutil.copytree(w.run / "model", "model")
    write("model/config.json", "{")
    return ["predict", w.track, "--model", "model"]


@bad("model without a tensor", r"model\.safetensors does not fit ltcontext: 1 missing \(reduce\.bias\)")
def _(w: World, here: Path) -> Command:
    name = changed_copy(w.run / "model", "model", lambda state: state.pop("reduce.bias"))
    return ["predict", w.track, "--model", name]


@bad("other weights for the backbone", r"holds [0-9a-f]{16}; pass the right ones with --weights")
def _(w: World, here: Path) -> Command:
    def nudge(state: dict[str, torch.Tensor]) -> None:
        state["cls_token"] += 1

    other = changed_copy(w.vit, "other", nudge)
    return ["predict", w.video, "--model", w.kitchen_run, "--weights", other]


@bad("weights of a backbone that are missing", r"nothing\.pth does not exist")
def _(w: World, here: Path) -> Command:
    return [*label_free(w, w.video), "--weights", "nothing.pth"]


@bad("weights of noise", r"noise\.pth cannot be read as a checkpoint")
def _(w: World, here: Path) -> Command:
    return [*label_free(w, w.video), "--weights", write("noise.pth", NOISE)]


@bad("weights that want to run code", r"evil\.pth cannot be read as a checkpoint of plain tensors")
def _(w: World, here: Path) -> Command:
    torch.save({"model": Harm()}, "evil.pth")
    return [*label_free(w, w.video), "--weights", "evil.pth"]


@bad("weights of another system", r"other\.pth is not a vit checkpoint")
def _(w: World, here: Path) -> Command:
    torch.save({"stage1.conv_1x1.weight": torch.zeros(3)}, "other.pth")
    return [*label_free(w, w.video), "--weights", "other.pth"]


@bad("weights of another backbone", r"other holds weights of vit_small, not of vit_tiny")
def _(w: World, here: Path) -> Command:
    fc.save(fc.create_model("vit_small", depth=1, num_classes=0), "other")
    return [*label_free(w, w.video), "--weights", "other"]


@bad("backbone whose weights nobody knows", r"no weights are known for vit_large; pass --weights")
def _(w: World, here: Path) -> Command:
    return ["predict", w.video, "--unsupervised", "--backbone", "vit_large"]


@bad("unknown backbone", r"unknown model 'vit_tyni', did you mean 'vit_tiny'\?")
def _(w: World, here: Path) -> Command:
    return [*label_free(w, w.video), "--backbone", "vit_tyni"]


@bad("a model that is no backbone", r"ltcontext is a segmentation model, not a backbone")
def _(w: World, here: Path) -> Command:
    return [*label_free(w, w.video), "--backbone", "ltcontext"]


@bad("size that is none", r"size '32' is not HEIGHTxWIDTH")
def _(w: World, here: Path) -> Command:
    return [*label_free(w, w.video), "--size", "32"]


@bad("size that does not divide into patches", r"patches of 8 .*\(33, 32\).*\(32, 32\)")
def _(w: World, here: Path) -> Command:
    return [*label_free(w, w.video), "--size", "33x32"]


@bad("more segments than steps", r"500 segments asked of a track of")
def _(w: World, here: Path) -> Command:
    return [*label_free(w, w.video), "--segments", "500"]


@bad("no segments", r"'--segments'.*greater than or equal to 1", code=2)
def _(w: World, here: Path) -> Command:
    return [*label_free(w, w.video), "--segments", "0"]


@bad("unknown device", r"unknown device 'gpu'")
def _(w: World, here: Path) -> Command:
    return [*with_model(w, w.track), "--device", "gpu"]


@bad("device that cannot compute", r"'meta'")
def _(w: World, here: Path) -> Command:
    return [*with_model(w, w.track), "--device", "meta"]


@bad("GPU that is not there", r"device 'cuda:99' was asked for")
def _(w: World, here: Path) -> Command:
    return [*with_model(w, w.track), "--device", "cuda:99"]


@bad("results into a file", r"out is a file")
def _(w: World, here: Path) -> Command:
    write("out", "precious")
    return with_model(w, w.track)


@bad("results below a file", r"out is a file")
def _(w: World, here: Path) -> Command:
    write("out", "precious")
    return ["predict", w.track, "--model", w.run, "--out", "out/found"]


@bad("results onto a full disk", r"cannot write .*out.* \(No space left on device\)", full_disk=True)
def _(w: World, here: Path) -> Command:
    return with_model(w, w.track)


# import-weights --------------------------------------------------------------------------------------


def tiny_official() -> dict[str, torch.Tensor]:
    """A ViT under the names that DeiT and timm use, which are ours."""
    return dict(fc.create_model("vit_tiny", width=24, depth=1, num_heads=3, image_size=32).state_dict())


def import_vit(file: str, *options: object) -> Command:
    return ["import-weights", "vit", file, "--out", "out", "--set", "num_heads=3", *options]


@bad("unknown system", r"no official checkpoints are known for 'ltcontxt', did you mean 'ltcontext'\?")
def _(w: World, here: Path) -> Command:
    return ["import-weights", "ltcontxt", "x.pth", "--out", "out"]


@bad("checkpoint that is not there", r"nothing\.pth does not exist")
def _(w: World, here: Path) -> Command:
    return import_vit("nothing.pth")


@bad("checkpoint that is a folder", r"folder is a folder")
def _(w: World, here: Path) -> Command:
    write("folder/x")
    return import_vit("folder")


@bad("checkpoint of noise", r"noise\.pth cannot be read")
def _(w: World, here: Path) -> Command:
    return import_vit(write("noise.pth", NOISE))


@bad("safetensors of noise", r"noise\.safetensors cannot be read as safetensors")
def _(w: World, here: Path) -> Command:
    return import_vit(write("noise.safetensors", NOISE))


@bad("ONNX of noise", r"noise\.onnx")
def _(w: World, here: Path) -> Command:
    return import_vit(write("noise.onnx", NOISE))


@bad("checkpoint that wants to run code", r"evil\.pth .* plain tensors")
def _(w: World, here: Path) -> Command:
    return import_vit(write("evil.pth", pickle.dumps(Harm())))


@bad("truncated checkpoint", r"cut\.pth cannot be read")
def _(w: World, here: Path) -> Command:
    torch.save(tiny_official(), "cut.pth")
    return import_vit(write("cut.pth", Path("cut.pth").read_bytes()[:-500]))


@bad("checkpoint without a tensor", r"x\.pth does not fit .* 1 missing \(blocks\.0\.attn\.qkv\.bias\)")
def _(w: World, here: Path) -> Command:
    state = tiny_official()
    del state["blocks.0.attn.qkv.bias"]
    torch.save(state, "x.pth")
    return import_vit("x.pth", "--set", "qkv_bias=true")


@bad("checkpoint with a tensor too many", r"x\.pth does not fit .* 1 unexpected \(extra\.weight\)")
def _(w: World, here: Path) -> Command:
    torch.save(tiny_official() | {"extra.weight": torch.zeros(2)}, "x.pth")
    return import_vit("x.pth")


@bad("checkpoint of another system", r"x\.pth is not a ltcontext checkpoint")
def _(w: World, here: Path) -> Command:
    torch.save(tiny_official(), "x.pth")
    return ["import-weights", "ltcontext", "x.pth", "--out", "out"]


@bad("setting that the model does not have", r"no setting 'heads'")
def _(w: World, here: Path) -> Command:
    torch.save(tiny_official(), "x.pth")
    return import_vit("x.pth", "--set", "heads=3")


@bad("import setting without a value", r"--set 'num_heads' is not of the form key=value")
def _(w: World, here: Path) -> Command:
    return import_vit("x.pth", "--set", "num_heads")


@bad("import setting that is no YAML", r"--set 'num_heads=\['")
def _(w: World, here: Path) -> Command:
    return import_vit("x.pth", "--set", "num_heads=[")


@bad("path out of a package", r"package:framecast/\.\./\.\./x\.pth points outside the package")
def _(w: World, here: Path) -> Command:
    return import_vit("package:framecast/../../x.pth")


@bad("package that is not installed", r"no installed package 'no_such_package'")
def _(w: World, here: Path) -> Command:
    return import_vit("package:no_such_package/x.pth")


@bad("import into somebody's folder", r"out holds notes\.txt")
def _(w: World, here: Path) -> Command:
    torch.save(tiny_official(), "x.pth")
    write("out/notes.txt", "precious")
    return import_vit("x.pth")


@bad("import onto a full disk", r"cannot write .*out \(No space left on device\)", full_disk=True)
def _(w: World, here: Path) -> Command:
    torch.save(tiny_official(), "x.pth")
    return import_vit("x.pth")


# list, info and the command line itself --------------------------------------------------------------


@bad("pattern that lists nothing", r"no models match 'vit_tyny', did you mean 'vit_tiny'\?")
def _(w: World, here: Path) -> Command:
    return ["list", "vit_tyny"]


@bad("unknown kind", r"'--kind'.*'datasets' is not one of", code=2)
def _(w: World, here: Path) -> Command:
    return ["list", "--kind", "datasets"]


@bad("info on nothing", r"nothing is called 'ltcontxt', did you mean 'ltcontext'\?")
def _(w: World, here: Path) -> Command:
    return ["info", "ltcontxt"]


@bad("info on a folder that holds no model", r"photos is neither a saved model")
def _(w: World, here: Path) -> Command:
    write("photos/cat.jpg", NOISE)
    return ["info", "photos"]


@bad("info on a damaged model", r"config\.json is not the config")
def _(w: World, here: Path) -> Command:
    write("model/config.json", "[]")
    write("model/model.safetensors")
    return ["info", "model"]


@bad("unknown verb", r"'trian'.*Did you mean 'train'\?", code=2)
def _(w: World, here: Path) -> Command:
    return ["trian"]


@bad("missing argument", r"[Mm]issing argument 'recipe'.*framecast train --help", code=2)
def _(w: World, here: Path) -> Command:
    return ["train"]


@bad("unknown option", r"--epohcs", code=2)
def _(w: World, here: Path) -> Command:
    return ["train", "segmentation", "--epohcs", "3"]
