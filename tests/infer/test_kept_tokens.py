"""What was kept is read from the record at its place in the picture, for every model that can be adaptive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import framecast as fc
from framecast.backbones.adaptive_model import SamplingRecord
from framecast.checkpoints import ModelCard
from framecast.data.images import read_image
from framecast.data.recognition_samples import load_views
from framecast.data.synthetic_recognition import write_recognition_lookalike
from framecast.data.transforms import take_views
from framecast.infer.classifier import Classifier
from framecast.infer.kept_tokens import check_adaptive, kept_tokens, see_tokens
from framecast.metrics.view_protocols import get_view_protocol
from framecast.tasks.recognition import classify

SMALL = {"width": 24, "depth": 4, "num_heads": 3, "patch_size": 8, "image_size": 32, "num_classes": 3}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "image": ("vit_tiny", {}),
    "mean of patches": ("vit_tiny", {"pooling": "mean"}),
    "distilled": ("deit_tiny_distilled", {}),
    "joint": ("vit_tiny_joint", {"num_frames": 4}),
    "joint, tubelets": ("vit_tiny_joint", {"num_frames": 4, "tubelet": 2}),
    "timesformer": ("timesformer_base", {"num_frames": 4}),
    "timesformer, space": ("timesformer_base", {"num_frames": 4, "attention": "space_only"}),
    "xvit": ("xvit_base", {"num_frames": 4, "temporal_heads": 3, "head_width": 8, "time_steps": 2}),
    "stablemamba": ("stablemamba_tiny", {"pattern": "1:1"}),
    "stablemamba, clips": ("stablemamba_tiny", {"pattern": "1:1", "num_frames": 4}),
    "stablemamba, overlap": ("stablemamba_tiny", {"pattern": "1:1", "patch_stride": 4}),
}
every_model = pytest.mark.parametrize("name", MODELS)


def adaptive(name: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    model, config = MODELS[name]
    return fc.adaptive(fc.create_model(model, **SMALL | config).eval(), **settings)


def views_of(name: str, count: int = 1) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 3, *([4] if "num_frames" in MODELS[name][1] else []), 32, 32)


def patches(model: Any, view: Tensor) -> Tensor:
    """(patches, D) as the model embeds one view; an image (3, H, W) or a clip (3, T, H, W)."""
    x = model.host.embed(view[None])
    prefix = getattr(model, "num_prefix_tokens", 1)
    return x[:, prefix:].flatten(0, 1)


@every_model
def test_a_patch_stands_where_its_pixels_are(name: str) -> None:
    """The token that changes with a box of pixels is the one whose id is drawn over that box."""
    model, views = adaptive(name), views_of(name)
    with torch.inference_mode(), model.record() as record:
        classify(model, views)
    shape = kept_tokens(model, record, views).left.shape[1:]
    stride, size = model.host.stride, SMALL["patch_size"]
    generator = torch.Generator().manual_seed(2)
    for _ in range(5):
        place, row, column = (int(torch.randint(n, (), generator=generator)) for n in shape)
        changed = views.clone()
        middle = (slice(row * stride + size // 2, None), slice(column * stride + size // 2, None))
        box = [slice(s.start, s.start + 1) for s in middle]
        if views.ndim == 5:
            each = views.shape[2] // shape[0]
            changed[:, :, place * each : (place + 1) * each, box[0], box[1]] += 5
        else:
            changed[..., box[0], box[1]] += 5
        with torch.inference_mode():
            moved = (patches(model, changed[0]) - patches(model, views[0])).norm(dim=-1)
        ids = moved.nonzero().flatten()
        one = [ids if i == 0 else ids[:0] for i in range(len(model.config.blocks))]
        made = SamplingRecord(
            counts=record.counts, ids=[[stage] for stage in one], macs=record.macs, full_macs=1
        )
        drawn = kept_tokens(model, made, views).left[0]
        assert drawn[place, row, column]
        assert drawn.sum() == len(ids)
        overlapping = name == "stablemamba, overlap"
        assert len(ids) == 1 or overlapping


@every_model
def test_numbers_are_those_of_the_record(name: str) -> None:
    model, views = adaptive(name, budget=0.6), views_of(name, 3)
    with torch.inference_mode(), model.record() as record:
        classify(model, views)
    kepts = [kept_tokens(model, record, views, i) for i in range(3)]
    for i, kept in enumerate(kepts):
        prefix = record.counts[i] - torch.tensor([len(stage[i]) for stage in record.ids])
        assert list(kept.counts) == (record.counts[i] - prefix)[: len(kept.blocks)].tolist()
        assert kept.macs_share == pytest.approx(int(record.macs[i]) / record.full_macs)
        assert (kept.left[1:] <= kept.left[:-1]).all()  # nothing comes back
        assert kept.view == f"view {i + 1} of 3"
        # a last block that hands on the class token alone is no stage
        last_reads_all = name == "mean of patches"
        assert (model.depth - 1 in kept.blocks) == last_reads_all


def test_an_image_model_looks_at_every_frame_of_a_clip_by_itself() -> None:
    model, clips = adaptive("image"), torch.randn(2, 3, 5, 32, 32)
    with torch.inference_mode(), model.record() as record:
        classify(model, clips)
    kept = kept_tokens(model, record, clips, 1)
    assert kept.left.shape[1:] == (5, 4, 4)
    for place in range(5):
        with torch.inference_mode(), model.record() as alone:
            model(clips[1:, :, place])
        frame = kept_tokens(model, alone, clips[1:, :, place])
        assert (frame.left[:, 0] == kept.left[:, place]).all()


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize("protocol", ["image/center-0.875", "image/resize"])
def test_the_picture_is_what_the_model_saw(tmp_path: Path, channels: Any, protocol: str) -> None:
    write_recognition_lookalike("folders", tmp_path / "data", kind="image", size=40)
    path = next((tmp_path / "data").rglob("*.png"))
    model = adaptive("image")
    model.card = ModelCard(task="recognition", classes=("a", "b", "c"), protocol=protocol, channels=channels)
    labels, kept = Classifier(model).with_tokens(path)
    rule = get_view_protocol(protocol)
    (crop,) = take_views(read_image(path), rule, 32)
    assert (torch.from_numpy(kept.frames[0]).permute(2, 0, 1) == crop).all()
    assert (labels.probabilities == Classifier(model)(path).probabilities).all()


def test_of_several_views_the_one_in_the_middle_is_told(tmp_path: Path) -> None:
    write_recognition_lookalike("folders", tmp_path / "data", kind="video", size=40)
    path = next((tmp_path / "data").rglob("*.mp4"))
    model = adaptive("joint")
    model.card = ModelCard(task="recognition", classes=("a", "b", "c"), protocol="kinetics/3x4", frames=4)
    _, kept = Classifier(model).with_tokens(path)
    assert kept.view == "view 8 of 12"
    config = model.config
    views = load_views(path, "kinetics/3x4", image_size=32, mean=config.mean, std=config.std, num_frames=4)
    with torch.inference_mode(), model.record() as record:
        model(views[7:8])
    assert (kept_tokens(model, record, views[7:8]).left == kept.left).all()


def test_models_that_keep_all_tokens_are_told_how_to_become_adaptive() -> None:
    with pytest.raises(ValueError, match=r"vit_tiny keeps all .*fc\.adaptive\(fc\.load\('runs/a'\)"):
        check_adaptive(adaptive("image").host, "runs/a")
    mamba = fc.create_model("videomamba_tiny", width=24, depth=1, patch_size=8, image_size=32)
    with pytest.raises(ValueError, match="tokens of VideoMamba cannot be sampled; pass a ViT"):
        check_adaptive(mamba)


def test_a_model_without_a_stage_to_show_is_refused() -> None:
    model, views = adaptive("image", blocks=[3]), views_of("image")
    with torch.inference_mode(), model.record() as record:
        model(views)
    with pytest.raises(ValueError, match="only the last block samples"):
        kept_tokens(model, record, views)


def test_a_batch_is_seen_sample_by_sample() -> None:
    model, images = adaptive("image", budget=0.6), views_of("image", 3)
    together = see_tokens(model, images)
    assert [kept.view for kept in together] == [""] * 3
    for i, kept in enumerate(together):
        (alone,) = see_tokens(model, images[i : i + 1])
        assert (alone.left == kept.left).all()
        assert (alone.frames == kept.frames).all()


def test_a_model_of_timm_is_seen_too() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    host = timm.create_model("vit_tiny_patch16_224", img_size=(32, 64), depth=3, num_classes=2).eval()
    pixels = torch.rand(1, 3, 32, 64).mul(255).round()
    mean, std = (torch.tensor(host.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    (kept,) = see_tokens(fc.adaptive(host, blocks=[1]), (pixels / 255 - mean) / std)
    assert kept.left.shape == (1, 1, 2, 4)
    assert (torch.from_numpy(kept.frames[0]).permute(2, 0, 1) == pixels[0]).all()
