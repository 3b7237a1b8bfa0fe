"""How sets of questions lie on disk, and the readers of each.

| layout         | what lies there                                                                         |
|----------------|-----------------------------------------------------------------------------------------|
| msvd_qa        | `test_q.json`, `test_a.json` (parallel lists), `videos/<video_name>.*`                  |
| msrvtt_qa      | the same, videos in `videos/all`                                                        |
| tgif_qa        | the same, videos in `mp4`                                                               |
| activitynet_qa | the same, videos `all_test/v_<video_name>.*`; or `activitynet_qa_test.jsonl[.gz]`       |
| nextqa_mc      | `val.csv` (video,question,answer,qid,type,a0..a4), or `nextqa_mc_val.jsonl[.gz]`        |
| video_chatgpt  | `generic_qa.json`, `temporal_qa.json`, `consistency_qa.json`: Q (Q1, Q2), A, video_name |
| instructions   | `{"video": …, "conversations": [{"from": "human", "value": "<video>\\nquestion"}, …]}`   |
| questions      | users' own: `questions.csv` or `.json` with video, question, answer                     |

Columns of the last, besides: start_s, end_s (seconds; also start, end), type, id, group, split, options (a
list, in CSV with | between) with answer_index. In JSON a record may hold several questions as
`"qa": [{"question": …, "answer": …}, …]`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from framecast.data.problems import Problem, Report
from framecast.data.question_files import Record, read_records
from framecast.data.question_records import MediaFolder, Question, Turn, kind_of

VIDEO_FOLDERS = {
    "msrvtt_qa": "videos/all",
    "msvd_qa": "videos",
    "tgif_qa": "mp4",
    "activitynet_qa": "all_test",
}
PREFIXES = {"activitynet_qa": ("v_", "")}
ACTIVITYNET_TYPES = (
    "motion",
    "spatial",
    "temporal",
    "yes/no",
    "colour",
    "object",
    "location",
    "number",
    "other",
)
ASPECTS = ("generic", "temporal", "consistency")
TABLE_NAMES = ("questions", "qa")
SUFFIXES = (".json", ".csv", ".jsonl", ".jsonl.gz")
FILE_KEYS = ("video", "image", "file")
COLUMNS = (
    *FILE_KEYS,
    "question",
    "answer",
    "start_s",
    "end_s",
    "start",
    "end",
    "type",
    "id",
    "group",
    "split",
)
COLUMNS += ("options", "answer_index", "turns", "qa")
PLACEHOLDERS = ("<video>", "<image>")


@dataclass
class Reading:
    """What a reader found, before missing files are judged."""

    layout: str
    listed_in: Path
    media: MediaFolder
    questions: list[Question] = field(default_factory=list)
    first: int = 0  # entries of the files read before, where numbers run on

    def add(
        self, record: Record, report: Report, name: str | None, turns: Iterable[Turn], **others: Any
    ) -> None:
        """One question; what is wrong with it is reported at its place."""
        path = None
        if name is not None:
            path = self.media.want(name, record.line)
            if path is None:
                return
        kind = "text" if path is None else kind_of(path) if self.media.known or path.suffix else "video"
        try:
            self.questions.append(Question(path, kind, tuple(turns), **others))
        except ValueError as error:
            report(record.problem(str(error)))


Reader = Callable[[Reading, list[Record], str, Report], None]


# --- Public data sets --------------------------------------------------------------------------------------


def read_parallel(reading: Reading, answers: list[Record], split: str, report: Report) -> None:
    """Questions and answers in two lists that belong together by position."""
    folder = reading.listed_in.parent
    questions = read_records(reading.listed_in, report)
    answer_file = folder / reading.listed_in.name.replace("_q.", "_a.")
    answers = read_records(answer_file, report)
    if len(questions) != len(answers):
        message = f"has {len(answers)} answers, but {reading.listed_in.name} has {len(questions)} questions"
        report(Problem(answer_file, None, f"{message}; the two belong together by position"))
        return
    for asked, answered in zip(questions, answers, strict=True):
        ids = asked.values.get("question_id"), answered.values.get("question_id")
        if None not in ids and str(ids[0]) != str(ids[1]):
            message = (
                f"answers question {ids[1]!r}, but at this place {reading.listed_in.name} has {ids[0]!r}"
            )
            report(answered.problem(message))
            continue
        name = asked.text("video_name", report)
        turn = asked.text("question", report), answered.text("answer", report)
        if name and all(turn):
            kind = _type_of(reading.layout, answered.values.get("type", asked.values.get("type", "")))
            reading.add(asked, report, name, [turn], id=str(asked.values.get("question_id", "")), type=kind)


def _type_of(layout: str, given: Any) -> str:
    if layout == "activitynet_qa" and str(given).isdecimal() and int(given) < len(ACTIVITYNET_TYPES):
        return ACTIVITYNET_TYPES[int(given)]
    return str(given)


def read_lines_of_questions(reading: Reading, records: list[Record], split: str, report: Report) -> None:
    """ActivityNet-QA and NExT-QA, one JSON object a line."""
    for record in records:
        video, question = record.text("video", report), record.text("question", report)
        options = record.values.get("options")
        if options is not None:
            _add_choice(reading, record, report, options, record.values.get("answer"))
        elif video and question and (answer := record.text("answer", report)):
            kind = _type_of(reading.layout, record.values.get("type", ""))
            own = str(record.values.get("id", ""))
            reading.add(record, report, video, [(question, answer)], id=own, type=kind)


def read_nextqa_csv(reading: Reading, records: list[Record], split: str, report: Report) -> None:
    """NExT-QA as published: five columns of options, and folders of videos in map_vid_vidorID.json."""
    folders: dict[str, str] = {}
    table = reading.listed_in.parent / "map_vid_vidorID.json"
    if table.is_file():
        try:
            folders = {str(k): str(v) for k, v in json.loads(table.read_text(encoding="utf-8")).items()}
        except (ValueError, AttributeError) as error:
            report(Problem(table, None, f"is no JSON object of video numbers ({error})"))
    for record in records:
        options = [record.values.get(f"a{i}", "") for i in range(5)]
        video = record.values.get("video", "")
        record.values["video"] = folders.get(video, video)
        _add_choice(reading, record, report, options, record.values.get("answer"))


def _add_choice(reading: Reading, record: Record, report: Report, options: Any, answer: Any) -> None:
    name, question = record.text("video", report), record.text("question", report)
    if not (name and question):
        return
    if (
        not isinstance(options, list)
        or len(options) < 2
        or not all(isinstance(o, str) and o.strip() for o in options)
    ):
        report(record.problem(f"options must be at least two texts, got {options!r}"))
        return
    index = int(answer) if str(answer).isdecimal() else -1
    if not 0 <= index < len(options):
        report(record.problem(f"answer {answer!r} is none of the options 0 to {len(options) - 1}"))
        return
    own = str(
        record.values.get("id") or f"{name.rsplit('/', 1)[-1]}_{record.values.get('qid', '')}".rstrip("_")
    )
    options, kind = tuple(option.strip() for option in options), str(record.values.get("type", ""))
    others = {"id": own, "type": kind, "options": options, "answer_index": index, **_limits(record, report)}
    others["group"] = str(record.values.get("group") or "")
    reading.add(record, report, name, [(question, options[index])], **others)


def read_video_chatgpt(reading: Reading, records: list[Record], split: str, report: Report) -> None:
    """The fine-grained benchmark; a question of consistency is asked in two wordings, here as two turns."""
    aspect = reading.listed_in.name.removesuffix("_qa.json")
    for i, record in enumerate(records):
        name, answer = record.text("video_name", report), record.text("A", report)
        keys = ("Q1", "Q2") if "Q1" in record.values else ("Q",)
        asked = [record.text(key, report) for key in keys]
        if name and answer and all(asked):
            turns = [(question, answer) for question in asked]
            reading.add(record, report, name, turns, id=f"{aspect}_{i}", type=aspect)


def read_instructions(reading: Reading, records: list[Record], split: str, report: Report) -> None:
    """Talks of Valley and Video-ChatGPT; ids are running numbers, as the releases number them.

    `<video>` or `<image>` stands in the first question only; it is taken out, since the record says what is
    seen.
    """
    for i, record in enumerate(records, start=reading.first):
        name = record.values.get("video") or record.values.get("image")
        if name is not None and not isinstance(name, str):
            report(record.problem(f"video must be the path of a file, got {name!r}"))
            continue
        turns = _talk(record, name, report)
        if turns:
            reading.add(record, report, name, turns, id=str(i))


def _talk(record: Record, name: str | None, report: Report) -> list[Turn]:
    """Questions and answers in turn; an empty list after a reported problem."""
    said = record.values.get("conversations")
    if not isinstance(said, list) or not said or not all(isinstance(one, dict) for one in said):
        report(record.problem('conversations must be a list of {"from": …, "value": …}'))
        return []
    who = [one.get("from") for one in said]
    if who != ["human", "gpt"] * (len(said) // 2):
        report(
            record.problem(
                f"human and gpt must speak in turn, human first, gpt last, got {', '.join(map(str, who))}"
            )
        )
        return []
    values = [one.get("value") for one in said]
    if not all(isinstance(value, str) for value in values):
        report(record.problem("every value of conversations must be text"))
        return []
    seen = [any(p in value for p in PLACEHOLDERS) for value in values]
    if any(seen[1:]):
        report(record.problem(f"{PLACEHOLDERS[0]} or {PLACEHOLDERS[1]} may stand in the first question only"))
    elif seen[0] and not name:
        report(record.problem("the question names a video or image, but the record has neither"))
    elif name and not seen[0]:
        report(record.problem(f"the record has {name!r}, but its first question has no <video> or <image>"))
    else:
        for placeholder in PLACEHOLDERS:
            values[0] = values[0].replace(placeholder, "")
        values = [value.strip() for value in values]
        return list(zip(values[::2], values[1::2], strict=True))
    return []


# --- Users' own --------------------------------------------------------------------------------------------


def read_own(reading: Reading, records: list[Record], split: str, report: Report) -> None:
    """video, question and answer a row, or a record with its list of questions."""
    if split and records and not any("split" in record.values for record in records):
        have = ", ".join(records[0].values)
        report(
            Problem(reading.listed_in, 1, f"has no column split to pick {split!r} by; its columns are {have}")
        )
    for record in records:
        if split and str(record.values.get("split", split)) != split:
            continue
        _report_misspelled(record, report)
        nested = record.values.get("qa")
        if isinstance(nested, list) and all(isinstance(one, dict) for one in nested):
            outer = {k: v for k, v in record.values.items() if k != "qa"}
            for i, one in enumerate(nested):
                label = f"{record.label}question {i + 1}: "
                own = f"{Path(str(outer.get('video', record.name))).stem}_{i}"
                inner = Record(record.path, record.line, {**outer, "id": own, **one}, label, own)
                _report_misspelled(inner, report)
                _add_own(reading, inner, report)
        elif nested is not None:
            report(record.problem("qa must be a list of questions with their answers"))
        else:
            _add_own(reading, record, report)


def _report_misspelled(record: Record, report: Report) -> None:
    """A key that is nearly one of ours, which is not there; others are left alone."""
    for key in record.values:
        near = [] if key in COLUMNS else difflib.get_close_matches(key, COLUMNS, n=1, cutoff=0.8)
        if near and near[0] not in record.values:
            report(record.problem(f"unknown key {key!r}, did you mean {near[0]!r}?"))


def _add_own(reading: Reading, record: Record, report: Report) -> None:
    values = record.values
    key = next((k for k in FILE_KEYS if values.get(k)), None)
    name = record.text(key, report) if key else None
    own = str(values.get("id") or record.name)
    options, turns = values.get("options"), values.get("turns")
    if isinstance(options, str) and options:
        options = [option.strip() for option in options.split("|")]
    if options and name is None:
        report(record.problem("a question with options needs a video"))
    elif options:
        index = values.get("answer_index")
        given = values.get("answer") if index in (None, "") else index
        if isinstance(options, list) and isinstance(given, str) and given in options:
            given = options.index(given)
        choice = Record(record.path, record.line, {**values, "video": name, "id": own}, record.label)
        _add_choice(reading, choice, report, options, given)
    elif turns and not _are_turns(turns):
        report(record.problem("turns must be a list of [question, answer]"))
    else:
        said = turns or [(record.text("question", report), record.text("answer", report))]
        if turns or all(said[0]):
            common = {"id": own, "type": str(values.get("type") or ""), **_limits(record, report)}
            group = str(values.get("group") or "")
            reading.add(
                record, report, name, [(q.strip(), a.strip()) for q, a in said], **common, group=group
            )


def _are_turns(turns: Any) -> bool:
    return isinstance(turns, list) and all(
        isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)
        for turn in turns
    )


def _limits(record: Record, report: Report) -> dict[str, float | None]:
    """start_s and end_s in seconds, None where they are not given."""
    found: dict[str, float | None] = {"start_s": None, "end_s": None}
    for key in found:
        given = record.values.get(key, record.values.get(key.removesuffix("_s")))
        if given not in (None, ""):
            try:
                found[key] = float(given)
            except (TypeError, ValueError, OverflowError):
                report(record.problem(f"{key} must be a number of seconds, got {given!r}"))
    return found
