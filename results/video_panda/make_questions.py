"""Questions about real clips and stills, made from their annotations.

    python results/video_panda/make_questions.py DATA questions

DATA holds fir_actions (recordings of a ceiling camera, cut into clips of up to four actions) and
gesture_images (stills of people who give signs). Writes clips.json, stills.json, both.json.
Pictures whose numbers follow each other are alike and stay on one side of the split, ten by ten.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from framecast.data.question_templates import make_questions
from framecast.data.video_questions import Question, write_questions

WORDS = {"active": "keep busy", "sit": "stay seated", "lie": "stay lying", "fallen": "lie fallen"}
STILLS = 3  # every so many-th picture: they are alike
BLOCK = 10  # pictures that stay on one side


def main(data: Path, out: Path) -> None:
    clips = list(make_questions(data / "fir_actions", style="verbs", words=WORDS, per_clip=8))
    stills: list[Question] = []
    for view in ("body", "hand"):
        made = list(make_questions(data / "gesture_images" / view))
        chosen = set(sorted({str(q.video) for q in made})[::STILLS])
        stills += [
            replace(question, group=block_of(question.video))
            for question in made
            if question.video is not None and str(question.video) in chosen
        ]
    out.mkdir(parents=True, exist_ok=True)
    for name, questions in (("clips", clips), ("stills", stills), ("both", clips + stills)):
        path = write_questions(questions, out / f"{name}.json", root=data)
        print(f"{path}: {len(questions)} questions about {len({str(q.video) for q in questions})} files")


def block_of(picture: Path) -> str:
    """View, class and tens of the picture's number."""
    return f"{picture.parent.parent.name}/{picture.parent.name}/{int(picture.stem) // BLOCK}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
