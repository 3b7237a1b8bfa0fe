"""Writes the pages that are tables of what is registered and measured.

python docs/tables.py           write docs/models.md, recipes.md, protocols.md, results.md, the README's block
python docs/tables.py --check   fail if one of them is out of date
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from framecast.metrics import described_protocols
from framecast.registry import entries

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "results"
README = DOCS.parent / "README.md"
HEAD_OF_MODELS = """# Models

`framecast list`, `framecast info NAME`.

| name | what it is | parameters | source |
|---|---|---|---|""".splitlines()
HEAD_OF_COUNTS = """## Parameters beside the published ones

Exact numbers are those of the releases' models, round ones stand in papers and on their pages. The tests
build and count every model of this page.

| name | ours | published | difference | |
|---|---|---|---|---|""".splitlines()
HEAD_OF_PROTOCOLS = """# Evaluation protocols

`framecast list --kind protocols`.

| name | what counts |
|---|---|""".splitlines()
HEADLINES = {
    "fir_actions": ("From raw video: 16 ceiling-camera recordings, 5 folds, 3 seeds, mean over videos:", ""),
    "tas_scores": (
        "50 Salads (mid), splits 1 to 4, from per-frame SVM scores, beside published models:",
        "salads50_mid/",
    ),
}
UNCHECKED = "no code, and no count that could be checked; ours follow from one Transformer layer after seven"
# Parameters as published: exact counts of the releases' models, or what the papers say, in millions.
PUBLISHED: dict[str, tuple[int | str, str]] = {
    "videomamba_tiny": (7_148_008, ""),
    "videomamba_small": (25_796_584, ""),
    "videomamba_middle": (74_217_448, ""),
    "videomamba_base": (97_598_440, ""),
    "stablemamba_tiny": ("none", UNCHECKED),
    "stablemamba_small": ("none", UNCHECKED),
    "stablemamba_middle": ("none", UNCHECKED),
    "stablemamba_base": ("none", UNCHECKED),
    "vit_tiny": (5_717_416, ""),
    "vit_small": (22_050_664, ""),
    "vit_small_patch32": (22_878_952, ""),
    "vit_base": (86_567_656, ""),
    "vit_base_patch32": (88_224_232, ""),
    "vit_large": (304_326_632, ""),
    "vit_large_patch32": (306_535_400, ""),
    "vit_huge": (632_045_800, ""),
    "deit_tiny_distilled": ("6 M", ""),
    "deit_small_distilled": ("22 M", ""),
    "deit_base_distilled": ("87 M", ""),
    "vit_small_dinov2": ("21 M", "with positions for 518 pixels, without a head"),
    "vit_base_dinov2": ("86 M", "with positions for 518 pixels, without a head"),
    "timesformer_base": (121_566_352, "400 classes"),
    "timesformer_hr": (121_566_352, "its larger tables of positions (448 pixels) and times (16 frames)"),
    "timesformer_large": (121_566_352, "its larger table of times (96 frames)"),
    "deit_tiny_ats": (5_717_416, "sampling has no parameters"),
    "deit_small_ats": (22_050_664, "sampling has no parameters"),
    "deit_base_ats": (86_567_656, "sampling has no parameters"),
    "ltcontext": (671_968, "on Breakfast"),
    "gtda": (3_905_648, ""),
    "gtda_deterministic": (1_982_448, ""),
    "manta": (1_388_272, "the plain Mamba; the authors' modified one is not public"),
    "anticipation_cnn": ("31.5 M", ""),
}
FAST = (  # file, row, what it is, what it is compared with, script
    (
        "selective_scan_speed/selective_scan.json",
        "B=1, D=768, L=3137, times faster than loop",
        "Mamba's selective scan, 3,137 steps",
        "a loop over time",
        "selective_scan.py",
    ),
    (
        "selective_scan_speed/selective_scan.json",
        "training B=1, D=384, L=1569, times faster than mamba.py",
        "the same with gradients, 1,569 steps",
        "the scan of mamba.py",
        "selective_scan.py",
    ),
    (
        "ltcontext_speed/ltcontext.json",
        "forward T=50000, times faster",
        "LTContext, 50,000 frames",
        "its equations",
        "ltcontext.py",
    ),
    (
        "ats_speed/ats.json",
        "batch 8, times faster than unmodified",
        "DeiT-S with half of the multiply-adds",
        "DeiT-S",
        "ats.py",
    ),
    (
        "anticipation_speed/gtda.json",
        "GTDA, 25 samples x 50 steps, times faster",
        "GTDA, 25 futures, 50 steps",
        "its equations",
        "anticipation.py",
    ),
    (
        "anticipation_speed/manta.json",
        "MANTA, 25 samples x first 4 of 50, times faster",
        "MANTA, 25 futures, 4 of 50 steps",
        "its equations",
        "anticipation.py",
    ),
    (
        "video_panda_speed/video_panda.json",
        "8 frames of 448, times faster than ViT-L/14",
        "Video-Panda's eyes, 8 frames",
        "a ViT-L/14",
        "video_panda.py",
    ),
    (
        "danger_map_speed/danger_map.json",
        "128 x 128 cells, times faster",
        "a map of wildfire danger, 128 x 128 cells",
        "a forward pass per cell",
        "danger_map.py",
    ),
    (
        "focal_tsmp_speed/focal_tsmp.json",
        "map of 397x409, times faster",
        "Focal-TSMP, a map of Europe",
        "its equations",
        "focal_tsmp.py",
    ),
)
START, END = "<!-- measured:start -->", "<!-- measured:end -->"


def models() -> str:
    rows = [
        f"| `{e.name}` | {e.summary} | {e.params:,} | {'[paper](' + e.paper + ')' if e.paper else ''} |"
        for e in entries("model").values()
    ]
    beside = [counts_row(name, entries("model")[name].params or 0) for name in PUBLISHED]
    return "\n".join([*HEAD_OF_MODELS, *rows, "", *HEAD_OF_COUNTS, *beside, ""])


def counts_row(name: str, ours: int) -> str:
    published, note = PUBLISHED[name]
    if isinstance(published, str):
        return f"| `{name}` | {ours:,} | {published} | | {note} |"
    return f"| `{name}` | {ours:,} | {published:,} | {ours - published:,} | {note} |"


def recipes() -> str:
    parts = ["# Recipes", "", "`framecast list --kind recipes`, `framecast info NAME`.", ""]
    for entry in entries("recipe").values():
        lines = [line[4:] if line.startswith("    ") else line for line in entry.doc.splitlines()]
        commands = [f"    {line}" if line.startswith("framecast") else line for line in lines]
        parts += [f"## `{entry.name}`", "", *commands, ""]
    return "\n".join(parts)


def protocols() -> str:
    rows = [f"| `{name}` | {text} |" for name, text in described_protocols().items()]
    return "\n".join([*HEAD_OF_PROTOCOLS, *rows, ""])


def measured() -> str:
    """Tables of every results folder, each with its two sentences and its command."""
    parts = []
    for folder in sorted(p.parent for p in RESULTS.glob("*/README.md")):
        text = (folder / "README.md").read_text(encoding="utf-8").strip()
        for picture in folder.glob("*.png"):
            text = text.replace(f"]({picture.name})", f"](images/{copied(picture)})")
        parts += [text, ""]
    return "\n".join(parts)


def copied(picture: Path) -> str:
    """Name among the pictures of the pages: its folder's, with its own where it is not the plot."""
    return f"{picture.parent.name}{'' if picture.stem == 'plot' else '-' + picture.stem}.png"


def plots() -> dict[Path, bytes]:
    return {DOCS / "images" / copied(p): p.read_bytes() for p in RESULTS.glob("*/*.png")}


def scores(rows: dict, prefix: str) -> list[str]:
    """A table of the mean over videos, for the rows whose name starts with the prefix."""
    lines = ["| model | accuracy | edit | F1@10 | F1@25 | F1@50 |", "|---|---|---|---|---|---|"]
    for name, row in rows.items():
        if name.startswith(prefix):
            figures = [f"{row['mean'][key]:.1f}" for key in ("accuracy", "edit", "f1@10", "f1@25", "f1@50")]
            lines.append(f"| {name.removeprefix(prefix)} | {' | '.join(figures)} |")
    return lines


def readme_block() -> str:
    """The headline figures, read from the result files."""
    lines = ["One CPU thread, medians of one run with both sides in one process:", ""]
    lines += ["| what | beside | times faster | reproduce with |", "|---|---|---|---|"]
    for file, name, what, beside, script in FAST:
        rows = {row["name"]: row for row in json.loads((RESULTS / file).read_text())["rows"]}
        ratio = rows[name]["ratio"]
        lines.append(f"| {what} | {beside} | {ratio:.3g} | `python benchmarks/{script}` |")
    lines.append("")
    for name, (title, prefix) in HEADLINES.items():
        summary = RESULTS / name / "summary.json"
        if summary.is_file():
            lines += [title, "", *scores(json.loads(summary.read_text())["rows"], prefix), ""]
    lines.append("More, with commands and what disappoints: [Measured results](docs/results.md).")
    return "\n".join(lines)


def main() -> int:
    pages: dict[Path, str | bytes] = {
        DOCS / "models.md": models(),
        DOCS / "recipes.md": recipes(),
        DOCS / "protocols.md": protocols(),
        DOCS / "results.md": f"# Measured results\n\n{measured()}",
    }
    text = README.read_text(encoding="utf-8")
    before, after = text.split(START)[0], text.split(END)[1]
    pages[README] = f"{before}{START}\n{readme_block()}\n{END}{after}"
    pages |= plots()
    fresh = {path: new if isinstance(new, bytes) else new.encode() for path, new in pages.items()}
    stale = [path for path, new in fresh.items() if not path.is_file() or path.read_bytes() != new]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path} is out of date; run python docs/tables.py")
        return 1 if stale else 0
    for path in stale:
        path.write_bytes(fresh[path])
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
