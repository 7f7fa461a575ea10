"""Writes what :mod:`mmconvert.objects` finds in an object."""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from . import _core
from .dtypes import as_bytes, dtype_name, is_text, numpy_dtype
from .errors import RequestError, SkippedWarning, UnsupportedError
from .objects import BLOCK_BYTES, Choices, Column, Stream, Whole, items
from .progress import Progress
from .results import Array, Arrays, Report, mapped

#: What only the engine can do: arrays that want it are written to a temporary file first, unless they are in memory.
_FOR_ENGINE = ("byte_order", "layout", "method")
#: The name of an only array in a directory.
_ONLY = "array"


def store(
    obj: Any,
    out: str,
    rows: tuple[int | None, int | None] | None,
    how: dict[str, Any],
    form: dict[str, Any],
    choices: Choices,
    progress: Progress | None,
    mode: str,
) -> Array | Arrays:
    """Write all arrays of an object: one file, or a directory that appears as a whole."""
    from .conversion import target

    memory = None if how["memory"] is None else _core.memory_bytes(how["memory"])
    block_bytes = BLOCK_BYTES if memory is None else max(1, min(BLOCK_BYTES, memory // 4))
    found = list(items(obj, block_bytes, choices))
    # A stream makes several arrays in one pass.
    names = [_named(name, column) for name, item in found for column in _columns(item)]
    if not names:
        raise UnsupportedError(f"there is nothing to convert: {'; '.join(f'{name}: {why}' for name, why in choices.skipped.items())}")
    kind = target(out, len(names))
    if kind == "packed":
        raise UnsupportedError(f"{out}: objects are written to .npy files; write to a directory ({os.path.splitext(out)[0]}/)")
    store_one = _Storing(rows, how, form, block_bytes, memory, progress)
    if kind == "file":
        reports = store_one(found[0][1], lambda _: out, found[0][0])
        return mapped(reports[0], mode) if len(reports) == 1 else Arrays(out, reports, mode=mode)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(f"two arrays would be called {twice!r}: convert them on their own")
    directory = _core.Directory(out, {"overwrite": how["overwrite"]})
    try:
        hidden = os.fspath(directory.path)
        reports = []
        for name, item in found:
            made = store_one(item, lambda column, name=name: os.path.join(hidden, _core.Directory.file_name(_named(name, column))), name)
            reports += made
        files = [os.path.basename(report.path) for report in reports]
        _write_manifest(hidden, reports, choices.skipped)
        directory.publish([*files, "manifest.json"])
    finally:
        directory.discard()
    if choices.skipped:
        listed = "; ".join(f"{name}: {reason}" for name, reason in list(choices.skipped.items())[:3])
        warnings.warn(f"{len(choices.skipped)} parts have no array: {listed}", SkippedWarning, stacklevel=4)
    reports = [_moved(report, os.path.join(out, file)) for report, file in zip(reports, files)]
    return Arrays(out, reports, choices.skipped, mode=mode)


def _columns(item: Whole | Stream) -> list[str]:
    return list(item.columns) if isinstance(item, Stream) else [""]


def _named(name: str, column: str) -> str:
    return "/".join(part for part in (name, column) if part) or _ONLY


def _moved(report: Report, path: str) -> Report:
    return Report(**{**report.as_dict(), "path": path, "shape": report.shape, "lost": report.lost})


def _write_manifest(directory: str, reports: list[Report], skipped: dict[str, str]) -> None:
    """The manifest of an export, without a source."""
    fields = ("name", "part", "dtype", "source_dtype", "descr", "fortran_order", "shape", "nbytes")
    tensors = [{"file": os.path.basename(report.path), **{key: getattr(report, key) for key in fields}} for report in reports]
    listed = [{"name": name, "reason": reason} for name, reason in skipped.items()]
    manifest = {"source": None, "format": None, "sources": [], "joined": False, "choices": {}}
    manifest |= {"tensors": tensors, "skipped": listed, "lost": []}
    with open(os.path.join(directory, "manifest.json"), "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


class _Storing:
    """Writes one item after the other, with the same choices."""

    def __init__(self, rows: Any, how: dict[str, Any], form: dict[str, Any], block_bytes: int, memory: int | None, progress: Any) -> None:
        self._rows, self._how, self._form, self._block_bytes = rows, how, form, block_bytes
        # A block is in memory beside what the writer holds.
        self._writer_memory = None if memory is None else memory - block_bytes
        self._progress, self._done = progress, 0

    def __call__(self, item: Whole | Stream, path: Any, name: str) -> list[Report]:
        started = time.monotonic()
        if isinstance(item, Whole):
            reports = self._whole(item, path(""))
        else:
            reports = self._stream(item, path)
        seconds = time.monotonic() - started
        named = []
        for column, report in reports:
            self._done += report["nbytes"]
            told = {**report, "name": _named(name, column), "seconds": report.get("seconds") or seconds}
            named.append(Report.of({"part": None, "lost": (), **told}))
        return named

    def _tell(self, done: int, total: int | None) -> None:
        if self._progress is not None:
            self._progress(self._done + done, None if total is None else self._done + total)

    def _engine(self, convert: Any, *arguments: Any) -> Any:
        """Runs the engine; its progress counts from what was done before."""
        options = {**self._how, **self._form, "verify": None}
        return convert(*arguments, self._rows, options, None if self._progress is None else self._tell)

    def _whole(self, item: Whole, path: str) -> list[tuple[str, dict[str, Any]]]:
        array = item.array
        if array.dtype.kind == "T":
            array = array.astype(object)
        if array.dtype == object:
            return self._text(array.shape, [array], path)
        if array.dtype.kind in "SUMm" or array.dtype.names is not None or array.dtype.kind == "V" and item.dtype is None and dtype_name_or_none(array.dtype) is None:
            return self._items(array, path)
        name = item.dtype or dtype_name(array.dtype)
        is_fortran = array.flags.f_contiguous and not array.flags.c_contiguous
        if not array.flags.c_contiguous and not is_fortran:
            return self._strided(array, name, path)
        # The elements in the order of memory.
        memory = as_bytes(array.T if is_fortran else array)
        is_big = array.dtype.byteorder == ">" or array.dtype.byteorder == "=" and np.little_endian is False
        report = self._engine(_core.convert_array, memory, name, list(array.shape), is_big, is_fortran, path)
        return [("", report)]

    def _strided(self, array: np.ndarray, name: str, path: str) -> list[tuple[str, dict[str, Any]]]:
        """An array whose elements do not follow each other in memory: it is copied block by block."""
        from .objects import _runs

        blocks = ({"": array[rows]} for rows in _runs(array.shape, array.itemsize, self._block_bytes))
        stream = Stream({"": Column(name, array.shape[1:], len(array))}, lambda: blocks, is_flat=True)
        return self._stream(stream, lambda _: path)

    def _items(self, array: np.ndarray, path: str) -> list[tuple[str, dict[str, Any]]]:
        """Text of fixed length, dates, structured records: copied as they are."""
        with _scratch(path) as scratch:
            spool = os.path.join(scratch, "x.npy")
            np.save(spool, array, allow_pickle=False)
            return self._of_file(spool, "npy", path)

    def _text(self, shape: tuple[int, ...], blocks: Any, path: str) -> list[tuple[str, dict[str, Any]]]:
        """Strings: the longest has to be known before the first is written, so they are written twice."""
        with _scratch(path) as scratch:
            spool = os.path.join(scratch, "x.pb")
            with open(spool, "wb") as file:
                for block in blocks:
                    _write_strings(file, block)
                _write_shape(file, shape)
            return self._of_file(spool, "tensor-proto", path)

    def _of_file(self, file: str, format: str, path: str) -> list[tuple[str, dict[str, Any]]]:  # noqa: A002
        source = _core.Source.open([file], format, False, {})
        reports = self._engine(_core.convert, source.tensors()[0], path)
        return [("", report) for report in reports]

    def _stream(self, item: Stream, path: Any) -> list[tuple[str, dict[str, Any]]]:
        if self._rows is not None or any(self._form[name] is not None for name in _FOR_ENGINE):
            return self._spooled(item, path)
        return _Writing(item, path, self).run()

    def _spooled(self, item: Stream, path: Any) -> list[tuple[str, dict[str, Any]]]:
        """A stream whose arrays only the engine can make as asked for."""
        columns = {column: path(column) for column in item.columns}
        with _scratch(next(iter(columns.values()))) as scratch:
            spools = {column: os.path.join(scratch, f"{number}.npy") for number, column in enumerate(columns)}
            plain = _Storing(None, {**self._how, "overwrite": False}, dict.fromkeys(self._form), self._block_bytes, self._writer_memory, None)
            made = dict(_Writing(item, spools.__getitem__, plain).run())
            reports = []
            for column in columns:
                array = mapped(Report.of({"part": None, "lost": (), "seconds": 0.0, **made[column]}))
                reports += [(column, report) for _, report in self._whole(Whole(np.asarray(array), made[column]["dtype"]), columns[column])]
            return reports


def dtype_name_or_none(dtype: np.dtype) -> str | None:
    try:
        return dtype_name(dtype)
    except UnsupportedError:
        return None


class _Writing:
    """Writes the columns of a stream side by side."""

    def __init__(self, item: Stream, path: Any, storing: _Storing) -> None:
        self._item, self._path, self._storing = item, path, storing
        self._writers: dict[str, _ColumnWriter] = {}

    def run(self) -> list[tuple[str, dict[str, Any]]]:
        storing, item = self._storing, self._item
        total = self._total()
        memory = None if storing._writer_memory is None else storing._writer_memory // len(item.columns)
        try:
            for name, column in item.columns.items():
                self._writers[name] = _ColumnWriter(name, column, self._path(name), memory, storing, item.is_flat)
            done = 0
            for block in item.blocks():
                for name, part in block.items():
                    done += self._writers[name].append(part)
                storing._tell(done, total)
            for name, part in item.last().items():
                self._writers[name].append(part)
            return [(name, report) for name, writer in self._writers.items() for report in writer.finish()]
        finally:
            for writer in self._writers.values():
                writer.close()

    def _total(self) -> int | None:
        """Bytes of all arrays, if all are known."""
        total = 0
        for column in self._item.columns.values():
            name = self._storing._form["dtype"] or column.dtype
            if name is None or name == "string" or column.row_shape is None or column.rows is None:
                return None
            total += int(np.prod((column.rows, *column.row_shape), dtype=object)) * numpy_dtype(name).itemsize
        return total


class _ColumnWriter:
    """Writes one array of a stream; its dtype and the shape of its rows may be known only from the first block."""

    def __init__(self, name: str, column: Column, path: str, memory: int | None, storing: _Storing, is_flat: bool) -> None:
        self._name, self._column, self._path, self._memory, self._storing = name, column, path, memory, storing
        self._is_flat = is_flat
        self._writer: Any = None
        self._text: _TextSpool | None = None
        self._dtype = column.dtype
        if column.dtype is not None and column.row_shape is not None:
            self._start(column.dtype, column.row_shape)

    def _start(self, dtype: str, row_shape: tuple[int, ...]) -> None:
        self._dtype, self._column.row_shape = dtype, tuple(int(length) for length in row_shape)
        if dtype == "string":
            self._text = _TextSpool(self._path)
            return
        wanted = self._storing._form["dtype"] or dtype
        overwrite = self._storing._how["overwrite"]
        self._writer = _core.Writer(self._path, wanted, list(self._column.row_shape), self._column.rows, self._memory, overwrite)
        self._written = wanted

    def append(self, part: Any) -> int:
        """Writes a block; returns its bytes."""
        block = np.asarray(part)
        name = "string" if is_text(block.dtype) else dtype_name(block.dtype)
        if self._writer is None and self._text is None:
            if not self._is_flat and block.ndim == 0:
                raise RequestError(f"{self._what()}a batch is an array with an axis of rows, this one is a scalar: batched=False is for rows")
            self._start(self._dtype or name, block.shape[1:])
        if not self._is_flat and block.shape[1:] != self._column.row_shape:
            raise RequestError(f"{self._what()}the rows of a batch have the shape {list(block.shape[1:])}, those before {list(self._column.row_shape)}")
        if self._text is not None:
            if name != "string":
                raise RequestError(f"{self._what()}a block of {name} follows blocks of strings")
            return self._text.append(block)
        strict = self._storing._form["strict"] or False
        if name != self._dtype:
            if name == "string" or not np.can_cast(block.dtype, numpy_dtype(self._dtype), "safe"):
                raise RequestError(f"{self._what()}a block of {name} follows blocks of {self._dtype}")
            strict = True
        if self._storing._form["strings"] is not None:
            raise RequestError(f"strings would have no effect: {self._what()}there are no strings", code="without-effect")
        block = np.ascontiguousarray(block, block.dtype.newbyteorder("=")) if block.ndim else block.reshape(1)
        self._writer.append(as_bytes(block), name, strict, len(block))
        return block.nbytes

    def _what(self) -> str:
        return f"{self._name}: " if self._name else ""

    def finish(self) -> list[dict[str, Any]]:
        if self._text is not None:
            return self._text.finish(self._column, self._storing)
        if self._writer is None:
            raise RequestError(f"{self._what()}there is no element, and so the shape of the array is not known")
        shape = self._writer.finish()
        written = numpy_dtype(self._written)
        nbytes = int(np.prod(shape, dtype=object)) * written.itemsize
        report = {"path": self._path, "dtype": self._written, "source_dtype": self._dtype, "descr": written.str, "shape": shape}
        return [{**report, "nbytes": nbytes, "fortran_order": False, "verified": "not"}]

    def close(self) -> None:
        if self._writer is not None:
            self._writer.discard()
        if self._text is not None:
            self._text.close()


class _TextSpool:
    """Strings of a stream, in a temporary file until their number and their lengths are known."""

    def __init__(self, path: str) -> None:
        self._path, self._strings = path, 0
        self._scratch = _scratch(path)
        self._directory = self._scratch.__enter__()
        self._name = os.path.join(self._directory, "x.pb")
        self._file = open(self._name, "wb")

    def append(self, block: np.ndarray) -> int:
        self._strings += block.size
        return _write_strings(self._file, block)

    def finish(self, column: Column, storing: _Storing) -> list[dict[str, Any]]:
        per_row = int(np.prod(column.row_shape, dtype=object))
        rows = self._strings // per_row if per_row else column.rows or 0
        _write_shape(self._file, (rows, *column.row_shape))
        self._file.close()
        return [report for _, report in storing._of_file(self._name, "tensor-proto", self._path)]

    def close(self) -> None:
        self._file.close()
        self._scratch.__exit__(None, None, None)


@contextmanager
def _scratch(path: str) -> Iterator[str]:
    """A directory for temporary files on the disk of the output, which has room for it."""
    parent = os.path.dirname(path) or "."
    if not os.path.isdir(parent):
        raise FileNotFoundError(2, "the directory does not exist: create it first", parent)
    with tempfile.TemporaryDirectory(prefix=".mmconvert-", dir=parent) as scratch:
        yield scratch


# A serialized TensorProto of strings (tensorflow/core/framework/tensor.proto): dtype is field 1, tensor_shape field 2, string_val field 8.
# Fields may have any order, so the shape can follow the strings.


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _write_strings(file: BinaryIO, block: np.ndarray) -> int:
    written = 0
    for element in block.reshape(-1).tolist():
        if isinstance(element, str):
            element = element.encode()
        if not isinstance(element, bytes):
            raise UnsupportedError(f"an element of the array is {type(element).__name__}: an array of objects holds str or bytes")
        file.write(b"\x42" + _varint(len(element)))
        file.write(element)
        written += len(element)
    return written


def _write_shape(file: BinaryIO, shape: tuple[int, ...]) -> None:
    dims = b""
    for length in shape:
        size = b"\x08" + _varint(length)
        dims += b"\x12" + _varint(len(size)) + size
    file.write(b"\x08\x07\x12" + _varint(len(dims)) + dims)
