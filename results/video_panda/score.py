"""Answers of trained runs to the held-back questions and to the questions about the demo videos.

    python results/video_panda/score.py DATA runs/video_panda/full/tune-seed0 …

Writes answers.json into every run folder; runs that have one are passed over.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, cast

import torch

from framecast.checkpoints import card_of, load
from framecast.data.question_records import by_clip
from framecast.data.video_questions import open_video_qa
from framecast.models.video_panda import VideoPanda
from framecast.recipes.build_video_qa import question_sides
from framecast.tasks.video_qa import score_answers
from framecast.tasks.video_qa_samples import Clips, clip_settings
from framecast.train.config import load_recipe
from framecast.train.video_qa_recipe import VideoQaRecipe
from framecast.writing import write_file


def score(run: Path, data: Path) -> dict[str, list[dict[str, Any]]]:
    """Every answer with its scores, of the held-back questions and of those about the demo videos."""
    recipe = load_recipe(run)
    assert isinstance(recipe, VideoQaRecipe)
    model = cast(VideoPanda, load(run))
    blind = bool(card_of(model).notes.get("blind"))
    clips = Clips(clip_settings(model), recipe.data.keep_mb)
    demo = list(open_video_qa(data / "demo_videos" / "qa.json"))
    found = {}
    for name, questions in (("held", question_sides(recipe.data)[1]), ("demo", demo)):
        metrics = score_answers(model, by_clip(questions), clips, "cpu", recipe.max_new_tokens, blind=blind)
        rows = metrics.state_dict()["rows"]
        keys = ("predicted", "answers", "question", "type", "source", "options", "answer_index", "group")
        found[name] = [dict(zip(keys, row, strict=True)) for row in rows]
        scores = ", ".join(f"{key} {value:.1f}" for key, value in metrics.compute().items())
        print(f"{run}, {name}: {scores}", flush=True)
    return found


def main(data: Path, runs: list[Path]) -> None:
    torch.set_num_threads(1)
    for run in runs:
        if not (run / "summary.json").is_file():
            print(f"{run} is not finished; left out")
        elif not (run / "answers.json").is_file():
            write_file(run / "answers.json", json.dumps(score(run, data), indent=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
