"""Files of questions as records: JSON, JSON Lines (also packed with gzip) and CSV."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from framecast.data.problems import Problem, Report, read_lines, refuse
from framecast.data.recognition_layouts import read_json, read_rows

PEEK = 1 << 16  # bytes of a file by which its kind is told
LONGEST = 1 << 31  # bytes of an unpacked file; more is taken for a file made to fill the memory


@dataclass
class Record:
    """One entry of a file."""

    path: Path
    line: int | None  # None in a JSON list, which has no lines
    values: dict[str, Any] = field(default_factory=dict)
    label: str = ""  # "entry 3: " where there are no lines
    name: str = ""  # number of the entry or line

    def problem(self, message: str) -> Problem:
        return Problem(self.path, self.line, self.label + message)

    def text(self, key: str, report: Report) -> str:
        """The text of a key, "" after a reported problem; numbers are taken as they are written."""
        value = self.values.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if key not in self.values:
            report(self.problem(f"has no {key}; its keys are {', '.join(map(str, self.values))}"))
        elif not isinstance(value, str):
            report(self.problem(f"{key} must be text, got {value!r}"))
        elif not value.strip():
            report(self.problem(f"{key} is empty"))
        else:
            return value.strip()
        return ""


def read_records(path: Path, report: Report = refuse) -> list[Record]:
    """Entries of a .json list, of .jsonl or .jsonl.gz, or of a .csv with a header."""
    if path.suffix.lower() == ".csv":
        return [Record(path, line, dict(row), name=str(line)) for line, row in read_rows(path, report)]
    if path.name.lower().endswith((".jsonl", ".jsonl.gz")):
        return _read_json_lines(path, report)
    try:
        entries = read_json(path, report)
    except RecursionError:
        report(Problem(path, None, "is no list of records (too deep)"))
        return []
    if entries is None and path.exists() and not path.stat().st_size:
        report(Problem(path, None, "is empty; it must be a list of records"))
    elif entries is not None and not isinstance(entries, list):
        report(Problem(path, None, f"must be a list of records, not {_kind(entries)}"))
    records = []
    for number, entry in enumerate(entries if isinstance(entries, list) else [], start=1):
        if isinstance(entry, dict):
            records.append(Record(path, None, entry, f"entry {number}: ", str(number)))
        else:
            report(Problem(path, None, f"entry {number}: must be a record with keys, not {_kind(entry)}"))
    if entries == []:
        report(Problem(path, None, "holds no records"))
    return records


def _kind(value: Any) -> str:
    names = {dict: "a record", list: "a list", str: "text", type(None): "nothing", bool: "true or false"}
    return names.get(type(value), "a number")


def _read_json_lines(path: Path, report: Report) -> list[Record]:
    lines = unpack(path, report) if path.suffix == ".gz" else read_lines(path, report)
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            report(Problem(path, number, f"is not valid JSON ({getattr(error, 'msg', 'too deep')})"))
            continue
        if isinstance(entry, dict):
            records.append(Record(path, number, entry, name=str(number)))
        else:
            report(Problem(path, number, f"must be a record with keys, not {_kind(entry)}"))
    if not records and path.exists():
        report(Problem(path, None, "holds no records"))
    return records


def unpack(path: Path, report: Report) -> list[str]:
    """Lines of a text packed with gzip, none after a reported problem."""
    try:
        with gzip.open(path, "rb") as file:
            data = file.read(LONGEST)
        return data.decode("utf-8-sig").split("\n")
    except FileNotFoundError:
        report(Problem(path, None, "does not exist"))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        report(Problem(path, None, f"cannot be unpacked ({error}); copy or download it again"))
    return []


def beginning(path: Path) -> str:
    """The first 64 KB of a file as text, "" where it cannot be read: enough to tell what it is."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(PEEK).decode("utf-8", errors="replace")
    except (OSError, EOFError, zlib.error):
        return ""
