"""Decoding: every frame in order, or only the frames with given time stamps.

The slow way decodes from the start and picks. The fast way gives the same frames: it starts at the last
keyframe before each group of wanted frames, leaves out frames that no other frame refers to, and drains the
decoder at once instead of feeding it further. Where the fast way does not meet a frame that the packets
announce, the slow way takes over.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from itertools import chain, groupby
from pathlib import Path
from typing import Self

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame

from framecast.data.video_container import (
    OnError,
    PacketTable,
    VideoError,
    VideoWarning,
    open_video,
    reason_of,
    refuse_shared_times,
)

# Decoders whose `skip_frame` may change between packets and then leaves out exactly the frames that no
# other frame refers to; a test compares them with the slow way.
SKIPPING = ("h264", "hevc", "mpeg4", "mpeg2video")
# Containers with an index, where a seek lands on the packet that it names.
INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
LONGEST_REORDER = 32  # frames that a codec may show in another order than it holds them
# Packets to read and throw away rather than seek: about the cost of a seek.
WORTH_A_SEEK = 64


class Decoder:
    """A video opened for decoding, with one way to deal with damage."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        on_error: OnError,
        *,
        table: PacketTable | None = None,
        threads: int = 1,
    ) -> None:
        self.path = Path(path)
        self.on_error = on_error
        self.table: PacketTable | None = None
        self.first_pts: int | None = None
        self.container, self.stream = open_video(path, threads=threads)
        self.codec = self.stream.codec_context
        self.seconds_per_tick = float(self.stream.time_base or 0)
        self.damages: list[str] = []
        self._packets: Iterator[Packet] = self._demux()
        self._position = 0  # row of the packet table that is read next
        if table is not None:
            self.follow(table)

    def follow(self, table: PacketTable) -> None:
        """Take times and positions from a packet table."""
        self.table, self.first_pts = table, int(table.frame_pts[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        self.container.close()
        known = self.table is not None and self.table.damage  # said already when the table was made
        if self.damages and kind is None and not known:
            more = f" and in {len(self.damages) - 1} more places" if len(self.damages) > 1 else ""
            warnings.warn(
                f"{self.path}: {self.damages[0]}{more}; read as far as it goes", VideoWarning, stacklevel=3
            )

    def every_frame(self) -> Iterator[tuple[int, VideoFrame]]:
        """All frames from the start with their time stamps, in the order in which they are shown."""
        timed = self.table is None or self.table.timed
        last, count, repeated = None, 0, 0
        if self.first_pts is None:
            self.first_pts = self._peek_first_pts()
        for packet in chain(self._packets, [None]):
            for frame in self._decode(packet):
                pts = frame.pts if timed else self._counted_pts(count)
                if pts is None or (last is not None and pts <= last):
                    repeated += 1
                    continue  # two frames at one time: the first is the one that is shown
                if self.first_pts is not None and pts >= self.first_pts:
                    yield pts, frame
                    last = pts
                count += 1
        refuse_shared_times(self.path, count + repeated, count)

    def frames_at(self, wanted: np.ndarray) -> Iterator[tuple[int, VideoFrame]]:
        """The frames with the time stamps `wanted` (ascending), as (index into wanted, frame).

        The fast way; ends early at the first frame that does not come out.
        """
        if self.table is None or not self.table.timed:
            return
        done = 0
        for key, positions in _groups_by_keyframe(self.table, wanted):
            if not self._go_to(key):
                return
            index_of = {int(self.table.pts[p]): done + i for i, p in enumerate(positions)}
            ready: dict[int, VideoFrame] = {}
            end = done + len(positions)
            for frame in self._decode_run(set(positions), max(positions), int(self.table.pts[key])):
                if frame.pts in index_of:
                    ready.setdefault(index_of[frame.pts], frame)
                while done in ready:
                    yield done, ready.pop(done)
                    done += 1
                if len(ready) > 64:  # the next one is not coming, and waiting for it costs memory
                    return
            if done < end:
                return

    def _decode_run(self, wanted: set[int], last: int, key_pts: int) -> Iterator[VideoFrame]:
        """Frames that come out between the current packet, a keyframe, and packet `last`."""
        may_skip = self.codec.name in SKIPPING
        for packet in self._packets:
            here = self._position
            self._position += 1
            if may_skip:
                self.codec.skip_frame = "DEFAULT" if here in wanted else "NONREF"
            # frames shown before the keyframe refer to what came before it: broken, and none of ours
            yield from self._decode(packet, earliest=key_pts)
            if here == last:
                break
        if may_skip:
            self.codec.skip_frame = "DEFAULT"
        yield from self._decode(None, earliest=key_pts)

    def _decode(self, packet: Packet | None, earliest: int | None = None) -> list[VideoFrame]:
        try:
            frames = self.codec.decode(packet)
        except av.error.EOFError:
            return []
        except av.FFmpegError as error:
            self._damaged(packet.pts if packet else None, reason_of(error))
            return []
        if earliest is not None:
            frames = [frame for frame in frames if frame.pts is None or frame.pts >= earliest]
        for frame in frames:
            if frame.is_corrupt:
                self._damaged(frame.pts, "the frame cannot be decoded in full")
        return frames

    def _damaged(self, pts: int | None, reason: str) -> None:
        place = "at an unknown time"
        if pts is not None:
            place = f"at {max(0.0, (pts - (self.first_pts or 0)) * self.seconds_per_tick):.2f} s"
        if self.on_error == "raise":
            raise VideoError(
                f"{self.path}: damaged {place} ({reason}); on_error='keep' reads what can be read"
            )
        self.damages.append(f"damaged {place} ({reason})")

    def _counted_pts(self, count: int) -> int:
        assert self.table is not None
        known = self.table.frame_pts
        beyond = max(0, count - len(known) + 1)
        return int(known[min(count, len(known) - 1)]) + beyond * self.table.last_duration

    def _demux(self) -> Iterator[Packet]:
        """Packets as the packet table lists them."""
        try:
            for packet in self.container.demux(self.stream):
                if packet.size and not packet.is_corrupt:
                    yield packet
                elif packet.size:
                    self._damaged(packet.pts, "a packet is incomplete")
        except av.FFmpegError as error:
            self._damaged(None, f"reading stops, {reason_of(error)}")

    def _peek_first_pts(self) -> int | None:
        """The smallest time stamp shown, from the first packets, which are read again afterwards."""
        peeked: list[Packet] = []
        key_pts: int | None = None
        shown: list[int] = []
        for packet in self._packets:
            peeked.append(packet)
            if packet.pts is None:
                continue
            if key_pts is None and packet.is_keyframe:
                key_pts = packet.pts
            if key_pts is not None and packet.pts >= key_pts and not packet.is_discard:
                shown.append(packet.pts)
            if len(shown) == LONGEST_REORDER:
                break
        self._packets = chain(peeked, self._packets)
        return min(shown, default=None)

    def _go_to(self, key: int) -> bool:
        """Make packet `key` the next one and forget what was decoded before; False where it is not found."""
        self.codec.flush_buffers()
        if not 0 <= key - self._position <= WORTH_A_SEEK and not self._seek(key):
            self.container.close()
            self.container, self.stream = open_video(self.path)
            self.codec = self.stream.codec_context
            self._packets, self._position = self._demux(), 0
        while self._position < key:
            if next(self._packets, None) is None:
                return False
            self._position += 1
        return True

    def _seek(self, key: int) -> bool:
        """Seek to packet `key` or a little before; False where it is not certain which packet comes next."""
        table = self.table
        if table is None or self.container.format.name not in INDEXED:
            return False
        try:
            self.container.seek(int(table.pts[key]), stream=self.stream, backward=True)
        except av.FFmpegError:
            return False
        self._packets = self._demux()
        first = next(self._packets, None)
        places = np.flatnonzero(table.pts == first.pts) if first is not None else []
        if first is None or len(places) != 1 or places[0] > key:
            return False
        self._packets, self._position = chain([first], self._packets), int(places[0])
        return True


def frames_at(
    path: str | os.PathLike[str], table: PacketTable, wanted: np.ndarray, on_error: OnError = "raise"
) -> Iterator[tuple[int, VideoFrame]]:
    """Decode the frames with the time stamps `wanted` (ascending, from the table), as (index, frame)."""
    done = 0
    with Decoder(path, on_error, table=table) as decoder:
        for i, frame in decoder.frames_at(wanted):
            yield i, frame
            done = i + 1
    if done < len(wanted):
        for i, frame in pick_forward(path, table, wanted[done:], on_error):
            yield done + i, frame


def pick_forward(
    path: str | os.PathLike[str], table: PacketTable, wanted: np.ndarray, on_error: OnError = "raise"
) -> Iterator[tuple[int, VideoFrame]]:
    """The definition of `frames_at`: decode from the start and take what is shown at each time stamp."""
    shown, i = None, 0
    with Decoder(path, on_error, table=table) as decoder:
        for pts, frame in decoder.every_frame():
            while i < len(wanted) and shown is not None and pts > wanted[i]:
                yield i, shown
                i += 1
            if i == len(wanted):
                return
            shown = frame
        while i < len(wanted) and shown is not None:
            yield i, shown
            i += 1


def _groups_by_keyframe(table: PacketTable, wanted: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """Rows of the packets wanted, grouped by the row of the keyframe from which to decode them."""
    shown = np.flatnonzero(table.shown)
    shown = shown[np.argsort(table.pts[shown], kind="stable")]
    rows = shown[np.searchsorted(table.pts[shown], wanted)]
    keys = np.flatnonzero(table.keyframe)
    starts = []
    for row in rows:
        k = int(np.searchsorted(keys, row, side="right")) - 1
        while k > 0 and table.pts[keys[k]] > table.pts[row]:
            k -= 1  # shown before this keyframe though decoded after it: needs the one before
        starts.append(int(keys[k]))
    for key, pairs in groupby(zip(starts, rows, strict=True), key=lambda pair: pair[0]):
        yield key, [int(row) for _, row in pairs]
