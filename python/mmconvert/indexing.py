"""``tensor[...]``: NumPy's indexing, reading as few rows as it needs."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from .dtypes import as_bytes

if TYPE_CHECKING:
    from .sources import Tensor


def get(tensor: Tensor, key: Any) -> Any:
    """What ``numpy.asarray(tensor)[key]`` gives. Rows that axis 0 leaves out are not read."""
    keys = key if isinstance(key, tuple) else (key,)
    if not keys or keys[0] is Ellipsis or keys[0] is None or isinstance(keys[0], (bool, np.bool_)):
        # All rows are needed.
        return tensor.read()[key]
    first, others = keys[0], keys[1:]
    if isinstance(first, slice):
        return _slice(tensor, first, others)
    if not hasattr(first, "__index__") or isinstance(first, np.ndarray):
        first = np.asarray(first)
        if first.ndim or first.dtype.kind not in "iu":
            return _rows(tensor, first, others, key)
    return _row(tensor, operator.index(first), others)


def _check_axes(tensor: Tensor) -> int:
    shape = tensor.shape
    if not shape:
        raise IndexError("too many indices for array: array is 0-dimensional")
    if shape[0] is None:
        return len(tensor.read())
    return shape[0]


def _slice(tensor: Tensor, rows: slice, others: tuple) -> np.ndarray:
    if not tensor.shape:
        raise IndexError("too many indices for array: array is 0-dimensional")
    if tensor.shape[0] is None:
        # Ends that count from the end are known once all of it has been read.
        return tensor.read()[(rows, *others)]
    start, stop, step = rows.indices(tensor.shape[0])
    if step == 1:
        read = tensor.read(start, max(start, stop))
    else:
        read = take(tensor, np.arange(start, stop, step))
    return read[(slice(None), *others)] if others else read


def _row(tensor: Tensor, row: int, others: tuple) -> Any:
    count = _check_axes(tensor)
    if not -count <= row < count:
        raise IndexError(f"index {row} is out of bounds for axis 0 with size {count}")
    row %= count
    # One row that keeps its axis: a number between arrays means what it means in NumPy.
    return tensor.read(row, row + 1)[(0, *others)]


def _rows(tensor: Tensor, wanted: np.ndarray, others: tuple, key: Any) -> np.ndarray:
    if wanted.dtype == bool:
        if wanted.ndim != 1:
            return tensor.read()[key]
        count = _check_axes(tensor)
        if len(wanted) != count:
            raise IndexError(f"boolean index did not match indexed array along axis 0; size of axis is {count} but that of the mask {len(wanted)}")
        wanted = np.flatnonzero(wanted)
    if wanted.size == 0 and wanted.dtype == float:
        # An empty list.
        wanted = wanted.astype(np.intp)
    if wanted.dtype.kind not in "iu":
        raise IndexError("arrays used as indices must be of integer (or boolean) type")
    count = _check_axes(tensor)
    flat = wanted.reshape(-1)
    if flat.size and (int(flat.min()) < -count or int(flat.max()) >= count):
        wrong = int(flat.min()) if int(flat.min()) < -count else int(flat.max())
        raise IndexError(f"index {wrong} is out of bounds for axis 0 with size {count}")
    read = take(tensor, flat.astype(np.int64) % max(1, count))
    # Rows by their place among those that were read: the other axes then mean what they mean in NumPy.
    places = np.arange(flat.size).reshape(wanted.shape)
    return read[(places, *others)] if others else read.reshape(wanted.shape + read.shape[1:])


def take(tensor: Tensor, rows: np.ndarray) -> np.ndarray:
    """The rows with these numbers, in this order. None is negative or too large."""
    core = tensor._core
    core.check()
    if core.is_text or core.is_of_records or core.is_made:
        if rows.size == 0:
            return tensor.read(0, 0)
        first = int(rows.min())
        return tensor.read(first, int(rows.max()) + 1)[rows - first]
    out = np.empty((rows.size, *tensor.shape[1:]), tensor.dtype)
    if out.nbytes:
        core.read_at(np.ascontiguousarray(rows, np.uint64).view(np.uint8), as_bytes(out), None)
    return out
