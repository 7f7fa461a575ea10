"""What can go wrong.

Trouble with paths and disks is an :class:`OSError` of the usual kind: :class:`FileNotFoundError`, :class:`FileExistsError`,
:class:`PermissionError`. Everything else is an :class:`Error`. After an exception no output exists, and what existed is unchanged.
"""

from __future__ import annotations

from typing import Any


class Error(Exception):
    """The base of this package's own exceptions.

    Attributes
    ----------
    code : str
        The kind of error, which stays the same between versions (``docs/errors.md`` lists all). The text may change.
    """

    code: str = "error"

    def __init__(self, message: str = "", **details: Any) -> None:
        super().__init__(message)
        for name, value in details.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        # KeyError, a base of one subclass, would put quotes around it.
        return str(self.args[0]) if self.args else ""

    def __reduce__(self):
        return _rebuilt, (type(self), self.args, dict(self.__dict__))


def _rebuilt(cls: type[Error], args: tuple, details: dict) -> Error:
    error = cls(*args)
    error.__dict__.update(details)
    return error


class CorruptError(Error):
    """A file breaks its own format, or its bytes do not match their checksum.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    offset : int or None
        Where in the file, in bytes, if the damage has one position.
    """

    code = "malformed"
    path: Any = None
    offset: int | None = None


class LossyError(Error, ValueError):
    """The output cannot hold a value exactly, and changed values were not allowed.

    Attributes
    ----------
    index : list of int
        The index of the first such value.
    """

    code = "lossy"
    index: list[int] = []


class LimitError(Error):
    """More memory or disk space is needed than is available or allowed.

    Attributes
    ----------
    asked : int
        Bytes needed.
    allowed : int or None
        Bytes available, if the system reports them.
    """

    code = "limit"
    asked: int = 0
    allowed: int | None = None


class UnsupportedError(Error, TypeError):
    """The input is valid, but this version cannot convert it."""

    code = "unsupported"


class RequestError(Error, ValueError):
    """The request makes no sense: rows of a scalar, an option without effect."""

    code = "request"


class NoSuchTensorError(Error, KeyError):
    """No tensor has the requested name.

    Attributes
    ----------
    name : str
        The requested name.
    nearest : list of str
        The most similar names, best first.
    """

    code = "no-such-tensor"
    name: str = ""
    nearest: list[str] = []


class DifferentError(Error):
    """An array differs from its source.

    Attributes
    ----------
    differences : dict of str to str
        For each array that differs, by its path, the first thing that does.
    """

    code = "different"
    differences: dict[str, str] = {}


class SkippedWarning(UserWarning):
    """Some of what was selected cannot be converted, and has no array."""


class SourceWarning(UserWarning):
    """Something about a source that does not keep it from being read."""
