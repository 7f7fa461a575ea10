"""Data sets of tf.data: one array for each component of their elements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import RequestError, UnsupportedError
from .objects import Column, Stream, module, tf_name

if TYPE_CHECKING:
    from .objects import Choices, Item

#: Transformations whose elements are batches if those of all their inputs are.
_HAND_ON = frozenset(
    "AssertCardinality Cache Concatenate CopyToDevice Filter IgnoreErrors Model Options Prefetch Repeat Save Shard Shuffle Skip Snapshot "
    "Take TakeWhile Zip".split()
)
#: Transformations that make an element of each element. It is a batch if it has as many rows.
_MAPS = frozenset(["Map", "ParallelMap", "Scan", "ParallelScan"])


def items(dataset: Any, block_bytes: int, choices: Choices) -> list[tuple[str, Item]]:
    """All components of a data set, which is iterated over once."""
    tf = module("tensorflow")
    if not tf.executing_eagerly():
        raise UnsupportedError("a data set in a graph has no elements yet: pass the tensors of its iterator's get_next(), and session=")
    cardinality = int(dataset.cardinality())
    if cardinality == tf.data.INFINITE_CARDINALITY:
        raise RequestError("the data set has no end: choose elements with dataset.take(n)", code="endless")
    if choices.shape is not None:
        raise RequestError("a data set has shapes of its own: leave out shape")
    choices.applied.add("batched")
    batched = choices.batched if choices.batched is not None else _is_batched(tf, dataset)
    rows = cardinality if cardinality >= 0 and not batched else None
    components: dict[str, _Component] = {}
    for name, spec in _flat(dataset.element_spec).items():
        try:
            components[name] = _component(tf, name, spec, batched, rows)
        except UnsupportedError as error:
            choices.skipped[name] = str(error)
    if not components:
        return []
    if any(len(component.columns) > 1 for component in components.values()):
        choices.refuse_rows("convert dataset.unbatch().skip(start).take(count)" if batched else "convert dataset.skip(start).take(count)")

    def blocks() -> Iterator[dict[str, Any]]:
        first = {name: part for component in components.values() for name, part in component.first().items()}
        if first:
            yield first
        for element in _batches(tf, dataset, batched, block_bytes):
            flat = _flat(element)
            yield {inner: part for name, component in components.items() for inner, part in component.parts(flat[name]).items()}

    def last() -> dict[str, Any]:
        return {name: part for component in components.values() for name, part in component.last().items()}

    columns = {name: column for component in components.values() for name, column in component.columns.items()}
    return [("", Stream(columns, blocks, last=last))]


def _flat(structure: Any, name: str = "") -> dict[str, Any]:
    """Components by the way to them; dictionaries and tuples nest."""
    below = f"{name}/" if name else ""
    if isinstance(structure, Mapping):
        named = structure.items()
    elif isinstance(structure, (tuple, list)):
        named = zip(getattr(structure, "_fields", None) or map(str, range(len(structure))), structure)
    else:
        return {name: structure}
    return {inner: part for key, value in named for inner, part in _flat(value, f"{below}{key}").items()}


def _is_batched(tf: Any, dataset: Any) -> bool:
    """Whether elements are batches, by the transformations that made them."""
    name = type(dataset).__name__.strip("_").removesuffix("Dataset")
    if "batch" in name.lower():
        return name != "Unbatch"
    inputs = dataset._inputs()
    if name == "DirectedInterleave":
        # The first one says whose turn it is.
        inputs = inputs[1:]
    elif name not in _HAND_ON and name not in _MAPS:
        return False
    if not inputs or not all(_is_batched(tf, each) for each in inputs):
        return False
    if name not in _MAPS:
        return True
    given, made = (_lengths(tf, each.element_spec) for each in (inputs[0], dataset))
    if "unknown" in made:
        raise RequestError("whether the elements are batches cannot be told after this map(): say batched=True or batched=False")
    return made <= given


def _lengths(tf: Any, spec: Any) -> set[Any]:
    """The lengths of axis 0: numbers, ``None`` for one that varies, ``"no axis"`` for scalars."""
    shapes = [tf.TensorShape(component.shape) for component in _flat(spec).values() if hasattr(component, "shape")]
    return {"unknown" if shape.rank is None else "no axis" if not shape.rank else shape[0] for shape in shapes}


def _batches(tf: Any, dataset: Any, batched: bool, block_bytes: int) -> Any:
    """The elements as batches of about a quarter of a block: that many are ready or being made at a time."""
    if batched:
        return dataset.prefetch(2)
    row_bytes = 0
    for spec in _flat(dataset.element_spec).values():
        if isinstance(spec, tf.TensorSpec):
            if not spec.shape.is_fully_defined():
                # Elements of different shapes make no batch. Those that turn out to be alike need not make one.
                return dataset.batch(1).prefetch(2)
            row_bytes += spec.shape.num_elements() * (spec.dtype.size or 64)
        elif isinstance(spec, (tf.RaggedTensorSpec, tf.SparseTensorSpec)):
            row_bytes += 1024
    return dataset.batch(max(1, min(1 << 16, block_bytes // 4 // max(1, row_bytes)))).prefetch(2)


def _component(tf: Any, name: str, spec: Any, batched: bool, rows: int | None) -> _Component:
    if isinstance(spec, tf.RaggedTensorSpec):
        depth = spec.ragged_rank + (not batched)
        if depth:
            return _Ragged(name, spec, depth, rows)
    elif isinstance(spec, tf.SparseTensorSpec):
        return _Sparse(name, spec, batched)
    elif not isinstance(spec, tf.TensorSpec):
        raise UnsupportedError(f"the component is {type(spec).__name__}, which no array can hold: map it to tensors first")
    return _Dense(name, spec, batched, rows)


class _Component:
    """A component of all elements, and the arrays that it becomes."""

    columns: dict[str, Column]

    def first(self) -> dict[str, Any]:
        """What precedes all elements."""
        return {}

    def parts(self, value: Any) -> dict[str, Any]:
        """What a batch adds to the arrays."""
        raise NotImplementedError

    def last(self) -> dict[str, Any]:
        """What is known only after all elements."""
        return {}


class _Dense(_Component):
    def __init__(self, name: str, spec: Any, batched: bool, rows: int | None) -> None:
        shape = spec.shape[1:] if batched else spec.shape
        row_shape = tuple(shape.as_list()) if shape.rank is not None and shape.is_fully_defined() else None
        advice = ": pad rows to one shape with padded_batch" + ("" if batched else ", or say batched=True if elements are batches")
        self._name = name
        self.columns = {name: Column(tf_name(spec.dtype), row_shape, rows, advice)}

    def parts(self, value: Any) -> dict[str, Any]:
        return {self._name: np.asarray(value)}


class _Ragged(_Component):
    """All values in one array, and for each ragged axis where its rows start, named as in TensorFlow."""

    def __init__(self, name: str, spec: Any, depth: int, rows: int | None) -> None:
        below = f"{name}/" if name else ""
        inner = spec.shape[spec.ragged_rank + 1 :]
        row_shape = tuple(inner.as_list()) if inner.rank is not None and inner.is_fully_defined() else None
        self._values = f"{below}flat_values"
        self._splits = [f"{below}row_splits"] if depth == 1 else [f"{below}row_splits_{axis}" for axis in range(depth)]
        #: The last split of every axis so far.
        self._ends = [0] * depth
        self.columns = {self._values: Column(tf_name(spec.dtype), row_shape, None)}
        self.columns |= {split: Column("int64", (), None) for split in self._splits}
        if rows is not None:
            self.columns[self._splits[0]].rows = rows + 1

    def first(self) -> dict[str, Any]:
        return {split: np.zeros(1, np.int64) for split in self._splits}

    def parts(self, value: Any) -> dict[str, Any]:
        parts = {self._values: np.asarray(value.flat_values)}
        for axis, (name, splits) in enumerate(zip(self._splits, value.nested_row_splits)):
            parts[name] = np.asarray(splits, np.int64)[1:] + self._ends[axis]
            self._ends[axis] += int(splits[-1])
        return parts


class _Sparse(_Component):
    """The indices and values of all rows, and the shape of the whole."""

    def __init__(self, name: str, spec: Any, batched: bool) -> None:
        below = f"{name}/" if name else ""
        rank = None if spec.shape.rank is None else spec.shape.rank + (not batched)
        self._names = [f"{below}{part}" for part in ("indices", "values", "dense_shape")]
        # Lengths that vary are the longest; there are none of them yet.
        self._shape = None if rank is None else np.array([0, *(length or 0 for length in spec.shape[1 if batched else 0 :])], np.int64)
        indices, values, dense_shape = self._names
        self.columns = {
            indices: Column("int64", None if rank is None else (rank,), None),
            values: Column(tf_name(spec.dtype), (), None),
            dense_shape: Column("int64", (), rank),
        }

    def parts(self, value: Any) -> dict[str, Any]:
        shape, indices = np.asarray(value.dense_shape), np.array(value.indices)
        before = np.zeros_like(shape) if self._shape is None else self._shape
        indices[:, 0] += before[0]
        self._shape = np.array([before[0] + shape[0], *np.maximum(before[1:], shape[1:])], np.int64)
        return dict(zip(self._names, (indices, np.asarray(value.values))))

    def last(self) -> dict[str, Any]:
        return {} if self._shape is None else {self._names[2]: self._shape}
