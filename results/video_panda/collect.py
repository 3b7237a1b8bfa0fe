"""Turns the answers of run.sh into evidence: summary.json, tables in the README, a plot.

python results/video_panda/collect.py runs/video_panda
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from framecast.data.question_templates import majority_predictions
from framecast.data.video_questions import Question
from framecast.metrics.answers import AnswerMetrics, paired_gain
from framecast.recipes.build_video_qa import question_sides
from framecast.train.config import load_recipe
from framecast.train.video_qa_recipe import VideoQaRecipe
from framecast.writing import fill_section

HERE = Path(__file__).parent
NAMES = {
    "majority_type": "most frequent answer of the type",
    "majority_question": "most frequent answer to the same words",
    "blind": "SmolLM2, the same texts without the clips",
    "encoder": "frozen DINOv2, linear map",
    "average": "**STAB**, average pooling",
    "no_clip_token": "**STAB** without clip token",
    "no_frame_token": "**STAB** without frame token",
    "full": "**STAB**",
}
SEEN = ("what", "first", "last")  # that pixels tell: see what_can_be_seen.py
PARTS = {"clips": "clips, all types", "seen": f"clips: {', '.join(SEEN)}", "demo": "demo videos"}
Rows = list[dict[str, Any]]


def read_answers(run: Path) -> dict[str, Rows]:
    found = json.loads((run / "answers.json").read_text())
    seen = [row for row in found["held"] if row["type"] in SEEN]
    return {"clips": found["held"], "seen": seen, "demo": found["demo"]}


def metrics_of(rows: Rows, tag: str = "") -> AnswerMetrics:
    metrics = AnswerMetrics()
    for row in rows:
        given = {key: row[key] for key in ("question", "type", "options", "answer_index", "group")}
        metrics.update(row["predicted"], row["answers"], source=f"{row['source']}{tag}", **given)
    return metrics


def guesses(rows: dict[str, Rows], learn: list[Question], by: Any) -> dict[str, Rows]:
    """The same questions with the answers of one who counts and never looks."""
    found = {}
    for part, asked in rows.items():
        plain = [Question(None, "text", ((r["question"], r["answers"][0]),), type=r["type"]) for r in asked]
        texts = majority_predictions(learn, plain, by)
        found[part] = [{**row, "predicted": text} for row, text in zip(asked, texts, strict=True)]
    return found


def figures(runs: list[dict[str, Rows]]) -> dict[str, Any]:
    """Scores of every seed, their means, and deviations; of demo videos an answer in a sentence counts."""
    per_seed = []
    for rows in runs:
        scores: dict[str, float] = {}
        for part, own in rows.items():
            key = "contains" if part == "demo" else "normalised"
            metrics = metrics_of(own)
            scores[part] = metrics.compute()[key]
            if part == "clips":
                kinds = metrics.per_type()
                scores[f"{part}: type mean"] = metrics.compute()["type_mean"]
                scores |= {f"{part}: {kind}": found["normalised"] for kind, found in kinds.items()}
        per_seed.append({name: round(value, 2) for name, value in scores.items()})
    columns = {key: [scores[key] for scores in per_seed] for key in per_seed[0]}
    return {
        "mean": {key: statistics.fmean(values) for key, values in columns.items()},
        "std": {key: statistics.stdev(v) for key, v in columns.items()} if len(runs) > 1 else None,
        "per_seed": per_seed,
    }


def gains(ours: list[dict[str, Rows]], others: list[dict[str, Rows]]) -> dict[str, list[float]]:
    """By how much the answers are better than others', with 95 % limits over videos; all seeds together."""
    found = {}
    for part in PARTS:
        sides = []
        for runs in (ours, others):
            whole = AnswerMetrics()
            for seed, rows in enumerate(runs):
                whole.merge(metrics_of(rows[part], f" seed {seed}"))
            sides.append(whole)
        key = "contains" if part == "demo" else "normalised"
        found[part] = [round(value, 2) for value in paired_gain(sides[0], sides[1], key)]
    return found


def cell(row: dict[str, Any], key: str) -> str:
    if key not in row["mean"]:
        return ""
    deviation = f" ± {row['std'][key]:.1f}" if row.get("std") else ""
    return f"{row['mean'][key]:.1f}{deviation}"


def tables(rows: dict[str, dict[str, Any]]) -> str:
    keys = ["clips", "clips: type mean", "seen", "demo"]
    heads = ["", "seeds", PARTS["clips"], "mean of types", PARTS["seen"], PARTS["demo"]]
    parts = [
        "**right answers in %**, of demo videos those that hold the right words",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for name, row in rows.items():
        seeds = "" if name.startswith("majority") else str(row["seeds"])
        parts.append(f"| {' | '.join([NAMES[name], seeds, *(cell(row, key) for key in keys)])} |")
    kinds = sorted({key for row in rows.values() for key in row["mean"] if key.startswith("clips: ")})
    kinds.remove("clips: type mean")
    titles = [kind.removeprefix("clips: ") for kind in kinds]
    parts += ["", "**clips, by type of question**", "", f"| | {' | '.join(titles)} |"]
    parts.append("|---" * (len(kinds) + 1) + "|")
    for name, row in rows.items():
        cells = [f"{row['mean'][kind]:.0f}" if kind in row["mean"] else "" for kind in kinds]
        parts.append(f"| {' | '.join([NAMES[name], *cells])} |")
    parts += ["", "**gain of the whole STAB**, points with 95 % limits over videos", ""]
    parts += [f"| over | {' | '.join(PARTS.values())} |", "|---" * (len(PARTS) + 1) + "|"]
    for name, row in rows.items():
        if "gain_of_full" in row:
            found = row["gain_of_full"]
            cells = ["{:+.1f} ({:+.1f} to {:+.1f})".format(*found[part]) for part in PARTS]
            parts.append(f"| {' | '.join([NAMES[name], *cells])} |")
    return "\n".join(parts) + "\n"


def plot(rows: dict[str, dict[str, Any]], path: Path) -> None:
    """Bars per part of the test, whiskers one standard deviation over seeds."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axis = figure.subplots()
    colors = ("#d0d5da", "#9aa5b1", "#c2b280", "#c98a6b", "#8d7bb5", "#7fb0a5", "#3a9d5d", "#d1495b")
    width = 0.84 / len(rows)
    for i, (name, row) in enumerate(rows.items()):
        places = [k + (i - (len(rows) - 1) / 2) * width for k in range(len(PARTS))]
        error = [row["std"][part] for part in PARTS] if row.get("std") else None
        heights = [row["mean"][part] for part in PARTS]
        color = colors[list(NAMES).index(name)]
        label = NAMES[name].replace("*", "")
        axis.bar(places, heights, 0.92 * width, yerr=error, color=color, label=label, error_kw={"lw": 1})
    axis.set_xticks(range(len(PARTS)), list(PARTS.values()))
    axis.set_ylabel("right answers in %")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=7, frameon=False, loc="outside right upper")
    figure.savefig(path, dpi=130)


def main(folder: Path) -> None:
    runs = {
        name: [path.parent for path in sorted(folder.glob(f"{name}/tune-seed*/answers.json"))]
        for name in NAMES
    }
    answers = {name: [read_answers(run) for run in found] for name, found in runs.items() if found}
    if "full" not in answers:
        raise SystemExit(f"{folder}/full holds no answers yet; run.sh goes on where it was stopped")
    recipe = load_recipe(runs["full"][0])
    assert isinstance(recipe, VideoQaRecipe)
    learn = question_sides(recipe.data)[0]
    for by in ("type", "question"):
        answers[f"majority_{by}"] = [guesses(answers["full"][0], learn, by)]
    rows: dict[str, dict[str, Any]] = {}
    for name in NAMES:
        if name not in answers:
            print(f"{name} has no answers; left out")
            continue
        rows[name] = figures(answers[name])
        if name != "full":
            shared = [path.name for path in runs["full"]]
            if not name.startswith("majority"):
                shared = [path.name for path in runs[name] if path.name in shared]
            ours = [answers["full"][i] for i, path in enumerate(runs["full"]) if path.name in shared]
            others = answers[name] * len(ours) if name.startswith("majority") else answers[name]
            if len(ours) == len(others):  # the same seeds
                rows[name]["gain_of_full"] = gains(ours, others)
        rows[name]["seeds"] = len(answers[name])
        stages = [json.loads(p.read_text()) for p in folder.glob(f"{name}/*-seed*/summary.json")]
        rows[name]["wall_seconds"] = round(sum(stage["seconds"] for stage in stages))
    environment = json.loads((runs["full"][0] / "environment.json").read_text())[-1]
    environment.pop("command", None)
    summary = {
        "command": "bash results/video_panda/run.sh DATA LANGUAGE_MODEL",
        "questions": {
            "learnt from": len(learn),
            **{part: len(rows) for part, rows in answers["full"][0].items()},
        },
        "rows": rows,
        "wall_seconds": sum(row["wall_seconds"] for row in rows.values()),
        "environment": environment,
    }
    (HERE / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    plot(rows, HERE / "plot.png")
    fill_section(HERE / "README.md", "table", tables(rows))
    print(tables(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
