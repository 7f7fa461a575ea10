"""Directories for temporary files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from . import _core


@contextmanager
def beside(path: str) -> Iterator[str]:
    """A hidden directory beside an output, on the disk that has room for it.

    It is removed at the end. What a killed process left is removed by the next run for the same output, and a forked process leaves the
    directory of its parent alone.
    """
    directory = _core.Directory(f"{path}.scratch", {})
    try:
        yield os.fspath(directory.path)
    finally:
        directory.discard()
