"""Saved models come back as they were or not at all, and what was there before stays."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import framecast as fc
from framecast import checkpoints
from framecast.checkpoints import ModelCard, card_of, read_about
from framecast.importing import import_checkpoint
from framecast.weight_files import is_hub_id

TINY = {"num_classes": 5, "feature_dim": 6, "num_stages": 2, "num_layers": 2, "width": 8, "window": 4}


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return fc.create_model("ltcontext", **TINY)


@pytest.fixture
def saved(model: nn.Module, tmp_path: Path) -> Path:
    return fc.save(model, tmp_path / "saved", ModelCard("segmentation", ("a", "b", "c", "d", "e")))


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


class TestSave:
    def test_folder_holds_weights_config_and_readme_and_nothing_beside_it(self, saved: Path) -> None:
        assert sorted(p.name for p in saved.iterdir()) == ["README.md", "config.json", "model.safetensors"]
        assert [p.name for p in saved.parent.iterdir()] == ["saved"]
        assert "ltcontext" in (saved / "README.md").read_text()

    def test_an_older_saved_model_is_replaced(self, saved: Path) -> None:
        other = fc.create_model("mstcn", num_classes=2, feature_dim=3, num_stages=1, num_layers=1)
        fc.save(other, saved)
        assert fc.load(saved).registered_name == "mstcn"
        assert [p.name for p in saved.parent.iterdir()] == ["saved"]

    @pytest.mark.parametrize("name", ["notes.txt", "config.json"])
    def test_a_folder_of_somebody_else_is_left_alone(
        self, model: nn.Module, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / name).write_text('{"architectures": ["BertModel"]}')
        before = files_below(tmp_path)
        with pytest.raises(FileExistsError, match="choose an empty folder"):
            fc.save(model, tmp_path / "precious")
        assert files_below(tmp_path) == before

    def test_a_saved_model_with_something_else_in_it_is_left_alone(
        self, model: nn.Module, saved: Path
    ) -> None:
        (saved / "notes.txt").write_text("a week of work")
        with pytest.raises(FileExistsError, match=r"holds notes\.txt"):
            fc.save(model, saved)
        assert (saved / "notes.txt").exists()

    def test_a_file_is_no_folder(self, model: nn.Module, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(FileExistsError, match="is a file"):
            fc.save(model, tmp_path / "file")

    @pytest.mark.parametrize(
        "error",
        [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("IoError: StorageFull")],
        ids=["operating system", "safetensors"],
    )
    @pytest.mark.parametrize("when", ["before", "after"], ids=["nothing written", "half written"])
    def test_full_disk_leaves_the_old_model(
        self, saved: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, when: str
    ) -> None:
        before = files_below(saved.parent)

        def full(state: dict[str, Tensor], path: Path, **_: Any) -> None:
            if when == "after":
                Path(path).write_bytes(b"half")
            raise error

        monkeypatch.setattr(checkpoints, "save_file", full)
        other = fc.create_model("mstcn", num_classes=2, feature_dim=3, num_stages=1, num_layers=1)
        with pytest.raises(OSError, match=f"cannot write {saved}.*(No space|StorageFull)"):
            fc.save(other, saved)
        with pytest.raises(OSError, match="cannot write"):
            fc.save(other, saved.parent / "new")
        assert files_below(saved.parent) == before
        assert fc.load(saved).registered_name == "ltcontext"

    def test_a_failing_rename_puts_the_old_model_back(
        self, model: nn.Module, saved: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before, rename = files_below(saved.parent), checkpoints.os.replace

        def fails_for_the_new_one(source: Path, target: Path) -> None:
            if Path(source).name == "new":
                raise OSError(errno.EIO, "Input/output error")
            rename(source, target)

        monkeypatch.setattr(checkpoints.os, "replace", fails_for_the_new_one)
        with pytest.raises(OSError, match="Input/output error"):
            fc.save(model, saved)
        assert files_below(saved.parent) == before

    def test_only_registered_models_can_be_saved(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="Linear was not made by create_model"):
            fc.save(nn.Linear(2, 2), tmp_path / "x")


class TestLoad:
    def test_the_model_of_a_run_folder(self, model: nn.Module, tmp_path: Path) -> None:
        fc.save(model, tmp_path / "run" / "model")
        assert fc.load(tmp_path / "run").config == model.config

    def test_truncated_weights(self, saved: Path) -> None:
        path = saved / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-7])
        with pytest.raises(ValueError, match=r"model\.safetensors cannot be read as safetensors"):
            fc.load(saved)

    @pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"{}" * 40], ids=["empty", "pickle", "text"])
    def test_weights_that_are_something_else(self, saved: Path, content: bytes) -> None:
        (saved / "model.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.safetensors cannot be read as safetensors"):
            fc.load(saved)

    def test_weights_of_another_model(self, saved: Path) -> None:
        state = load_file(saved / "model.safetensors")
        state["reduce.bias"] = torch.zeros(3)
        del state["reduce.weight"]
        save_file(state, saved / "model.safetensors")
        with pytest.raises(
            ValueError, match=r"1 missing \(reduce.weight\), 1 mismatched \(reduce.bias: \(3,\)"
        ):
            fc.load(saved)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"model": "ltcontxt"}, "unknown model 'ltcontxt', did you mean 'ltcontext'"),
            ({"model": None}, "not the config of a saved framecast model"),
            ({"config": []}, "not the config of a saved framecast model"),
            ({"config": {"windw": 3}}, "no setting 'windw', did you mean 'window'"),
            ({"config": {"window": "wide"}}, "window is 'wide'"),
            ({"card": {"classes": 3}}, "not iterable"),
            ({"card": {"features": {"backbone": "x"}}}, "provenance has missing fields"),
        ],
    )
    def test_damaged_config(self, saved: Path, values: dict[str, Any], message: str) -> None:
        changed(saved / "config.json", **values)
        with pytest.raises(ValueError, match=message) as caught:
            fc.load(saved)
        assert str(saved / "config.json") in str(caught.value)

    @pytest.mark.parametrize("content", ["", "{", "[1, 2]", "[" * 100_000])
    def test_config_that_is_no_json_object(self, saved: Path, content: str) -> None:
        (saved / "config.json").write_text(content)
        with pytest.raises(ValueError, match=r"config\.json is not the config"):
            fc.load(saved)

    def test_config_that_is_no_text(self, saved: Path) -> None:
        (saved / "config.json").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ValueError, match=r"config\.json is not the config"):
            fc.load(saved)

    def test_incomplete_copy(self, saved: Path) -> None:
        (saved / "model.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match=r"config.json but no model\.safetensors"):
            fc.load(saved)

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="pass a run folder"):
            fc.load(tmp_path / "nothing")
        with pytest.raises(FileNotFoundError, match="neither a saved model"):
            fc.load(tmp_path)

    def test_a_card_of_a_later_version_is_read(self, saved: Path) -> None:
        about = read_about(saved)
        changed(saved / "config.json", card=about["card"] | {"colour": "blue"})
        assert card_of(fc.load(saved)).classes == ("a", "b", "c", "d", "e")


class TestHub:
    def test_offline_is_said_clearly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        for read in (fc.load, lambda name: import_checkpoint("vit", name)):
            with pytest.raises(
                FileNotFoundError, match=r"nobody/no-model is not here, and the hub .*connection"
            ):
                read("nobody/no-model")

    def test_a_model_of_the_hub(self, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def download(name: str, **_: Any) -> str:
            asked.append(name)
            return str(saved)

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        assert fc.load("someone/kitchen").registered_name == "ltcontext"
        assert asked == ["someone/kitchen"]

    def test_a_mistyped_local_path_is_not_sent_to_the_hub(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "runs").mkdir()
        monkeypatch.chdir(tmp_path)
        assert is_hub_id("facebook/dinov2-base")
        for text in ("runs/kitchn", "a/weights.pth", "./a", "/a/b", "a/b/c", "name", "../x"):
            assert not is_hub_id(text)
        with pytest.raises(FileNotFoundError, match="runs/kitchn does not exist"):
            fc.load("runs/kitchn")
