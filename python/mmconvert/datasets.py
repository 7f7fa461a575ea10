"""Data sets of tf.data: one array for each component of their elements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .dtypes import dtype_name
from .errors import RequestError, UnsupportedError
from .objects import Column, Stream, module

if TYPE_CHECKING:
    from .objects import Choices, Item

#: Transformations that hand on what they get.
_HAND_ON = ("Prefetch", "Options", "Cache", "Memory", "Take", "Skip", "Shuffle", "Repeat", "Model", "Shard", "Rebatch", "Snapshot", "Save", "AssertCardinality", "IgnoreErrors", "Filter", "TakeWhile")


def items(dataset: Any, block_bytes: int, choices: Choices) -> list[tuple[str, Item]]:
    """All components of a data set, which is iterated over once."""
    tf = module("tensorflow")
    cardinality = int(dataset.cardinality())
    if cardinality == tf.data.INFINITE_CARDINALITY:
        raise RequestError("the data set has no end: choose elements with dataset.take(n)", code="endless")
    specs = _flat(tf, dataset.element_spec)
    batched = choices.batched if choices.batched is not None else _is_batched(dataset)
    if choices.shape is not None:
        raise RequestError("a data set has shapes of its own: leave out shape")
    rows = cardinality if cardinality >= 0 and not batched else None
    columns: dict[str, Column] = {}
    for name, spec in specs.items():
        columns.update(_columns(tf, name, spec, batched, rows))
    if batched:
        elements = dataset.prefetch(2)
    else:
        count = _rows_at_a_time(tf, specs.values(), block_bytes)
        # Elements whose shape is not known cannot be batched, unless all turn out to be alike.
        elements = dataset.batch(count).prefetch(2) if count else dataset.prefetch(16).batch(1)
    dense_shapes: dict[str, np.ndarray] = {}

    def blocks() -> Iterator[dict[str, Any]]:
        written: dict[str, int] = {}
        for element in elements:
            yield {
                name: part
                for component, value in _flat(tf, element).items()
                for name, part in _parts(tf, component, value, written, dense_shapes)
            }

    return [("", Stream(columns, blocks, last=lambda: dense_shapes))]


def _flat(tf: Any, structure: Any, name: str = "") -> dict[str, Any]:
    """Components by the way to them; dictionaries and tuples nest."""
    below = f"{name}/" if name else ""
    if isinstance(structure, dict):
        return {inner: part for key, value in structure.items() for inner, part in _flat(tf, value, f"{below}{key}").items()}
    if isinstance(structure, (tuple, list)) and not isinstance(structure, tf.TensorShape):
        fields = getattr(structure, "_fields", None) or map(str, range(len(structure)))
        return {inner: part for key, value in zip(fields, structure) for inner, part in _flat(tf, value, f"{below}{key}").items()}
    return {name: structure}


def _is_batched(dataset: Any) -> bool:
    """Whether elements are batches: the last transformation that is not only handing on makes batches."""
    while True:
        name = type(dataset).__name__.lstrip("_")
        if "Batch" in name and "Unbatch" not in name and not name.startswith("Rebatch"):
            return True
        if not name.startswith(_HAND_ON) or not hasattr(dataset, "_input_dataset"):
            return False
        dataset = dataset._input_dataset


def _rows_at_a_time(tf: Any, specs: Any, block_bytes: int) -> int | None:
    """Rows of a block; ``None`` if shapes are not known."""
    row_bytes = 0
    for spec in specs:
        if isinstance(spec, (tf.RaggedTensorSpec, tf.SparseTensorSpec)):
            row_bytes += 1024
            continue
        if not isinstance(spec, tf.TensorSpec):
            continue
        if not spec.shape.is_fully_defined():
            return None
        itemsize = spec.dtype.size or 64
        row_bytes += spec.shape.num_elements() * itemsize
    return max(1, min(65536, block_bytes // 4 // max(1, row_bytes)))


def _columns(tf: Any, name: str, spec: Any, batched: bool, rows: int | None) -> dict[str, Column]:
    below = f"{name}/" if name else ""
    if isinstance(spec, tf.RaggedTensorSpec):
        rank = spec.ragged_rank - (1 if batched else 0)
        if batched and spec.ragged_rank != 1 or not batched and rank != 0 and spec.ragged_rank != 1:
            raise UnsupportedError(f"component {name!r} is ragged along several axes: convert its flat_values and row_splits as components")
        splits = None if rows is None else rows + 1
        return {f"{below}flat_values": Column(dtype_name(spec.dtype), None, None), f"{below}row_splits": Column("int64", (), splits)}
    if isinstance(spec, tf.SparseTensorSpec):
        return {
            f"{below}indices": Column("int64", None, None),
            f"{below}values": Column(dtype_name(spec.dtype), (), None),
            f"{below}dense_shape": Column("int64", (), None),
        }
    if not isinstance(spec, tf.TensorSpec):
        raise UnsupportedError(f"component {name!r} is {type(spec).__name__}, which no array can hold: map it to tensors first")
    shape = spec.shape[1:] if batched else spec.shape
    row_shape = tuple(shape.as_list()) if shape.rank is not None and shape.is_fully_defined() else None
    return {name: Column(dtype_name(spec.dtype), row_shape, rows)}


def _parts(tf: Any, name: str, value: Any, written: dict[str, int], dense_shapes: dict[str, np.ndarray]) -> Iterator[tuple[str, Any]]:
    """The arrays that a batch of a component adds to. ``written`` counts the rows and values before it."""
    below = f"{name}/" if name else ""
    if isinstance(value, tf.RaggedTensor):
        values, splits = np.asarray(value.flat_values), np.asarray(value.row_splits, dtype=np.int64)
        start = written.get(name, 0)
        yield f"{below}flat_values", values
        # The first batch starts with the 0 before its first row.
        yield f"{below}row_splits", (splits if name not in written else splits[1:]) + start
        written[name] = start + int(splits[-1])
    elif isinstance(value, tf.SparseTensor):
        rows, indices = written.get(name, 0), np.array(value.indices)
        indices[:, 0] += rows
        written[name] = rows + int(value.dense_shape[0])
        yield f"{below}indices", indices
        yield f"{below}values", np.asarray(value.values)
        shape = np.array(value.dense_shape)
        before = dense_shapes.get(f"{below}dense_shape", shape)
        dense_shapes[f"{below}dense_shape"] = np.concatenate([[written[name]], np.maximum(before[1:], shape[1:])])
    else:
        yield name, np.asarray(value)
