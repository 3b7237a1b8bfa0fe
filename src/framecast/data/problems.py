"""What is wrong with a file of annotations or features, and reading text so that it can be said.

Every reader takes `report`. By default the first problem is raised; a reader that is given
`report=problems.append` goes on and reports all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Problem:
    """Something wrong in a file of annotations or features."""

    path: Path
    line: int | None  # counted from 1, None = the whole file
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}" if self.line else f"{self.path}: {self.message}"


class AnnotationError(ValueError):
    """A problem in an annotation file; the message starts with file and line."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


Report = Callable[[Problem], None]


def refuse(problem: Problem) -> None:
    """Raise the first problem: FileNotFoundError for a missing file, else AnnotationError."""
    if problem.line is None and problem.message.startswith("does not exist"):
        raise FileNotFoundError(str(problem))
    raise AnnotationError(problem)


def read_text(path: Path, report: Report = refuse) -> str:
    """Text of a UTF-8 file with or without byte-order mark; empty after a reported problem."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        report(Problem(path, None, "does not exist"))
        return ""
    except OSError as error:
        report(Problem(path, None, f"cannot be read ({error.strerror})"))
        return ""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        report(
            Problem(path, line, f"is not UTF-8 text (byte 0x{data[error.start]:02x}); save the file as UTF-8")
        )
        return ""


def read_lines(path: Path, report: Report = refuse) -> list[str]:
    """Lines without line ends and trailing white space; a missing newline at the end loses nothing."""
    lines = [line.rstrip() for line in read_text(path, report).split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines
