"""`predict --ask` and `chat`: questions about videos and images."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from framecast.cli.output import (
    Device,
    each_file,
    no_empty_folder,
    pick_device,
    show,
    show_failures,
    show_json,
)
from framecast.structures import Answer

LENGTH = 128  # ids of an answer


def answer_files(
    inputs: Sequence[str],
    questions: Sequence[str],
    model: str,
    out: Path,
    device: str,
    command: str,
    *,
    pages: bool,
    as_json: bool,
) -> None:
    """Print the answers while they are written; write answers.csv, answers.json and a page."""
    from framecast.infer.answering import Answerer

    answerer = Answerer(model, device=device)
    sources = find_media(inputs)

    def look(path: Path) -> list[Answer]:
        if as_json:
            return answerer.ask(path, list(questions), max_new_tokens=LENGTH, attention=pages)
        found = []
        for question in questions:
            print(f"{path.name}: {question} ", end="", flush=True)
            found.append(say(answerer, path, question, attention=pages))
        return found

    results, failed = each_file(sources, look, "answering", quiet=True)
    facts = {"command": command, "model": f"{answerer.model.registered_name} from {model}"}
    with no_empty_folder(out):
        written = write_answers(results, out, facts, pages) if results else []
    if as_json:
        rows = [record(answer) for answers in results for answer in answers]
        show_json({"answers": rows, "failed": failed, "written": written})
    elif written:
        show(f"wrote {', '.join(path.name for path in written)} into {out}")
    show_failures(failed)
    if failed:
        raise typer.Exit(1)


def say(answerer: Any, path: Path | None, question: str, **options: Any) -> Answer:
    """Print an answer piece by piece, and return it."""
    pieces = answerer.stream(path, question, max_new_tokens=LENGTH, **options)
    while True:
        try:
            print(next(pieces), end="", flush=True)
        except StopIteration as end:
            print(flush=True)
            return end.value


def find_media(inputs: Sequence[str]) -> list[Path]:
    """Images and videos of files, folders and patterns, each once."""
    from framecast.data.files import find_files
    from framecast.data.images import IMAGE_SUFFIXES
    from framecast.data.video import SUFFIXES

    suffixes = (*SUFFIXES, *IMAGE_SUFFIXES)
    found = [path for text in inputs for path in find_files(text, suffixes, "videos or images")]
    return list(dict.fromkeys(found))


def record(answer: Answer) -> dict[str, Any]:
    """One answer for JSON; frames with the share of the attention that they had, where that is known."""
    row: dict[str, Any] = {"file": answer.source, "question": answer.question, "answer": answer.text}
    row |= {"finished": answer.finished, "seconds": {k: round(v, 3) for k, v in answer.seconds.items()}}
    row |= {"visual_tokens": answer.num_visual_tokens, "frames": [round(float(t), 3) for t in answer.times]}
    if answer.attention is not None:
        row["attention"] = [round(float(share), 4) for share in answer.attention.sum((1, 2))]
    return row


def write_answers(
    results: Sequence[Sequence[Answer]], out: Path, facts: dict[str, str], pages: bool
) -> list[Path]:
    from framecast.writing import json_text, write_file

    out.mkdir(parents=True, exist_ok=True)
    answers = [answer for own in results for answer in own]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "question", "answer"])
    table.writerows([answer.source, answer.question, answer.text] for answer in answers)
    written = [
        write_file(out / "answers.csv", text.getvalue()),
        write_file(out / "answers.json", json_text([record(answer) for answer in answers]) + "\n"),
    ]
    if pages:
        from framecast.viz.answers import AnswersEntry, write_answers_page

        entries = [AnswersEntry(own[0].source, own, seen_frames(own[0])) for own in results]
        written.append(write_answers_page(out / "answers.html", entries, facts=facts))
    return written


def seen_frames(answer: Answer) -> Any:
    """(T, H, W, 3) uint8 of the frames that an answer is about."""
    from framecast.data.images import IMAGE_SUFFIXES, read_image
    from framecast.data.video import read_frames

    path = Path(answer.source)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return read_image(path)[None].permute(0, 2, 3, 1).numpy()
    return read_frames(path, answer.times).frames.permute(0, 2, 3, 1).numpy()


def chat(
    clip: Annotated[
        Path | None, typer.Argument(help="Video or image to talk about; without one, just talk.")
    ] = None,
    model: Annotated[str, typer.Option("--model", help="Run folder, saved model or hub id.")] = "",
    device: Device = "auto",
) -> None:
    """Talk about a video in the terminal: it is watched once, and every question knows the earlier ones.

    framecast chat clip.mp4 --model runs/panda
    """
    from framecast.infer.answering import Answerer

    if not model:
        raise ValueError("say which model is to answer: --model RUN")
    answerer = Answerer(model, device=pick_device(device))
    watched = answerer.watch(clip)
    seen = f"{len(watched.times)} frames of {clip.name}" if clip else "nothing"
    show(f"watched {seen} in {watched.seconds:.1f} s; ask, and end with an empty line")
    earlier: list[tuple[str, str]] = []
    while question := ask_person():
        answer = say_next(answerer, clip, question, earlier)
        if answer:
            earlier.append((question, answer))


def ask_person() -> str:
    """The next question, "" at the end."""
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""


def say_next(answerer: Any, clip: Path | None, question: str, earlier: list[tuple[str, str]]) -> str:
    """Print the answer; of a talk that is too long the oldest turns are forgotten, and that is said."""
    while True:
        try:
            return say(answerer, clip, question, earlier=earlier).text
        except ValueError as error:
            if "positions" not in str(error) or not earlier:
                show(str(error))
                return ""
            show("(the talk is too long for the language model; its oldest question is forgotten)")
            del earlier[0]
