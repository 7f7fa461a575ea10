""":class:`ArrayWriter`: arrays of rows that a program makes."""

from __future__ import annotations

import math
import operator
import os
from typing import Any

import numpy as np

from . import _core
from .dtypes import as_bytes, dtype_name, numpy_dtype
from .errors import RequestError
from .results import Array, Report, mapped


class ArrayWriter:
    """Writes a ``.npy`` of any size, row by row, in bounded memory.

    The file gets its name when everything is complete and on disk. If the ``with`` block ends with an exception, nothing is left.

    Parameters
    ----------
    path : path
        The ``.npy`` file.
    dtype : dtype
        The type of elements: of NumPy, TensorFlow or ml_dtypes, or its name.
    shape : tuple
        The shape of the array. The first length is the number of rows, or ``None`` if it is not known.
    memory : int or str, optional
        The most memory to use: bytes, or ``"64MiB"``. Default: a quarter of what is available, at most 1 GiB.
    overwrite : bool
        Replace an existing file, in one step once the new one is complete.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is not set.
    LimitError
        If memory or disk space do not suffice.

    Examples
    --------
    >>> import mmconvert as mm, numpy as np, tempfile
    >>> path = tempfile.mkdtemp() + "/video.npy"
    >>> with mm.ArrayWriter(path, dtype="uint8", shape=(None, 4, 6, 3)) as w:
    ...     w.append(np.zeros((2, 4, 6, 3), np.uint8))
    ...     w.append(np.ones((4, 6, 3), np.uint8))
    >>> w.result.shape
    (3, 4, 6, 3)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        dtype: Any,
        shape: tuple[int | None, ...] | int | None,
        *,
        memory: int | str | None = None,
        overwrite: bool = False,
    ) -> None:
        lengths = shape if isinstance(shape, (tuple, list)) else (shape,)
        if not lengths:
            raise RequestError("an array of no axes has no rows to write: use numpy.save")
        if any(length is None for length in lengths[1:]):
            raise RequestError(f"shape {tuple(lengths)}: only the first length may be None, the number of rows")
        self._name = dtype_name(dtype)
        self._path = os.fspath(path)
        self._rows = None if lengths[0] is None else operator.index(lengths[0])
        self._row_shape = tuple(operator.index(length) for length in lengths[1:] if length is not None)
        for length in (self._rows or 0, *self._row_shape):
            if length < 0:
                raise RequestError(f"shape {tuple(lengths)}: a length is negative")
        self._writer = _core.Writer(self._path, self._name, list(self._row_shape), self._rows, memory, overwrite)
        self._result: Array | None = None

    @property
    def dtype(self) -> np.dtype:
        """The type of elements."""
        return numpy_dtype(self._name)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape; the first length is ``None`` while the number of rows is not known."""
        if self._result is not None:
            return self._result.shape
        return (self._rows, *self._row_shape)

    @property
    def ndim(self) -> int:
        return 1 + len(self._row_shape)

    @property
    def result(self) -> Array:
        """The finished array, mapped for reading."""
        if self._result is None:
            raise RequestError("the array is not finished: leave the with block, or call finish()")
        return self._result

    def append(self, rows: Any) -> None:
        """Append rows, or a single one, after those appended before.

        Parameters
        ----------
        rows : array-like
            Shape ``[n, row shape…]`` or ``[row shape…]``. An array of another dtype must be castable without loss.

        Raises
        ------
        RequestError
            For rows of another shape, or more than the array has.
        """
        block, name = self._block(rows)
        if block.shape == self._row_shape:
            block = block[np.newaxis]
        if block.shape[1:] != self._row_shape:
            raise RequestError(f"rows of shape {list(self._row_shape)} are expected, these have {list(np.shape(rows))}")
        self._writer.append(as_bytes(block), name, True, len(block))

    def __setitem__(self, key: Any, rows: Any) -> None:
        """Write rows at their place: ``w[100:200] = block``. Any order, from any number of threads; every row once."""
        start, stop = self._range(key)
        block, name = self._block(rows)
        if block.shape == self._row_shape and stop == start + 1:
            block = block[np.newaxis]
        if block.shape != (stop - start, *self._row_shape):
            raise RequestError(
                f"rows {start}:{stop} have the shape {[stop - start, *self._row_shape]}, what is assigned has {list(np.shape(rows))}"
            )
        self._writer.write(start, stop, as_bytes(block), name, True)

    def _range(self, key: Any) -> tuple[int, int]:
        keys = key if isinstance(key, tuple) else (key,)
        for axis, others in enumerate(keys[1:], start=1):
            length = self._row_shape[axis - 1] if axis <= len(self._row_shape) else 0
            if others is not Ellipsis and not (isinstance(others, slice) and others.indices(length) == (0, length, 1)):
                raise RequestError(f"whole rows are written, not parts of axis {axis}; of a dask array, rechunk({{{axis}: -1}}) makes whole rows")
        rows = keys[0] if keys else Ellipsis
        if rows is Ellipsis:
            rows = slice(None)
        if not isinstance(rows, slice):
            row = operator.index(rows)
            if row < 0 and self._rows is not None:
                row += self._rows
            if row < 0:
                raise IndexError(f"row {row} of an array whose number of rows is not known")
            return row, row + 1
        if rows.step not in (None, 1):
            raise RequestError("rows are written in runs: the step of the slice is 1")
        if self._rows is not None:
            start, stop, _ = rows.indices(self._rows)
            # A slice that reaches behind the end would lose rows.
            if rows.stop is not None and rows.stop > self._rows:
                stop = rows.stop
            return start, max(start, stop)
        if rows.stop is None or rows.stop < 0 or (rows.start or 0) < 0:
            raise RequestError("the number of rows is not known: give both ends of the slice")
        return rows.start or 0, max(rows.start or 0, rows.stop)

    def _block(self, rows: Any) -> tuple[np.ndarray, str]:
        """The rows as a contiguous array, and the name of its dtype. Casts that could change values are refused."""
        wanted = self.dtype
        block = np.asarray(rows)
        if block.dtype == wanted or (block.dtype.kind == "V" and wanted.kind == "V"):
            return np.ascontiguousarray(block).reshape(block.shape), self._name
        name = dtype_name(block.dtype)
        if name != self._name and isinstance(rows, np.ndarray | np.generic) and not np.can_cast(block.dtype, wanted, "safe"):
            raise RequestError(f"the array is {self._name}, these rows are {name}: convert them with .astype({self._name!r})")
        block = np.ascontiguousarray(block, block.dtype.newbyteorder("=")).reshape(block.shape)
        return block, name

    def finish(self) -> Array:
        """Complete the array and give it its name. Returns it, mapped for reading.

        Raises
        ------
        RequestError
            If rows are missing.
        """
        if self._result is None:
            shape = tuple(self._writer.finish())
            nbytes = math.prod(shape) * self.dtype.itemsize
            report = Report(path=self._path, dtype=self._name, source_dtype=self._name, shape=shape, nbytes=nbytes, descr=self.dtype.str)
            self._result = mapped(report)
            self._result.report = report
        return self._result

    close = finish

    def discard(self) -> None:
        """Give up. Nothing is left behind."""
        self._writer.discard()

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.finish()
        else:
            self.discard()

    def __repr__(self) -> str:
        state = "finished" if self._result is not None else "open" if self._writer.is_open else "discarded"
        return f"<ArrayWriter {self._path} {self._name} {list(self.shape)} {state}>"
