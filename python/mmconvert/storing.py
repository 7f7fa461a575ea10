"""Writes what :mod:`mmconvert.objects` finds in an object."""

from __future__ import annotations

import copy
import errno
import functools
import json
import os
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, BinaryIO

import numpy as np

from . import _core, scratch
from .dtypes import as_bytes, numpy_dtype
from .errors import Error, LimitError, LossyError, RequestError, SkippedWarning, UnsupportedError
from .objects import BLOCK_BYTES, Choices, Column, Stream, Whole, items, kind, runs, sliced, unmasked, with_rows
from .progress import Progress
from .results import Array, Arrays, Report, load, mapped

#: What only the engine can do: streams are written to a temporary file first, unless it is what they are written as anyway.
_FOR_ENGINE = {"byte_order": ("native", sys.byteorder), "layout": ("C",), "method": ()}
#: The name of an only array in a directory.
_ONLY = "array"
#: What the plan of every writer counts for the process as a whole.
_PROCESS_BYTES = 12 << 20
#: The least that a writer needs beside that.
_LEAST_WRITER_BYTES = 384 << 10
#: Strings that are written at a time.
_STRINGS_AT_A_TIME = 1 << 16


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

    if form["strict"] and form["dtype"] is None:
        raise _without_effect("strict", "casts (`dtype`)")
    memory = _core.memory_bytes(how["memory"])
    # A data set prepares blocks while one is written, so a block is a quarter of what it may take.
    block_bytes = min(BLOCK_BYTES, max(64 << 10, (memory - _PROCESS_BYTES) // 4))
    choices.rows = rows
    found = list(items(obj, block_bytes, choices))
    choices.check_applied()
    # A stream makes several arrays in one pass.
    names = [_named(name, column) for name, item in found for column in _columns(item)]
    if not names:
        raise _nothing(choices.skipped)
    output = target(out, len(names))
    if output == "packed":
        raise UnsupportedError(f"{out}: objects are written to .npy files; write to a directory ({os.path.splitext(out)[0]}/)")
    store_one = _Storing(rows, how, form, block_bytes, memory, progress, choices.skipped, is_alone=len(names) == 1)
    if output == "file":
        # Strings in two files have names of their own.
        if form["strings"] != "offsets" and not how["overwrite"] and os.path.lexists(out):
            raise FileExistsError(errno.EEXIST, "it exists and was left as it is: `overwrite=True` replaces it", out)
        reports = store_one(found[0][1], lambda _: out, found[0][0])
        _warn(choices.skipped)
        return mapped(reports[0], mode) if len(reports) == 1 else Arrays(out, reports, mode=mode)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(f"two arrays would be called {twice!r}: convert them on their own")
    directory = _core.Directory(out, {"overwrite": how["overwrite"]})
    try:
        hidden = os.fspath(directory.path)
        reports = []

        def path(name: str, column: str) -> str:
            return os.path.join(hidden, _core.Directory.file_name(_named(name, column)))

        for name, item in found:
            with _about(name, choices.skipped if len(names) > 1 else None):
                reports += store_one(item, functools.partial(path, name), name)
        if not reports:
            raise _nothing(choices.skipped)
        store_one.check_applied()
        files = [os.path.basename(report.path) for report in reports]
        _write_manifest(hidden, reports, choices.skipped)
        directory.publish([*files, "manifest.json"])
    finally:
        directory.discard()
    _warn(choices.skipped)
    reports = [_moved(report, os.path.join(out, file)) for report, file in zip(reports, files)]
    return Arrays(out, reports, choices.skipped, mode=mode)


def _without_effect(option: str, needs: str) -> RequestError:
    return RequestError(f"`{option}` has no effect on the selection: it applies to {needs}", code="without-effect")


def _nothing(skipped: dict[str, str]) -> UnsupportedError:
    reasons = "; ".join(f"{name}: {reason}" if name else reason for name, reason in skipped.items())
    return UnsupportedError(f"there is nothing to convert: {reasons}")


def _warn(skipped: dict[str, str]) -> None:
    if skipped:
        listed = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:3])
        # In the line that called convert.
        warnings.warn(f"{len(skipped)} parts have no array: {listed}", SkippedWarning, stacklevel=4)


@contextmanager
def _about(name: str, skipped: dict[str, str] | None) -> Iterator[None]:
    """Says which of several arrays an error is about. One that cannot be converted is left out."""
    try:
        yield
    except UnsupportedError as error:
        if not name or skipped is None:
            raise
        skipped[name] = str(error)
    except Error as error:
        if name:
            error.args = (f"{name}: {error}",)
        raise


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


#: The reports of arrays, with the columns that they are of.
_Made = list[tuple[str, dict[str, Any]]]


class _Storing:
    """Writes one item after the other, with the same choices."""

    def __init__(
        self,
        rows: tuple[int | None, int | None] | None,
        how: dict[str, Any],
        form: dict[str, Any],
        block_bytes: int,
        memory: int,
        progress: Progress | None,
        skipped: dict[str, str],
        is_alone: bool,
    ) -> None:
        self.rows, self.how, self.form, self.skipped = rows, how, form, skipped
        self._block_bytes, self._memory, self._progress, self._is_alone = block_bytes, memory, progress, is_alone
        self._done = 0
        #: Options that applied to something, of those that need not apply to each of several arrays.
        self._applied: set[str] = set()

    def __call__(self, item: Whole | Stream, path: Callable[[str], str], name: str) -> list[Report]:
        started = time.monotonic()
        reports = self.whole(item, path("")) if isinstance(item, Whole) else self._stream(item, path, name)
        seconds = time.monotonic() - started
        named = []
        for column, report in reports:
            self._done += report["nbytes"]
            told = {**report, "name": _named(name, column), "seconds": report.get("seconds") or seconds}
            named.append(Report.of({"part": None, "lost": (), **told}))
        return named

    def check_applied(self) -> None:
        """Refuse a choice about strings if there are none."""
        if self.form["strings"] is not None and "strings" not in self._applied:
            raise _without_effect("strings", "tensors of strings")

    def check_alone(self) -> None:
        """The same before an only array is written that has no strings."""
        if self._is_alone:
            self.check_applied()

    @property
    def needs_engine(self) -> bool:
        return self.rows is not None or any(self.form[name] not in (None, *plain) for name, plain in _FOR_ENGINE.items())

    def writer_memory(self, count: int) -> int:
        """What each of ``count`` writers may use, beside the block that is in memory."""
        least = _PROCESS_BYTES + self._block_bytes + count * _LEAST_WRITER_BYTES
        if self._memory < least:
            text = f"not enough memory in the budget (`memory` allows more): {least} bytes needed, {self._memory} bytes available"
            raise LimitError(text, asked=least, allowed=self._memory)
        return _PROCESS_BYTES + (self._memory - _PROCESS_BYTES - self._block_bytes) // count

    def tell(self, done: int, total: int | None) -> None:
        if self._progress is not None:
            self._progress(self._done + done, None if total is None else self._done + total)

    def whole(self, item: Whole, path: str) -> _Made:
        array = item.array
        name = item.dtype or kind(array.dtype)
        if self.rows is not None and not array.ndim:
            raise RequestError("a scalar has no rows to choose from", code="rows-of-scalar")
        if name == "string" or array.dtype.kind in "SU" and self.form["strings"] is not None:
            return self._spooled(array, "string", path)
        self.check_alone()
        if isinstance(name, np.dtype):
            return self._spooled(array, name, path)
        is_fortran = array.flags.f_contiguous and not array.flags.c_contiguous
        if not array.flags.c_contiguous and not is_fortran:
            # Elements that do not follow each other in memory are copied block by block.
            stream = sliced(array, array.shape, array.dtype, self._block_bytes, name=name)
            return self._stream(stream, lambda _: path, "")
        # The elements in the order of memory.
        memory = as_bytes(array.T if is_fortran else array)
        is_big = array.dtype.byteorder == ">" or array.dtype.byteorder == "=" and sys.byteorder == "big"
        report = self._engine(_core.convert_array, memory, name, list(array.shape), is_big, is_fortran, path, rows=self.rows)
        return [("", report)]

    def _spooled(self, array: np.ndarray, name: str | np.dtype, path: str) -> _Made:
        """Strings, and elements that are copied as they are: the engine reads them from a temporary file.

        Of strings, the longest has to be known before the first is written.
        """
        if self.rows is not None:
            array = array[slice(*self.rows)]
        with scratch.beside(path) as directory, closing(_spool(os.path.join(directory, "spool"), name)) as spool:
            for key in runs(array.shape, array.itemsize, self._block_bytes) if array.ndim else [...]:
                spool.append(array[key])
            return self.of_spool(spool, array.shape, path, None)

    def of_spool(self, spool: _Spool, shape: tuple[int, ...], path: str, rows: Any) -> _Made:
        """Makes an array of elements in a temporary file."""
        spool.finish(shape)
        return self._of_file(spool.path, spool.format, path, rows)

    def _of_file(self, file: str, format: str, path: str, rows: Any) -> _Made:  # noqa: A002
        source = _core.Source.open([file], format, False, {})
        is_text = format == _StringSpool.format
        reports = self._engine(_core.convert, source.tensors()[0], path, rows=rows, is_text=is_text)
        return [("", report) for report in reports]

    def _engine(self, convert: Any, *arguments: Any, rows: Any, is_text: bool = False) -> Any:
        """Runs the engine; its progress counts from what was done before."""
        options = {**self.how, **self.form, "verify": None}
        if is_text:
            self._applied.add("strings")
        else:
            options["strings"] = None
        return convert(*arguments, rows, options, None if self._progress is None else self.tell)

    def _stream(self, item: Stream, path: Callable[[str], str], name: str) -> _Made:
        if self.rows is not None:
            cut = with_rows(item, self.rows)
            if cut is not None:
                # The progress and what applied are shared with this one.
                others = copy.copy(self)
                others.rows = None
                return _Writing(cut, path, others, name).run()
        return _Writing(item, path, self, name).run()


class _Writing:
    """Writes the columns of a stream side by side."""

    def __init__(self, item: Stream, path: Callable[[str], str], storing: _Storing, name: str) -> None:
        self._item, self._path, self._storing, self._name = item, path, storing, name
        self._writers: dict[str, _ColumnWriter] = {}

    def run(self) -> _Made:
        storing, item = self._storing, self._item
        memory = storing.writer_memory(len(item.columns))
        try:
            for name, column in item.columns.items():
                self._writers[name] = _ColumnWriter(name, column, self._path(name), memory, storing, item.is_flat)
                self._try(name, _ColumnWriter.start)
            done, total = 0, self._total()
            for block in item.blocks():
                for name, part in block.items():
                    if name in self._writers:
                        done += self._try(name, lambda writer, part=part: writer.append(part)) or 0
                if not storing.needs_engine:
                    storing.tell(done, total)
            for name, part in item.last().items():
                if name in self._writers:
                    self._writers[name].append(part)
            # What writers hold is given back before the engine takes its share.
            for writer in self._writers.values():
                writer.complete()
            return [(name, report) for name, writer in self._writers.items() for _, report in writer.reports()]
        finally:
            for writer in self._writers.values():
                writer.close()

    def _try(self, name: str, call: Callable[[_ColumnWriter], Any]) -> Any:
        """Leaves a column out that cannot be converted, unless it is the only one."""
        writer = self._writers[name]
        try:
            return call(writer)
        except UnsupportedError as error:
            if writer.is_started or len(self._writers) == len(self._item.columns) == 1:
                raise
            self._storing.skipped[_named(self._name, name)] = str(error)
            del self._writers[name]
            writer.close()
            if not self._writers:
                raise
            return None

    def _total(self) -> int | None:
        """Bytes of all arrays, if all are known."""
        total = 0
        for name in self._writers:
            column = self._item.columns[name]
            if column.dtype in (None, "string") or column.row_shape is None or column.rows is None:
                return None
            # A part of rows is reported as the bytes that it had.
            itemsize = column.dtype.itemsize if isinstance(column.dtype, np.dtype) else numpy_dtype(column.dtype).itemsize
            total += _product((column.rows, *column.row_shape)) * itemsize
        return total


class _ColumnWriter:
    """Writes one array of a stream; its dtype and the shape of its rows may be known only from the first block."""

    def __init__(self, name: str, column: Column, path: str, memory: int, storing: _Storing, is_flat: bool) -> None:
        self._what, self._column, self._path, self._memory, self._storing = f"{name}: " if name else "", column, path, memory, storing
        self._is_flat = is_flat
        self._open = ExitStack()
        self._writer: Any = None
        self._spool: _Spool | None = None
        self._written, self._written_dtype, self._shape = path, "", []
        self._dtype, self._row_shape = column.dtype, column.row_shape
        #: Rows and elements so far. Of a flat stream only elements are counted.
        self._rows = self._elements = 0

    @property
    def is_started(self) -> bool:
        return self._writer is not None or self._spool is not None

    def start(self) -> None:
        """Opens the output, if its dtype and the shape of its rows are known."""
        if self._dtype is None or self._row_shape is None:
            return
        storing, form = self._storing, self._storing.form
        self._row_shape = tuple(int(length) for length in self._row_shape)
        if isinstance(self._dtype, np.dtype) and self._dtype.kind in "SU" and form["strings"] is not None:
            self._dtype = "string"
        is_text = self._dtype == "string"
        if not is_text:
            storing.check_alone()
        if is_text or isinstance(self._dtype, np.dtype):
            if form["dtype"] is not None:
                raise UnsupportedError(f"a cast from {self._dtype} to {form['dtype']} is not supported: its elements are not numbers")
            path = os.path.join(self._open.enter_context(scratch.beside(self._path)), "spool")
            self._spool = self._open.enter_context(closing(_spool(path, self._dtype)))
            return
        overwrite = storing.how["overwrite"]
        self._written_dtype = form["dtype"] or self._dtype
        if storing.needs_engine:
            # The engine also casts.
            self._written = os.path.join(self._open.enter_context(scratch.beside(self._path)), "spool.npy")
            self._written_dtype, overwrite = self._dtype, False
        rows = self._column.rows
        self._writer = _core.Writer(self._written, self._written_dtype, list(self._row_shape), rows, self._memory, overwrite)
        self._open.callback(self._writer.discard)

    def append(self, part: Any) -> int:
        """Writes a block; returns its bytes."""
        block = unmasked(part)
        if block.ndim == 0:
            if not self._is_flat:
                raise RequestError(f"{self._what}a batch has an axis of rows, this one is a scalar: for rows, say batched=False")
            block = block.reshape(1)
        name = self._kind(block.dtype)
        if not self.is_started:
            self._dtype, self._row_shape = self._dtype or name, block.shape[1:]
            self.start()
        if not self._is_flat and block.shape[1:] != self._row_shape:
            found, before = list(block.shape[1:]), list(self._row_shape)
            raise RequestError(f"{self._what}row {self._rows} has the shape {found}, the expected shape is {before}{self._column.advice}")
        if name != self._dtype and (not _is_number(name) or not _is_number(self._dtype) or not _fits(block.dtype, self._dtype)):
            raise RequestError(f"{self._what}row {self._row()} is {name}, the expected dtype is {self._dtype}")
        if self._spool is not None:
            written = self._spool.append(block)
        else:
            self._append(block, name)
            written = block.nbytes
        self._rows, self._elements = self._rows + len(block), self._elements + block.size
        return written

    def _append(self, block: np.ndarray, name: str) -> None:
        block = np.ascontiguousarray(block, block.dtype.newbyteorder("="))
        form = self._storing.form
        # Large integers are not exact as floats, though NumPy calls that cast safe.
        strict = form["strict"] or form["dtype"] is None and name != self._dtype
        try:
            self._writer.append(as_bytes(block), name, strict, len(block))
        except LossyError as error:
            # The engine counts from the start of the block.
            place = self._elements + error.index[0]
            index = [int(at) for at in np.unravel_index(place, (place + 1, *self._row_shape))] if self._row_shape else [place]
            text = str(error).replace(f"[{error.index[0]}] of the elements of this block", f"{index}")
            error.index, error.args = index, (self._what + text,)
            raise

    def _kind(self, dtype: np.dtype) -> str | np.dtype:
        if dtype.kind in "SU" and self._dtype in (None, "string"):
            return "string"
        if isinstance(self._dtype, str) and self._dtype != "string" and dtype == numpy_dtype(self._dtype):
            # Also types that NumPy has no name for, such as bfloat16 without ml_dtypes.
            return self._dtype
        return kind(dtype)

    def _row(self) -> int:
        return self._elements // max(1, _product(self._row_shape)) if self._is_flat else self._rows

    def complete(self) -> None:
        """Writes what is held in memory."""
        if not self.is_started:
            raise RequestError(f"{self._what}there is no element, so the shape of the array is not known")
        if self._writer is not None:
            self._shape = self._writer.finish()
            return
        per_row = _product(self._row_shape)
        rows = self._elements // per_row if self._is_flat and per_row else self._rows
        if self._column.rows not in (None, rows):
            raise RequestError(f"{self._what}{rows} of {self._column.rows} rows were handed out", code="rows-missing")
        self._shape = [rows, *self._row_shape]

    def reports(self) -> _Made:
        storing = self._storing
        if self._spool is not None:
            return storing.of_spool(self._spool, tuple(self._shape), self._path, storing.rows)
        if storing.needs_engine:
            array = load(self._written, dtype=self._dtype)
            return storing.whole(Whole(np.asarray(array), self._dtype), self._path)
        written = numpy_dtype(self._written_dtype)
        report = {"path": self._path, "dtype": self._written_dtype, "source_dtype": self._dtype, "descr": written.str, "shape": self._shape}
        return [("", {**report, "nbytes": _product(self._shape) * written.itemsize, "fortran_order": False, "verified": "not"})]

    def close(self) -> None:
        self._open.close()


def _product(lengths: Any) -> int:
    return int(np.prod(lengths, dtype=object))


def _is_number(name: Any) -> bool:
    return isinstance(name, str) and name != "string"


def _fits(dtype: np.dtype, name: str) -> bool:
    """Whether every element of one dtype is one of the other."""
    return np.can_cast(dtype, numpy_dtype(name), "safe")


class _Spool:
    """Elements in a temporary file, until all are known."""

    format: str

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: BinaryIO = open(path, "wb")

    def append(self, block: np.ndarray) -> int:
        """Writes elements; returns their bytes."""
        raise NotImplementedError

    def finish(self, shape: tuple[int, ...]) -> None:
        """Completes the file."""
        raise NotImplementedError

    def close(self) -> None:
        self._file.close()


def _spool(path: str, kind: str | np.dtype) -> _Spool:
    return _ElementSpool(path, kind) if isinstance(kind, np.dtype) else _StringSpool(path)


class _ElementSpool(_Spool):
    """Elements as they are, in a `.npy` whose header is written at the end."""

    format = "npy"

    def __init__(self, path: str, dtype: np.dtype) -> None:
        super().__init__(path)
        # h5py's notes on a dtype are left out.
        self._descr = dtype.str if dtype.names is None else dtype.descr
        self._room = -(-(len(repr(self._descr)) + 1024) // 64) * 64
        self._file.seek(self._room)

    def append(self, block: np.ndarray) -> int:
        return self._file.write(block.tobytes())

    def finish(self, shape: tuple[int, ...]) -> None:
        start = b"\x93NUMPY\x02\x00" + struct.pack("<I", self._room - 12)
        header = repr({"descr": self._descr, "fortran_order": False, "shape": tuple(shape)}).encode()
        self._file.truncate(max(self._room, self._file.tell()))
        self._file.seek(0)
        self._file.write(start + header.ljust(self._room - len(start) - 1) + b"\n")
        self._file.close()


class _StringSpool(_Spool):
    """Strings in a serialized TensorProto (tensorflow/core/framework/tensor.proto).

    Its dtype is field 1, tensor_shape field 2, string_val field 8. Fields may have any order, so the shape can follow the strings.
    """

    format = "tensor-proto"

    def append(self, block: np.ndarray) -> int:
        flat, written = block.reshape(-1), 0
        for start in range(0, flat.size, _STRINGS_AT_A_TIME):
            for element in flat[start : start + _STRINGS_AT_A_TIME].tolist():
                text = element.encode() if isinstance(element, str) else element
                if not isinstance(text, bytes):
                    raise UnsupportedError(f"an element of the array is {type(element).__name__}: an array of objects holds str or bytes")
                self._file.write(b"\x42" + _varint(len(text)) + text)
                written += len(text)
        return written

    def finish(self, shape: tuple[int, ...]) -> None:
        dims = b""
        for length in shape:
            size = b"\x08" + _varint(length)
            dims += b"\x12" + _varint(len(size)) + size
        self._file.write(b"\x08\x07\x12" + _varint(len(dims)) + dims)
        self._file.close()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
