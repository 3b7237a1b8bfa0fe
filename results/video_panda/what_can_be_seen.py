"""What the pixels of the clips and stills tell at all, without a language model.

    python results/video_panda/what_can_be_seen.py DATA runs/video_panda/questions

For every type of question with few answers a ridge classifier learns from the training side and answers the
held-back one: from pixels averaged to 16 x 16 per frame, and from features of a frozen DINOv2 (its mean over
each frame of a clip; four by four cells of a still). Beside it the most frequent answer. What no simple
classifier can tell, eyes trained on the same few hundred clips will hardly learn. Writes
what_can_be_seen.json and the table into the README.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from framecast.data.question_records import by_clip
from framecast.data.video_questions import Question
from framecast.progress import track
from framecast.recipes.build_video_qa import open_teacher, question_sides
from framecast.tasks.video_qa import Teacher
from framecast.tasks.video_qa_samples import Clips, ClipSettings
from framecast.train.environment import describe_environment
from framecast.train.video_qa_recipe import AlignmentSettings, VideoQaDataSettings
from framecast.writing import fill_section

HERE = Path(__file__).parent
FRAMES, SIZE, CELL = 8, 112, 28
ASKED = (  # part of the data, type of question
    ("clips", "what"),
    ("clips", "first"),
    ("clips", "last"),
    ("clips", "actions"),
    ("body", "what"),
    ("hand", "what"),
)


def part_of(question: Question) -> str:
    text = str(question.video)
    return "clips" if "fir_actions" in text else "body" if "/body/" in text else "hand"


class Eyes:
    """Pixels and features of the clip of a question, frame by frame; short clips repeat their last frame."""

    def __init__(self) -> None:
        teacher = open_teacher(AlignmentSettings(teacher="vit_small_dinov2", image_size=SIZE, layer=9))
        assert isinstance(teacher, Teacher)
        config = teacher.model.config
        self.teacher = teacher
        self.clips = Clips(ClipSettings(config.mean, config.std, SIZE, CELL, FRAMES))

    def look(self, question: Question) -> dict[str, Tensor]:
        read = self.clips[question]
        features = [f for f in self.teacher.frames(read, CELL, torch.device("cpu")) if f is not None]
        shown = read.clip.transpose(0, 1)[: len(features)]
        pixels = list(F.avg_pool2d(shown, SIZE // 16).flatten(1))
        if question.kind == "image":
            return {"pixels": pixels[0], "DINOv2": features[0].float().flatten()}
        means = [f.float().flatten(0, 1).mean(0) for f in features]
        return {"pixels": filled(pixels), "DINOv2": filled(means)}


def filled(frames: list[Tensor]) -> Tensor:
    return torch.cat([*frames, *[frames[-1]] * (FRAMES - len(frames))])


def answers_to(
    sides: dict[str, list[tuple[Question, dict[str, Tensor]]]], part: str, kind: str
) -> dict[str, Any]:
    """Right answers in percent to the held-back questions of a part and type."""
    chosen = {
        side: [(q, seen) for q, seen in rows if q.type == kind and part_of(q) == part]
        for side, rows in sides.items()
    }
    texts = {side: np.array([q.answer for q, _ in rows]) for side, rows in chosen.items()}
    usual = Counter(texts["learn"].tolist()).most_common(1)[0][0]
    row: dict[str, Any] = {"questions": len(texts["held"])}
    row["most frequent"] = 100 * float((texts["held"] == usual).mean())
    for name in ("pixels", "DINOv2"):
        seen = {side: torch.stack([s[name] for _, s in rows]).numpy() for side, rows in chosen.items()}
        model = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(0, 6, 7)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # features that never change
            model.fit(seen["learn"], texts["learn"])
        row[name] = 100 * float(model.score(seen["held"], texts["held"]))
    return row


def table(rows: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| | questions | most frequent answer | ridge on pixels | ridge on DINOv2 |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        scores = " | ".join(f"{row[key]:.0f}" for key in ("most frequent", "pixels", "DINOv2"))
        lines.append(f"| {name} | {row['questions']} | {scores} |")
    return "\n".join(lines) + "\n"


def main(data: Path, questions: Path) -> None:
    torch.set_num_threads(1)
    began, eyes = time.time(), Eyes()
    sides: dict[str, list[tuple[Question, dict[str, Tensor]]]] = {"learn": [], "held": []}
    for name in ("clips", "stills"):
        settings = VideoQaDataSettings(root=str(questions / f"{name}.json"), videos=str(data))
        for side, asked in zip(sides, question_sides(settings), strict=True):
            groups = track(by_clip(asked), f"{name}, {side}")
            sides[side] += [(q, seen) for g in groups for seen in [eyes.look(g[0])] for q in g]
    rows = {f"{part}, {kind}": answers_to(sides, part, kind) for part, kind in ASKED}
    environment = describe_environment(torch.device("cpu"), 1)
    environment.pop("command")
    summary = {
        "command": "python results/video_panda/what_can_be_seen.py DATA runs/video_panda/questions",
        "rows": rows,
        "wall_seconds": round(time.time() - began),
        "environment": environment,
    }
    (HERE / "what_can_be_seen.json").write_text(json.dumps(summary, indent=1) + "\n")
    fill_section(HERE / "README.md", "seen", table(rows))
    print(table(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
