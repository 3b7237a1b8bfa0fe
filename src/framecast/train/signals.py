"""Preemption: a signal sets a flag, the loop saves at the next step boundary and leaves."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

REQUEUE_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: "try again later"


class Requeue(SystemExit):
    """The run was asked to stop, has saved, and goes on when it is started again. Exit code 75."""

    def __init__(self, message: str) -> None:
        super().__init__(REQUEUE_EXIT_CODE)
        self.message = message

    def __str__(self) -> str:
        return self.message


class StopRequests:
    """Catches SIGTERM and SIGUSR1 while it is entered; all ranks agree on the flag in every step.

    Outside the main thread signals cannot be caught; then only the flag can be set.
    """

    def __init__(self) -> None:
        self.received = ""  # name of the signal
        self._former: dict[int, object] = {}

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGUSR1"):
                number = getattr(signal, name, None)  # Windows has no SIGUSR1
                if number is not None:
                    self._former[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # ty: ignore[invalid-argument-type]

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        # write(2) is safe here, print is not: it may interrupt another print
        os.write(2, f"{self.received} received: saving at the next step boundary, then leaving\n".encode())
