"""Finished arrays: a map of each file, and the report of how it was made."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from .dtypes import view_as


class Report(NamedTuple):
    """How an array was made.

    Attributes
    ----------
    name : str or bytes
        The tensor's name; bytes if it is not UTF-8. Empty for an object that has none.
    part : str or None
        ``"values"`` or ``"offsets"`` for strings and lists that became two arrays.
    path : str
        The file.
    dtype, source_dtype : str
        TensorFlow's names of the types of the array and of the source; they differ after a cast.
    descr : str
        The descriptor in the file's header.
    fortran_order : bool
        Whether the first axis varies fastest.
    shape : tuple of int
    nbytes : int
        Bytes of elements.
    seconds : float
    verified : str
        How much of the data was compared with stored checksums: ``"full"``, ``"partial"`` or ``"not"``.
    method : str
        How the file was written: ``clone``, ``direct``, ``uncached``, ``portable`` or ``map``.
    peak_memory : int
        Peak memory in bytes by the plan's account.
    lost : tuple of str
        What was lost of a damaged source, one sentence each.
    """

    path: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    name: str | bytes = ""
    part: str | None = None
    source_dtype: str = ""
    descr: str = ""
    fortran_order: bool = False
    seconds: float = 0.0
    verified: str = "not"
    method: str = ""
    peak_memory: int = 0
    lost: tuple[str, ...] = ()

    @classmethod
    def of(cls, report: dict[str, Any]) -> Report:
        """From what the engine reports."""
        return cls(**{**report, "shape": tuple(report["shape"]), "lost": tuple(report["lost"])})

    def as_dict(self) -> dict[str, Any]:
        """All of it as a dictionary."""
        return self._asdict()


class Array(np.memmap):
    """A mapped ``.npy``: an :class:`numpy.memmap` that knows how it was made.

    Pages are read when they are used, so an array may be larger than memory. Arithmetic gives plain arrays.

    Attributes
    ----------
    report : Report or None
        How it was made; ``None`` for a part of an array.
    """

    report: Report | None = None

    def __array_finalize__(self, obj: Any) -> None:
        super().__array_finalize__(obj)
        self.report = None

    def __array_wrap__(self, array, context=None, return_scalar=False):
        plain = np.asarray(array)
        return plain[()] if return_scalar else plain

    def __getitem__(self, index):
        part = super().__getitem__(index)
        # A part that was copied is not mapped.
        if isinstance(part, Array) and part._mmap is None:
            return part.view(np.ndarray)
        return part


def load(path: str | os.PathLike[str], *, dtype: str | None = None, mode: Any = "r") -> Array:
    """Map a finished ``.npy``.

    Parameters
    ----------
    path : path
    dtype : str, optional
        What ``V1`` and ``V2`` in the file stand for: ``"bfloat16"``, ``"float8_e5m2"``, ``"int4"``.
    mode : str
        ``"r"``, ``"r+"`` or ``"c"``, as for :class:`numpy.memmap`.

    Returns
    -------
    Array

    Examples
    --------
    >>> import mmconvert as mm, tempfile
    >>> path = tempfile.mkdtemp() + "/x.npy"
    >>> np.save(path, np.arange(6).reshape(2, 3))
    >>> mm.load(path).shape
    (2, 3)
    """
    if mode not in ("r", "r+", "c"):
        raise ValueError(f"mode is 'r', 'r+' or 'c', not {mode!r}")
    array = np.load(os.fspath(path), mmap_mode=mode, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{os.fspath(path)} holds several arrays: mmconvert.open lists them")
    if dtype is not None:
        array = view_as(array, dtype)
    return array.view(Array)


def mapped(report: Report, mode: str = "r") -> Array:
    """The array that a report is about."""
    array = load(report.path, dtype=report.dtype, mode=mode)
    array.report = report
    return array


class Arrays(Mapping):
    """The arrays in a directory or a file, by name. Each is mapped when it is taken.

    Attributes
    ----------
    path : str
        The directory, or the safetensors file.
    report : list of Report
        How each was made, in the order of the source.
    skipped : dict
        Names of what has no array, with the reason.
    """

    def __init__(self, path: str, reports: list[Report], skipped: dict[str, str] | None = None, *, mode: str = "r", maps=None) -> None:
        self.path = path
        self.report = reports
        self.skipped = dict(skipped or {})
        self._mode = mode
        self._by_name = {_key(report): report for report in reports}
        self._map = maps

    def __getitem__(self, name: str) -> Array:
        report = self._by_name[name]
        if self._map is not None:
            return self._map(name, report)
        return mapped(report, self._mode)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        lines = [f"<{len(self)} arrays in {self.path}>"]
        width = min(60, max((len(str(name)) for name in self), default=0))
        for name, report in list(self._by_name.items())[:50]:
            lines.append(f"  {str(name):<{width}}  {report.dtype:<10}  {list(report.shape)}")
        if len(self) > 50:
            lines.append(f"  … {len(self) - 50} more")
        if self.skipped:
            lines.append(f"  skipped: {', '.join(map(str, self.skipped))}")
        return "\n".join(lines)


def _key(report: Report) -> str:
    name = report.name if isinstance(report.name, str) else repr(report.name)
    return f"{name}.{report.part}" if report.part else name
