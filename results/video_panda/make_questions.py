"""Questions about real clips, and sentences that tell them, made from their annotations.

    python results/video_panda/make_questions.py DATA questions

DATA holds fir_actions, recordings of a ceiling camera, which are cut into clips of up to four actions, and
gesture_images, stills of people who give signs. Writes clips.json and stills.json. Of every clip up to four
things are asked, and it is told from beginning to end (type "tell"). Stills whose numbers follow each other
are alike and stay on one side of the split, ten by ten.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from framecast.data.question_clips import Cutting
from framecast.data.question_templates import make_questions
from framecast.data.question_wordings import TYPES
from framecast.data.video_questions import Question, write_questions

WORDS = {"active": "keep busy", "sit": "stay seated", "lie": "stay lying", "fallen": "lie fallen"}
CUTTING = Cutting(clips_per_action=4)
STILLS = 3  # every so many-th picture: they are alike
BLOCK = 10  # pictures that stay on one side


def main(data: Path, out: Path) -> None:
    def clips(*types: str) -> list[Question]:
        asked = {"types": types, "per_clip": 4, "style": "verbs", "words": WORDS, "cutting": CUTTING}
        return list(make_questions(data / "fir_actions", **asked))

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
    asked = clips(*(name for name in TYPES if name != "tell"))
    told = [replace(question, id=f"{question.id}_told") for question in clips("tell")]
    for name, questions in (("clips", asked + told), ("stills", stills)):
        path = write_questions(questions, out / f"{name}.json", root=data)
        print(f"{path}: {len(questions)} questions about {len({str(q.video) for q in questions})} files")


def block_of(picture: Path) -> str:
    """View, class and tens of the picture's number."""
    return f"{picture.parent.parent.name}/{picture.parent.name}/{int(picture.stem) // BLOCK}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
