"""Whether a video file is whole, by what its container says of itself, without decoding.

Containers promise their own length in bytes, so a file that was cut is recognised at once. Matroska readers
jump over bytes that make no sense to the next ones that do; the frames between are lost without a word, and
not every codec notices, so its elements are walked through once.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

MATROSKA = b"\x1a\x45\xdf\xa3"
SEGMENT, CLUSTER = 0x18538067, 0x1F43B675
# Elements that may follow each other in a segment or a cluster.
OF_SEGMENT = {0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367}
OF_CLUSTER = {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF}  # time stamps, blocks
ANYWHERE = {0xEC, 0xBF, 0x1A45DFA3}  # padding, checksum, the header of another segment
WHOLE = OF_SEGMENT | OF_CLUSTER | ANYWHERE


def is_whole(path: str | os.PathLike[str]) -> bool:
    """False where the container itself shows that something is wrong."""
    return not missing_bytes(path) and matroska_break(path) is None


def missing_bytes(path: str | os.PathLike[str]) -> int | None:
    """Bytes by which a file is shorter than its own headers say, 0 = complete, None = they do not say."""
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
            promised = _mp4_bytes(file, size)
        elif head.startswith(MATROSKA):
            promised = _matroska_bytes(head)
        elif head.startswith(b"RIFF"):
            promised = struct.unpack("<I", head[4:8])[0] + 8
        elif head.startswith(b"G") and size >= 189:
            file.seek(188)
            promised = -(-size // 188) * 188 if file.read(1) == b"G" else None
        else:
            promised = None
    return None if promised is None else max(0, promised - size)


def _mp4_bytes(file: BinaryIO, size: int) -> int | None:
    """End of the last top-level box, None where the boxes stop making sense."""
    offset = 0
    while offset < size:
        file.seek(offset)
        header = file.read(16)
        if len(header) < 8:
            return offset + 8
        length, kind = struct.unpack(">I4s", header[:8])
        if length == 0:  # reaches to the end of the file, whichever that is
            return size
        if not kind.isalnum():
            return None
        if length == 1:
            if len(header) < 16:
                return offset + 16
            length = struct.unpack(">Q", header[8:])[0]
        if length < 8:
            return None
        offset += length
    return offset


def _matroska_bytes(head: bytes) -> int | None:
    """End of the segment: EBML header, then the segment's identifier, then its length."""
    length, used = _variable_length(head, 4)
    offset = used + (length or 0)
    if length is None or head[offset : offset + 4] != SEGMENT.to_bytes(4):
        return None
    length, used = _variable_length(head, offset + 4)
    return None if length is None else used + length


def _variable_length(data: bytes, offset: int) -> tuple[int | None, int]:
    """An EBML number and the offset behind it; leading zero bits tell its width, all ones = unknown."""
    if offset >= len(data) or not data[offset]:
        return None, offset + 1
    width = 9 - data[offset].bit_length()
    unknown = (1 << 7 * width) - 1
    value = int.from_bytes(data[offset : offset + width]) & unknown
    return (None if value == unknown else value), offset + width


def matroska_break(path: str | os.PathLike[str]) -> int | None:
    """First byte of a Matroska or WebM file where no known element begins, None = sound or another format."""
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        if file.read(4) != MATROSKA:
            return None
        offset = 0
        while offset < size:
            file.seek(offset)
            header = file.read(12)
            width = 9 - header[0].bit_length()
            kind = int.from_bytes(header[:width])
            length, used = _variable_length(header, width)
            if width > 4 or (kind not in WHOLE and kind not in (SEGMENT, CLUSTER)):
                return offset
            if kind in (SEGMENT, CLUSTER):
                offset += used  # walk through what is in it
            elif length is None or offset + used + length > size:
                return offset
            else:
                offset += used + length
    return None
