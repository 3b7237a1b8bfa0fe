"""One run at a time in a run folder: a lock that ends with the process that holds it.

The kernel lets go of the lock when the process ends, however it ends, so a killed run blocks nobody. The file
`run.lock` only tells people who holds it; what a kill leaves of it means nothing.

On shared file systems: NFS (v3 with lockd, v4) hands the lock to its server, Lustre does so when mounted with
`flock`. Mounts with `nolock`, `local_lock` or `localflock` lock every machine for itself: a run on another
machine goes unnoticed there. When a whole machine dies, an NFSv4 server frees its locks after its lease (90 s
by default) and an NFSv3 server when the machine is back, so a requeued Slurm job waits before it gives up.
"""

from __future__ import annotations

import errno
import os
import socket
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from framecast.train.distributed import World, gather_objects

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder go unnoticed
    fcntl = None

PATIENCE_S = 150  # of a requeued job, longer than the lease of NFSv4 servers
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

_held: set[int] = set()  # descriptors of this process


@contextmanager
def hold_folder(folder: Path, world: World) -> Generator[None]:
    """Make the run folder and hold it for this run; all ranks enter together, rank 0 takes the lock.

    Raises on all ranks: BlockingIOError where another run holds the folder, OSError where it is not writable.
    """
    lock, refusal = None, None
    if world.is_main:
        try:
            lock = _take(folder)
        except OSError as error:
            refusal = error
    refusal = gather_objects(refusal, world)[0]
    if refusal is not None:
        raise refusal
    try:
        yield
    finally:
        if lock is not None:
            _release(folder / "run.lock", lock)


def _take(folder: Path) -> int:
    """Descriptor of the locked file, which says who we are."""
    path = folder / "run.lock"
    requeued = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    give_up = time.monotonic() + (PATIENCE_S if requeued else 0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            if _try_lock(lock, path):
                _held.add(lock)
                if not _is_still_there(path, lock):  # its last holder has just removed it
                    _drop(lock)
                    continue
                break
            holder = os.read(lock, 200).decode(errors="replace").strip()
            os.close(lock)
            if time.monotonic() >= give_up:
                raise BlockingIOError(
                    errno.EWOULDBLOCK,
                    f"{folder} is in use by another run ({holder or 'it has just begun'}); wait for it, "
                    f"stop it or choose another folder; only if its machine has crashed, delete {path}",
                )
            time.sleep(1)
        try:
            now = datetime.now().astimezone().isoformat(" ", "seconds")
            os.ftruncate(lock, 0)
            os.write(lock, f"{socket.gethostname()}, process {os.getpid()}, since {now}\n".encode())
            os.fsync(lock)
        except OSError:
            _release(path, lock)
            raise
    except BlockingIOError:
        raise
    except OSError as error:
        reason = f"cannot write into the run folder {folder} ({error.strerror}); choose another"
        raise type(error)(error.errno, reason) from None
    return lock


def _try_lock(lock: int, path: Path) -> bool:
    """Whether the lock is ours now."""
    if fcntl is None:
        return True
    try:
        # Not POSIX locks (`lockf`): a process loses those when it opens and closes the file once more.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        warnings.warn(
            f"the file system of {path.parent} takes no locks ({error.strerror}); make sure that no other "
            "run uses this folder",
            stacklevel=2,
        )
    return True


def _is_still_there(path: Path, lock: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(lock))
    except FileNotFoundError:
        return False


def _release(path: Path, lock: int) -> None:
    """Remove the file while the lock is held: nobody can have taken it meanwhile."""
    if _is_still_there(path, lock):
        with suppress(OSError):
            path.unlink()
    _drop(lock)


def _drop(lock: int) -> None:
    _held.discard(lock)
    os.close(lock)


def _forget_after_fork() -> None:
    """Data-loading processes outlive a killed run for seconds; they must not keep its lock."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
