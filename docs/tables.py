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
START, END = "<!-- measured:start -->", "<!-- measured:end -->"


def models() -> str:
    rows = [
        f"| `{e.name}` | {e.summary} | {e.params:,} | {'[paper](' + e.paper + ')' if e.paper else ''} |"
        for e in entries("model").values()
    ]
    return "\n".join([*HEAD_OF_MODELS, *rows, ""])


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
        parts += [text.replace("](plot.png)", f"](images/{folder.name}.png)"), ""]
    return "\n".join(parts)


def plots() -> dict[Path, bytes]:
    return {DOCS / "images" / f"{p.parent.name}.png": p.read_bytes() for p in RESULTS.glob("*/plot.png")}


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
    lines = []
    speed = RESULTS / "ltcontext_speed" / "ltcontext.json"
    if speed.is_file():
        rows = [r for r in json.loads(speed.read_text())["rows"] if r["name"].startswith("forward")]
        lines += ["LTContext, one CPU thread, against the equations written straight down:", ""]
        lines += ["| frames | framecast | reference | times faster |", "|---|---|---|---|"]
        for row in rows:
            frames = row["name"].split("T=")[1].split(",")[0]
            times = f"{row['ours']:,.0f} ms | {row['reference']:,.0f} ms"
            lines.append(f"| {int(frames):,} | {times} | {row['ratio']:.1f} |")
        lines += ["", "Reproduce with `python benchmarks/ltcontext.py`.", ""]
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
