"""Progress of long work: a callable, a bar of tqdm, or one line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import contextmanager

Progress = Callable[[int, "int | None"], object]


@contextmanager
def reporting(progress: bool | Progress | None, what: str):
    """Give what the engine calls with the bytes done and the total, if that is known; ``None`` for no progress."""
    if progress is None or progress is False:
        yield None
        return
    if callable(progress):
        yield progress
        return
    if progress is not True:
        raise TypeError("progress is True, False or a function of the bytes done and the total")
    bar = _tqdm(what) or _Line(what)
    try:
        yield bar
    finally:
        bar.close()


def _tqdm(what: str):
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return _Bar(tqdm, what)


class _Bar:
    def __init__(self, tqdm, what: str) -> None:
        self._bar = tqdm(desc=what, unit="B", unit_scale=True, unit_divisor=1024, leave=True)

    def __call__(self, done: int, total: int | None) -> None:
        if total is not None and self._bar.total != total:
            self._bar.total = total
            self._bar.refresh()
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.close()


class _Line:
    """One line that is written over."""

    def __init__(self, what: str) -> None:
        self._what, self._started, self._last, self._is_written = what, time.monotonic(), 0.0, False

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._last < 0.1 and done != total:
            return
        self._last, self._is_written = now, True
        rate = done / max(now - self._started, 1e-9)
        part = f"{100 * done / total:3.0f} % of {size(total)}" if total else size(done)
        print(f"\r{self._what}: {part}, {size(rate)}/s   ", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._is_written:
            print(file=sys.stderr)


def size(count: float) -> str:
    """Bytes for people.

    >>> size(1536)
    '1.50 KiB'
    """
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"]:
        if count < 1024 or unit == "TiB":
            return f"{int(count)} B" if unit == "B" else f"{count:.2f} {unit}"
        count /= 1024
    raise AssertionError
