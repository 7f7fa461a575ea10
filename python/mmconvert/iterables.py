"""Rows and batches that an iterable hands out: arrays, or dictionaries and tuples of them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import RequestError, UnsupportedError

if TYPE_CHECKING:
    from .objects import Choices, Item


def items(obj: Iterable[Any], block_bytes: int, choices: Choices) -> list[tuple[str, Item]]:
    """One array, or one for each part of what the iterable hands out. Its length, if it has one, is the number of rows."""
    from .objects import Column, Stream

    choices.applied |= {"batched", "shape"}
    if choices.batched is None:
        choices = replace(choices, batched=_says_batched(obj))
    iterator = iter(obj) if hasattr(obj, "__iter__") else (obj[number] for number in range(len(obj)))
    try:
        first = next(iterator)
    except StopIteration:
        if choices.shape is not None:
            raise RequestError("the iterable hands out nothing, so the dtype is not known: use an ArrayWriter") from None
        raise RequestError("the iterable hands out nothing, so there is no array to write") from None
    parts = flat(first)
    batched = choices.batched
    if choices.shape is not None:
        if list(parts) != [""]:
            raise RequestError("shape is for an iterable that makes one array; this one makes several")
        batched = _is_batch(parts[""], choices.shape, batched)
    rows = None
    if choices.shape is not None and choices.shape[0] is not None:
        rows = operator.index(choices.shape[0])
    elif not batched and hasattr(obj, "__len__"):
        rows = len(obj)  # type: ignore[arg-type]
    columns = {name: Column(None, None, rows) for name in parts}

    def blocks() -> Iterator[dict[str, Any]]:
        yield from gathered(_chained(parts, iterator, set(parts)), bool(batched), block_bytes)

    return [("", Stream(columns, blocks))]


def _says_batched(obj: Any) -> bool | None:
    """Whether an object is known to hand out batches, if it says so."""
    from .objects import KERAS, module

    loader = getattr(module("torch.utils.data"), "DataLoader", None)
    if loader is not None and isinstance(obj, loader):
        return obj.batch_size is not None or obj.batch_sampler is not None
    keras = [getattr(getattr(module(name), "utils", None), "PyDataset", ()) for name in KERAS]
    return True if isinstance(obj, tuple(filter(None, keras))) else None


def _is_batch(part: np.ndarray, shape: tuple[int | None, ...], said: bool | None) -> bool:
    """Whether an item has an axis of rows, by the shape that the array is to have."""
    wanted = list(shape[1:])
    found = list(part.shape)
    if found == wanted and not said:
        return False
    if found[1:] == wanted and len(found) == len(shape) and said is not False:
        return True
    raise RequestError(f"an array of shape {list(shape)} has rows of shape {wanted}; the first item has {found}")


def _chained(first: dict[str, np.ndarray], rest: Iterator[Any], names: set[str]) -> Iterator[dict[str, np.ndarray]]:
    yield first
    for number, item in enumerate(rest, start=1):
        parts = flat(item)
        if set(parts) != names:
            raise RequestError(f"item {number} has the parts {sorted(parts)}, the first has {sorted(names)}")
        yield parts


def flat(item: Any, name: str = "") -> dict[str, np.ndarray]:
    """The arrays in a nested structure, by the way to them."""
    below = f"{name}/" if name else ""
    if isinstance(item, Mapping):
        return {inner: part for key, value in item.items() for inner, part in flat(value, f"{below}{key}").items()}
    if isinstance(item, tuple) or isinstance(item, list) and any(getattr(part, "ndim", 0) for part in item):
        fields = getattr(item, "_fields", None) or map(str, range(len(item)))
        return {inner: part for key, value in zip(fields, item) for inner, part in flat(value, f"{below}{key}").items()}
    return {name: host_array(item)}


def host_array(value: Any) -> np.ndarray:
    """The array of a row or a batch, with a dtype that says what the bits are. Strings are objects."""
    from .dtypes import numpy_dtype
    from .objects import Choices, Stream, items as items_of, unmasked

    if isinstance(value, (str, bytes)):
        return np.asarray(value, object)
    if isinstance(value, (np.ndarray, np.generic)):
        array = unmasked(value)
    elif isinstance(value, list):
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise RequestError(f"a list is no array: {error}") from None
    else:
        found = list(items_of(value, 1 << 62, Choices()))
        if len(found) != 1:
            raise UnsupportedError(f"{type(value).__module__}.{type(value).__qualname__} has several arrays: hand out a dictionary of them")
        item = found[0][1]
        if isinstance(item, Stream):
            array = np.concatenate([block[""] for block in item.blocks()])
        else:
            array = item.array if item.dtype is None else item.array.view(numpy_dtype(item.dtype))
    # Strings of NumPy have the length of the longest, which may differ from row to row.
    return array.astype(object) if array.dtype.kind in "SUT" else array


def gathered(parts: Iterable[dict[str, np.ndarray]], batched: bool, block_bytes: int) -> Iterator[dict[str, Any]]:
    """Blocks of about ``block_bytes``. Rows are copied into a buffer, so whoever makes them may use their memory again."""
    if batched:
        yield from parts
        return
    buffers: dict[str, np.ndarray] = {}
    count = room = 0
    for number, row in enumerate(parts):
        if not buffers:
            row_bytes = sum(part.nbytes if part.dtype != object else 256 for part in row.values())
            room = max(1, min(65536, block_bytes // 4 // max(1, row_bytes)))
            buffers = {name: np.empty((room, *part.shape), part.dtype) for name, part in row.items()}
        for name, part in row.items():
            buffer = buffers[name]
            where = f"{name}: " if name else ""
            if part.shape != buffer.shape[1:]:
                advice = "; if they are batches, say batched=True"
                raise RequestError(f"{where}row {number} has the shape {list(part.shape)}, the first has {list(buffer.shape[1:])}{advice}")
            if part.dtype != buffer.dtype and not _fits(part, buffer.dtype):
                raise RequestError(f"{where}row {number} is {_dtype_text(part.dtype)}, the first is {_dtype_text(buffer.dtype)}")
            if room > 1:
                buffer[count, ...] = part
        if room == 1:
            # Large rows need no copy: they are written before the next one is made.
            yield {name: part[np.newaxis] for name, part in row.items()}
            continue
        count += 1
        if count == room:
            yield buffers
            count = 0
    if count:
        yield {name: buffer[:count] for name, buffer in buffers.items()}


def _fits(part: np.ndarray, dtype: np.dtype) -> bool:
    """Whether a cast changes no value. NumPy calls casts of large integers to floats safe, which are not."""
    if "O" in (part.dtype.kind, dtype.kind) or not np.can_cast(part.dtype, dtype, "safe"):
        return False
    if part.dtype.kind not in "iu" or dtype.kind not in "fc":
        return True
    with np.errstate(invalid="ignore"):
        return np.array_equal(part.astype(dtype).real.astype(part.dtype), part)


def _dtype_text(dtype: np.dtype) -> str:
    return "string" if dtype == object else str(dtype)
