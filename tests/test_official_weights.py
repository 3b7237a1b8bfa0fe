"""Foreign weights: every tensor is accounted for, and nothing in a file is ever executed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

import framecast as fc
from framecast.checkpoints import card_of, package_file
from framecast.models.ltcontext import KEYS
from framecast.weight_files import read_weights

TINY = {"num_classes": 5, "feature_dim": 6, "num_stages": 2, "num_layers": 2, "width": 8, "window": 4}


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return fc.create_model("ltcontext", **TINY)


def released(model: nn.Module) -> dict[str, Tensor]:
    """The state dict under the names and shapes of the LTContext release."""
    theirs = {
        "reduce": "dim_reduction",
        "proj_in": "input_proj",
        "proj_out": "out_proj",
        "blocks": "layers",
        "conv": "dilated_conv.dilated_conv",
        "window_attn": "windowed_attn.attn",
        "long_attn": "ltc_attn.attn",
        "v": "proj_v",
    }
    out: dict[str, Tensor] = {}
    for key, tensor in model.state_dict().items():
        parts = key.split(".")
        in_attention = any(part.endswith("_attn") for part in parts)
        names = [
            "proj.1" if p == "proj" and in_attention else "out_linear" if p == "proj" else p for p in parts
        ]
        name = ".".join(theirs.get(part, part) for part in names)
        if tensor.ndim == 2:
            tensor = tensor[..., None]  # 1x1 convolutions
        if ".qk." in name:
            for part, half in zip("qk", tensor.chunk(2), strict=True):
                out[name.replace(".qk.", f".proj_{part}.")] = half.clone()
        else:
            out[name] = tensor
    return out


def release_settings(**changes: Any) -> str:
    model = {"WINDOWED_ATTN_W": 4, "LONG_TERM_ATTN_G": 8, "NUM_ATTN_HEADS": 1, "USE_INSTANCE_NORM": True}
    return yaml.safe_dump({"MODEL": model | changes, "TRAIN": {"SEED": 1}})


def test_import_gives_the_model_back(model: nn.Module) -> None:
    again = fc.import_checkpoint("ltcontext", released(model), window=4)
    x = torch.randn(1, 6, 30)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), again(x))
    report = again.import_report
    assert sorted(report.matched) == sorted(model.state_dict())
    assert report.complete
    assert report.ignored == {}
    assert "non-commercial" in str(report)
    assert again.registered_name == "ltcontext"


def test_every_key_of_the_table_is_used(model: nn.Module) -> None:
    import re

    from framecast.models.ltcontext import OFFICIAL

    keys = OFFICIAL[0].prepare(released(model))
    for pattern in KEYS:
        assert any(re.fullmatch(pattern, key) for key in keys), pattern


class TestContainers:
    """The forms in which releases store their tensors."""

    def write(self, path: Path, content: Any) -> Path:
        torch.save(content, path)
        return path

    def test_settings_stored_as_yaml_beside_the_tensors(self, model: nn.Module, tmp_path: Path) -> None:
        state = {f"module.{key}": tensor for key, tensor in released(model).items()}
        content = {"epoch": 150, "model_state": state, "cfg": release_settings()}
        again = fc.import_checkpoint("ltcontext", self.write(tmp_path / "official.pyth", content))
        assert again.config == model.config
        assert len(again.import_report.sha256) == 64
        assert "official.pyth" in card_of(again).source

    @pytest.mark.parametrize(("flag", "norm"), [(True, "none"), (False, "instance")])
    def test_the_inverted_flag_of_the_release(
        self, model: nn.Module, tmp_path: Path, flag: bool, norm: str
    ) -> None:
        content = {"model_state": released(model), "cfg": release_settings(USE_INSTANCE_NORM=flag)}
        again = fc.import_checkpoint("ltcontext", self.write(tmp_path / "official.pyth", content))
        assert again.config.norm == norm

    @pytest.mark.parametrize("container", ["model", "state_dict", "model_state", None])
    @pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
    def test_containers_and_prefixes(
        self, model: nn.Module, tmp_path: Path, container: str | None, prefix: str
    ) -> None:
        state = {prefix + key: tensor for key, tensor in released(model).items()}
        path = self.write(tmp_path / "x.pth", {container: state} if container else state)
        assert fc.import_checkpoint("ltcontext", path, window=4).config == model.config

    def test_safetensors(self, model: nn.Module, tmp_path: Path) -> None:
        save_file({k: t.contiguous() for k, t in released(model).items()}, tmp_path / "x.safetensors")
        again = fc.import_checkpoint("ltcontext", tmp_path / "x.safetensors", window=4)
        assert again.config == model.config

    def test_settings_that_are_no_yaml(self, model: nn.Module, tmp_path: Path) -> None:
        path = self.write(tmp_path / "x.pth", {"model_state": released(model), "cfg": "a: [b: }"})
        with pytest.raises(ValueError, match=r"x\.pth: its settings are not YAML"):
            fc.import_checkpoint("ltcontext", path)

    @pytest.mark.parametrize("content", [{}, {"a": 3}, [1, 2], torch.zeros(3), {"model": {"w": "text"}}])
    def test_no_state_dict(self, tmp_path: Path, content: Any) -> None:
        path = self.write(tmp_path / "x.pth", content)
        with pytest.raises(ValueError, match=r"x\.pth holds no state dict"):
            fc.import_checkpoint("ltcontext", path)


class TestMisfits:
    def test_all_kinds_are_named_in_one_line(self, model: nn.Module) -> None:
        state = released(model)
        del state["stage1.layers.0.out_linear.weight"]
        state["stages.0.out_proj.bias"] = torch.zeros(9)
        state["optimizer.step"] = torch.zeros(1)
        with pytest.raises(ValueError, match=r"1 missing \(stage1.blocks.0.proj.weight\)") as caught:
            fc.import_checkpoint("ltcontext", state, window=4)
        text = str(caught.value)
        assert "1 unexpected (optimizer.step)" in text
        assert "stages.0.proj_out.bias: (9,) in the file, (5,) in the model" in text
        assert "\n" not in text

    def test_a_wrong_setting_is_named(self, model: nn.Module) -> None:
        with pytest.raises(ValueError, match="window must be even"):
            fc.import_checkpoint("ltcontext", released(model), window=3)
        with pytest.raises(ValueError, match="no setting 'windw', did you mean 'window'"):
            fc.import_checkpoint("ltcontext", released(model), windw=4)

    def test_two_tensors_for_one_place(self, model: nn.Module) -> None:
        state = released(model)
        state["reduce.weight"] = state["dim_reduction.weight"]
        with pytest.raises(ValueError, match=r"1 unexpected \(reduce.weight\)"):
            fc.import_checkpoint("ltcontext", state, window=4)

    def test_another_systems_file(self, model: nn.Module) -> None:
        with pytest.raises(ValueError, match="is not a mstcn checkpoint"):
            fc.import_checkpoint("mstcn", released(model))


# Files that want to do harm ---------------------------------------------------------------------------


class Malicious:
    """Unpickling it would create a file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.victim,)


@pytest.mark.parametrize("how", ["torch", "pickle", "beside tensors"])
def test_pickles_with_code_are_refused_and_not_executed(tmp_path: Path, how: str) -> None:
    victim, path = tmp_path / "harm", tmp_path / "official.pth"
    bomb = Malicious(victim)
    if how == "pickle":
        path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save({"model": {"w": torch.zeros(2)}, "x": bomb} if how == "beside tensors" else bomb, path)
    with pytest.raises(ValueError, match=r"official\.pth cannot be read as a checkpoint of plain tensors"):
        fc.import_checkpoint("ltcontext", path)
    assert not victim.exists()
    pickle.loads(pickle.dumps(bomb))  # the test is worth something: reading it carelessly does harm
    assert victim.exists()


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors", "x.onnx", "x.bin"])
@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 64, bytes(range(256)) * 9], ids=["empty", "zeros", "noise"]
)
def test_files_of_anything_else(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        fc.import_checkpoint("vit", tmp_path / name)


def test_truncated_pickle(model: nn.Module, tmp_path: Path) -> None:
    torch.save(released(model), tmp_path / "x.pth")
    whole = (tmp_path / "x.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"x\.pth cannot be read"):
        fc.import_checkpoint("ltcontext", tmp_path / "x.pth")


class TestPackageAddresses:
    @pytest.fixture(autouse=True)
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        home = tmp_path / "site" / "weightpack"
        (home / "inner").mkdir(parents=True)
        (home / "__init__.py").write_text("raise RuntimeError('the package was imported')")
        save_file({"a": torch.zeros(2)}, home / "inner" / "w.safetensors")
        save_file({"secret": torch.zeros(2)}, tmp_path / "secret.safetensors")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        return home

    def test_a_file_of_a_package_is_found_without_importing_it(self, package: Path) -> None:
        address = "package:weightpack/inner/w.safetensors"
        assert package_file(address) == package.resolve() / "inner" / "w.safetensors"
        assert list(read_weights(address).tensors) == ["a"]

    @pytest.mark.parametrize("inner", ["../../secret.safetensors", "/etc/passwd", "inner/../../x"])
    def test_paths_stay_inside_the_package(self, inner: str) -> None:
        with pytest.raises(ValueError, match="points outside the package"):
            read_weights(f"package:weightpack/{inner}")

    def test_links_out_of_the_package_are_not_followed(self, package: Path, tmp_path: Path) -> None:
        (package / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
        with pytest.raises(ValueError, match="points outside the package"):
            read_weights("package:weightpack/link.safetensors")

    @pytest.mark.parametrize("name", ["no_such_package", "os.path", "..", ""])
    def test_packages_that_are_not_there(self, name: str) -> None:
        with pytest.raises(FileNotFoundError, match="no installed package"):
            read_weights(f"package:{name}/w.safetensors")

    def test_files_that_are_not_there(self) -> None:
        with pytest.raises(FileNotFoundError, match=r"weightpack/nothing\.pth does not exist"):
            read_weights("package:weightpack/nothing.pth")
        with pytest.raises(ValueError, match="is a folder"):
            read_weights("package:weightpack/inner")
