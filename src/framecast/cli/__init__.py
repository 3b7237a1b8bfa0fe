"""The command line: `framecast VERB …`; errors are one line, `--debug` shows where they come from.

Exit codes: 0 done, 1 failed, 2 wrong usage, 75 stopped by a signal and saved (start the same command again),
130 stopped by Ctrl-C; training saves first, at once only after a second Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

# What a user can cause; anything else is a mistake of ours and is reported as one.
EXPECTED = (ValueError, OSError, ImportError, NotImplementedError)


def main() -> None:
    """Entry point of the `framecast` command."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments or bool(os.environ.get("FRAMECAST_DEBUG"))
    sys.exit(run([argument for argument in arguments if argument != "--debug"], debug=debug))


def run(arguments: Sequence[str], *, debug: bool = False) -> int:
    """Run one command and return its exit code; with `debug` exceptions are passed on."""
    from framecast.cli.app import app

    with warnings.catch_warnings():
        warnings.showwarning = _show_warning  # ty: ignore[invalid-assignment]
        try:
            return app(list(arguments), prog_name="framecast", standalone_mode=False) or 0
        except BrokenPipeError:  # the reader of a pipe, `head` for example, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else bool(stop.code)
        except Exception as error:
            if type(error).__name__ == "NoArgsIsHelpError":  # the help has been shown
                return 2
            if debug:
                raise
            print(f"error: {explain(error)}", file=sys.stderr)
            return getattr(error, "exit_code", 1)  # 2 for wrong usage


def explain(error: Exception) -> str:
    """What went wrong, in one line."""
    text = str(error)
    usage = getattr(error, "format_message", None)
    if usage is not None:  # from the parser of the command line
        command = getattr(getattr(error, "ctx", None), "command_path", "framecast")
        text = f"{usage().rstrip('. ')}; see `{command} --help`"
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        text = f"not enough memory ({text or 'asked for too much at once'})"
    elif not isinstance(error, EXPECTED):
        text = f"unexpected {type(error).__name__}: {text} (a bug; --debug shows where, please report it)"
    if "Traceback (most recent call last)" in text:  # an error of a data-loading process
        text = text.strip().splitlines()[-1].partition(": ")[2]
    return " ".join(line.strip() for line in text.splitlines() if line.strip()) or type(error).__name__


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"warning: {message}", file=sys.stderr)
