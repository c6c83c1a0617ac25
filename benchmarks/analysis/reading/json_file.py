"""A JSON file of anybody: read if it is a file of bearable size, its texts made safe to show."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import stat
import zlib
from pathlib import Path
from typing import Any

from benchmarks.analysis.reading.fields import HOW_TO_MEASURE, InputError
from benchmarks.analysis.reading.texts import clean

GZIP = b"\x1f\x8b"
MOST_BYTES = 2**28
"""A larger file, compressed or not, is no run: the published ones hold less than a hundredth."""
MOST_DIGITS = 300
"""Integers of more digits are beyond any float."""


def read_json(path: Path) -> tuple[Any, str]:
    """Read a JSON file, which may be compressed by gzip.

    Args:
        path: A regular file, or a link to one.

    Returns:
        What it holds, as `texts.clean` leaves it, integers of more than `MOST_DIGITS` digits as infinite
        floats; and a hash of its bytes, unpacked.

    Raises:
        InputError: It is no regular file, too large, unreadable, or no JSON.
    """
    raw = _read(path)
    if raw.startswith(GZIP):
        raw = _unpacked(raw, path)
    try:
        text = raw.decode("utf-8-sig")
        return clean(json.loads(text, parse_int=_integer)), hashlib.sha256(raw).hexdigest()
    except json.JSONDecodeError as error:
        cut_off = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        what = "is cut off in the middle of its JSON" if text.strip() and cut_off else "is not JSON"
        raise InputError(f"{path} {what} (line {error.lineno})", HOW_TO_MEASURE) from None
    except RecursionError:
        raise InputError(f"{path} is not JSON that can be read, so deeply is it nested") from None
    except ValueError:
        raise InputError(f"{path} is not JSON", HOW_TO_MEASURE) from None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MOST_DIGITS else float(digits)


def _read(path: Path) -> bytes:
    """All bytes of a file; what is no file is not opened, as a pipe or a device may never end."""
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise InputError(f"{path} is a directory", "give the JSON files of the runs one by one")
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path} is no regular file", "save the run in one, and give that")
        with path.open("rb") as stream:
            return _bearable(stream, path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file", HOW_TO_MEASURE) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:  # a name that no file can have
        raise InputError(f"{path}: no such file", HOW_TO_MEASURE) from None


def _unpacked(raw: bytes, path: Path) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
            return _bearable(stream, path)
    except (OSError, EOFError, zlib.error):
        raise InputError(f"{path} is a damaged gzip file", f"copy it again, or {HOW_TO_MEASURE}") from None


def _bearable(stream: io.BufferedIOBase, path: Path) -> bytes:
    raw = stream.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise InputError(f"{path} holds more than {MOST_BYTES >> 20} MiB, which no run does", HOW_TO_MEASURE)
    return raw
