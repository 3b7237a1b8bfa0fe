"""Preemption and Ctrl-C: a signal sets a flag, the loop saves at the next step boundary and leaves."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

REQUEUE_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: "try again later"
INTERRUPT_EXIT_CODE = 128 + signal.SIGINT  # as shells report it
ONE_PRESS_S = 1.0  # torchrun hands on the Ctrl-C that the terminal has sent to everybody already


class Stopped(SystemExit):
    """The run was asked to stop, has saved, and goes on when it is started again."""

    exit_code: int

    def __init__(self, message: str) -> None:
        super().__init__(self.exit_code)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Requeue(Stopped):
    """By a signal of the cluster: it wants to be started again. Exit code 75."""

    exit_code = REQUEUE_EXIT_CODE


class Interrupted(Stopped):
    """By Ctrl-C: somebody wants it to be over for now. Exit code 130."""

    exit_code = INTERRUPT_EXIT_CODE


class StopRequests:
    """Catches SIGTERM, SIGUSR1 and SIGINT while it is entered; all ranks agree on the flag in every step.

    A second SIGINT leaves at once (KeyboardInterrupt). Outside the main thread signals cannot be caught; then
    only the flag can be set.
    """

    def __init__(self) -> None:
        self.received = ""  # name of the first signal
        self._pressed_s: float | None = None  # time of the first Ctrl-C
        self._former: dict[int, object] = {}

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGUSR1", "SIGINT"):
                number = getattr(signal, name, None)  # Windows has no SIGUSR1
                # Shells start background jobs with SIGINT ignored: a Ctrl-C means the job in front.
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._former[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # ty: ignore[invalid-argument-type]

    def _receive(self, number: int, _: FrameType | None) -> None:
        name, advice = signal.Signals(number).name, ""
        if name == "SIGINT":
            now = time.monotonic()
            if self._pressed_s is not None:
                if now - self._pressed_s > ONE_PRESS_S:
                    raise KeyboardInterrupt
                return
            self._pressed_s, advice = now, "; again to leave at once"
        self.received = self.received or name
        # write(2) is safe here, print is not: it may interrupt another print
        os.write(2, f"{name} received: saving at the next step boundary, then leaving{advice}\n".encode())
