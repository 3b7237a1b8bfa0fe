"""The command line: `framecast VERB …`; errors are one line, `--debug` shows where they come from."""

from __future__ import annotations

import os
import sys

REQUEUE_EXIT_CODE = 75  # stopped by a signal, saved; start the same command again


def main() -> None:
    """Entry point of the `framecast` command."""
    from framecast.cli.app import app

    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError, ImportError, NotImplementedError) as error:
        if os.environ.get("FRAMECAST_DEBUG"):
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if type(error).__name__ == "Requeue":
            print(str(error), file=sys.stderr)
            sys.exit(REQUEUE_EXIT_CODE)
        raise


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and not error.args[1:] == (error.strerror,):
        text = str(error)
    elif isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        text = f"{where}{error.strerror}"
    else:
        text = str(error) or type(error).__name__
    return text.strip()
