"""What is in hand: objects of TensorFlow, torch, jax, dask, h5py, zarr and NumPy, and iterables, as arrays to write.

Everything becomes one of two shapes. A :class:`Whole` is an array in host memory, which the engine reads in parallel. A :class:`Stream`
hands out blocks of rows: slices of something that is elsewhere (a GPU, a file, a task graph), or what an iterator makes. Frameworks are
recognised by the modules that the caller has imported; none is imported here.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .dtypes import dtype_name, numpy_dtype
from .errors import RequestError, UnsupportedError

#: The packages that Keras is imported from.
KERAS = ("keras", "tf_keras")
#: Bytes of a block, unless the memory limit asks for smaller ones.
BLOCK_BYTES = 8 << 20


@dataclass
class Whole:
    """An array in host memory."""

    array: np.ndarray
    #: The name of the dtype, where the array has the bits of one that it does not know.
    dtype: str | None = None


@dataclass
class Column:
    """One of the arrays that a stream makes."""

    #: The name of the dtype; a NumPy dtype for elements that are copied as they are (dates, records); ``None`` to take that of the first
    #: block.
    dtype: str | np.dtype | None
    #: The shape of a row; ``None`` to take that of the first block.
    row_shape: tuple[int, ...] | None
    #: The number of rows, if it is known.
    rows: int | None
    #: What to do about rows of different shapes.
    advice: str = ""


@dataclass
class Stream:
    """Blocks of rows for one array or several.

    A block is a dictionary of arrays with a leading axis of rows; or, if ``is_flat``, runs of elements in C order that need not end with
    a row, for rows that are larger than the memory.
    """

    columns: dict[str, Column]
    blocks: Callable[[], Iterator[dict[str, Any]]]
    is_flat: bool = False
    #: Called with everything that has been written, for arrays that are known only then.
    last: Callable[[], dict[str, Any]] = field(default=dict)
    #: The same with the rows from the first number to the second only (``None`` for all that follow), where that is cheaper than to drop
    #: the others.
    cut: Callable[[int, int | None], Stream] | None = None


Item = Whole | Stream


def module(name: str) -> Any:
    """A module that the caller has imported, or ``None``."""
    return sys.modules.get(name)


def items(obj: Any, block_bytes: int, choices: Choices) -> Iterator[tuple[str, Item]]:
    """The arrays that an object becomes, by name. The name of an only array is ``""``."""
    if isinstance(obj, (Whole, Stream)):
        yield "", obj
        return
    # A class has the methods of its objects, but no data.
    for recognise in () if isinstance(obj, type) else _RECOGNISED:
        found = recognise(obj, block_bytes, choices)
        if found is not None:
            yield from found
            return
    raise UnsupportedError(
        f"{_type_name(obj)} cannot be converted: it is no path, Source or Tensor, has no shape, dtype and slices, and no rows to iterate"
    )


@dataclass
class Choices:
    """What the caller says about an object."""

    session: Any = None
    feed_dict: Any = None
    #: Whether what an iterable or a data set hands out are batches; ``None`` to find out.
    batched: bool | None = None
    #: The shape of the array of an iterable; the first length may be ``None``.
    shape: tuple[int | None, ...] | None = None
    #: The rows that are wanted, as both ends of a slice.
    rows: tuple[int | None, int | None] | None = None
    #: What was left out, with the reason.
    skipped: dict[str, str] = field(default_factory=dict)
    #: The names of those choices that applied to something.
    applied: set[str] = field(default_factory=set)

    def check_applied(self) -> None:
        """Refuse choices that have no effect."""
        given = {"session": self.session, "batched": self.batched, "shape": self.shape}
        unused = [name for name, value in given.items() if value is not None and name not in self.applied]
        if unused:
            raise RequestError(f"{', '.join(unused)} would have no effect on this object", code="without-effect")

    def refuse_rows(self, advice: str) -> None:
        """Refuse rows of an object whose arrays do not have an element for each of its rows."""
        if self.rows is not None:
            raise RequestError(f"rows would cut each of its arrays for itself, so that they would no longer fit together: {advice}")


def _type_name(obj: Any) -> str:
    return f"{type(obj).__module__}.{type(obj).__qualname__}".removeprefix("builtins.")


# TensorFlow


def _tensorflow(obj: Any, block_bytes: int, choices: Choices) -> Iterable[tuple[str, Item]] | None:
    tf = module("tensorflow")
    if choices.session is not None:
        choices.applied.add("session")
        value = choices.session.run(obj, feed_dict=choices.feed_dict)
        return _nested("", value, block_bytes, replace(choices, session=None))
    if tf is None or not hasattr(tf, "Tensor"):
        return None
    if isinstance(obj, (tf.RaggedTensor, tf.compat.v1.ragged.RaggedTensorValue)):
        choices.refuse_rows("convert ragged[start:stop]")
        return _ragged(obj, block_bytes)
    if isinstance(obj, (tf.SparseTensor, tf.compat.v1.SparseTensorValue)):
        choices.refuse_rows("convert tf.sparse.slice(sparse, start, size)")
        return [(name, _tensor(part, block_bytes)) for name, part in _sparse_parts(obj)]
    if isinstance(obj, tf.IndexedSlices):
        raise UnsupportedError("IndexedSlices stand for a sum of rows: convert tf.convert_to_tensor(slices), or their values and indices")
    if isinstance(obj, tf.data.Dataset):
        from . import datasets

        return datasets.items(obj, block_bytes, choices)
    if isinstance(obj, tf.TensorArray):
        return [("", _tensor(obj.stack(), block_bytes))]
    if type(obj).__name__ == "ShardedVariable" and hasattr(obj, "variables"):
        return [("", _joined([variable.value() for variable in obj.variables], block_bytes))]
    if isinstance(obj, tf.Variable):
        # The value is a snapshot: later assignments do not change it.
        return [("", _tensor(obj.value(), block_bytes))]
    if isinstance(obj, tf.Tensor):
        return [("", _tensor(obj, block_bytes))]
    return None


def _is_on_host(tensor: Any) -> bool:
    device = getattr(tensor, "backing_device", None) or getattr(tensor, "device", "")
    return "CPU" in device.upper() or not device


def _tensor(tensor: Any, block_bytes: int) -> Item:
    """An eager tensor, or what a session made of one. On the host its memory is used as it is."""
    if isinstance(tensor, np.ndarray):
        return Whole(tensor)
    if not hasattr(tensor, "numpy"):
        raise UnsupportedError(f"{tensor.name} is computed by a graph: pass session=, and feed_dict= if it has inputs")
    name = tf_name(tensor.dtype)
    shape = tuple(int(length) for length in tensor.shape)
    if not shape:
        # Strings and bfloat16 have only this. Strings keep their zeros at the end as objects.
        value = tensor.numpy()
        return Whole(np.asarray(value, object if name == "string" else None))
    if _is_on_host(tensor) or name in ("int4", "uint4", "string"):
        return Whole(np.asarray(tensor))
    return sliced(tensor, shape, numpy_dtype(name), block_bytes)


def tf_name(dtype: Any) -> str:
    """The name of the type that NumPy has the elements of a tensor in. Those of quantised tensors are plain integers."""
    name = dtype.name.removeprefix("q")
    if name in ("resource", "variant"):
        raise UnsupportedError(f"a tensor of {name}s has no elements that an array could hold")
    return name


def _ragged(ragged: Any, block_bytes: int) -> list[tuple[str, Item]]:
    """The flat values, and the start of each row followed by the end of the last, for every ragged axis; as TensorFlow names them."""
    splits = ragged.nested_row_splits
    named = [("row_splits", splits[0])] if len(splits) == 1 else [(f"row_splits_{axis}", split) for axis, split in enumerate(splits)]
    return [(name, _tensor(part, block_bytes)) for name, part in [("flat_values", ragged.flat_values), *named]]


def _sparse_parts(sparse: Any) -> list[tuple[str, Any]]:
    return [("indices", sparse.indices), ("values", sparse.values), ("dense_shape", sparse.dense_shape)]


def _joined(parts: list[Any], block_bytes: int) -> Item:
    """Parts of one table, row after row."""
    found = [_tensor(part, block_bytes) for part in parts]
    if len(found) == 1:
        return found[0]
    streams = [sliced(part.array, part.array.shape, part.array.dtype, block_bytes) if isinstance(part, Whole) else part for part in found]
    ends = [0, *itertools.accumulate(stream.columns[""].rows for stream in streams)]

    def cut(start: int, stop: int | None) -> Stream:
        stop = ends[-1] if stop is None else stop
        inside = [(max(start, first), min(stop, last), first) for first, last in itertools.pairwise(ends)]
        pieces = [stream.cut(a - first, b - first) for stream, (a, b, first) in zip(streams, inside) if a < b]
        column = replace(streams[0].columns[""], rows=stop - start)
        return Stream({"": column}, lambda: (block for piece in pieces for block in piece.blocks()), is_flat=True, cut=cut)

    return cut(0, None)


def _keras(obj: Any, block_bytes: int, choices: Choices) -> Iterable[tuple[str, Item]] | None:
    """Models and layers: all weights by their paths. Variables: their value."""
    for keras in filter(None, map(module, KERAS)):
        found = _of_keras(keras, obj, block_bytes, choices)
        if found is not None:
            return found
    return None


def _of_keras(keras: Any, obj: Any, block_bytes: int, choices: Choices) -> Iterable[tuple[str, Item]] | None:
    variable = getattr(keras, "Variable", None)
    if variable is not None and isinstance(obj, variable):
        return items(obj.value, block_bytes, choices)
    layer = getattr(getattr(keras, "layers", None), "Layer", None)
    optimizer = getattr(getattr(keras, "optimizers", None), "Optimizer", None)
    if layer is not None and isinstance(obj, layer):
        variables = obj.weights
    elif optimizer is not None and isinstance(obj, optimizer):
        variables = obj.variables() if callable(obj.variables) else obj.variables
    else:
        return None
    if not variables:
        raise RequestError(f"{_type_name(obj)} has no weights: they exist once it is built, or was called")
    named: dict[str, Any] = {}
    for weight in variables:
        path = (getattr(weight, "path", None) or weight.name).removesuffix(":0")
        unique = next(name for name in itertools.chain([path], (f"{path}_{n}" for n in itertools.count(1))) if name not in named)
        named[unique] = weight
    return _mapping(named, block_bytes, choices)


# torch, jax


def _torch(obj: Any, block_bytes: int, choices: Choices) -> Iterable[tuple[str, Item]] | None:
    torch = module("torch")
    if torch is None or not hasattr(torch, "Tensor"):
        return None
    if isinstance(obj, torch.nn.Module):
        return _mapping(obj.state_dict(), block_bytes, choices)
    if not isinstance(obj, torch.Tensor):
        return None
    tensor = obj.detach()
    if tensor.is_nested:
        raise UnsupportedError("a nested torch tensor has rows of different lengths: convert its unbind(), or to_padded_tensor(value)")
    if tensor.is_meta:
        raise UnsupportedError("a torch tensor on the device meta has no data")
    if tensor.layout == torch.sparse_coo:
        choices.refuse_rows("convert its to_dense()")
        tensor = tensor.coalesce()
        shape = torch.tensor(tensor.shape)
        parts = {"indices": tensor.indices().T, "values": tensor.values(), "dense_shape": shape}
        return [(name, _torch_tensor(torch, part, block_bytes)) for name, part in parts.items()]
    if tensor.layout != torch.strided or tensor.is_quantized:
        what = f"layout {tensor.layout} and dtype {tensor.dtype}"
        raise UnsupportedError(f"a torch tensor of {what} is no array of numbers: convert its to_dense() or dequantize()")
    return [("", _torch_tensor(torch, tensor, block_bytes))]


#: Types that NumPy lacks, and what torch calls integers with the same bits.
_BITS = {"bfloat16": "int16", "float8_e5m2": "uint8", "float8_e4m3fn": "uint8", "float8_e4m3fnuz": "uint8", "float8_e5m2fnuz": "uint8"}


def _torch_tensor(torch: Any, tensor: Any, block_bytes: int) -> Item:
    name = dtype_name(tensor.dtype)
    try:
        torch.empty(0, dtype=getattr(torch, _BITS.get(name, name))).numpy()
    except TypeError:
        raise UnsupportedError(f"a torch tensor of {tensor.dtype} has no counterpart in NumPy: convert what its to(dtype) gives") from None

    def array(part: Any) -> np.ndarray:
        part = part.resolve_conj().resolve_neg()
        if name not in _BITS:
            return part.cpu().numpy()
        return part.view(getattr(torch, _BITS[name])).cpu().numpy().view(numpy_dtype(name))

    # Views that are conjugated or negated are computed, slice by slice.
    if tensor.ndim == 0 or tensor.numel() == 0 or tensor.device.type == "cpu" and not tensor.is_conj() and not tensor.is_neg():
        return Whole(array(tensor), dtype=name)
    return sliced(tensor, tuple(tensor.shape), numpy_dtype(name), block_bytes, fetch=array, name=name)


def _jax(obj: Any, block_bytes: int, choices: Choices) -> Iterable[tuple[str, Item]] | None:
    jax = module("jax")
    if jax is None or not hasattr(jax, "Array") or not isinstance(obj, jax.Array):
        return None
    if isinstance(obj, jax.core.Tracer):
        raise UnsupportedError(f"{obj} is being traced and has no values: convert what the compiled function returns")
    if not hasattr(obj.dtype, "itemsize") or str(obj.dtype).startswith("key<"):
        raise UnsupportedError(f"a jax array of {obj.dtype}: convert jax.random.key_data(key)")
    devices = obj.devices()
    if obj.ndim == 0 or all(device.platform == "cpu" for device in devices) and len(devices) == 1:
        return [("", Whole(np.asarray(obj)))]
    return [("", sliced(obj, tuple(obj.shape), np.dtype(obj.dtype), block_bytes))]


# Arrays


def _numpy(obj: Any, block_bytes: int, choices: Choices) -> Iterable[tuple[str, Item]] | None:
    if isinstance(obj, (np.ndarray, np.generic)):
        return [("", Whole(unmasked(obj)))]
    if isinstance(obj, (bool, int, float, complex, bytes, str)):
        return [("", Whole(np.asarray(obj, dtype=object if isinstance(obj, (bytes, str)) else None)))]
    return None


def _dask(obj: Any, block_bytes: int, choices: Choices) -> Iterable[tuple[str, Item]] | None:
    dask = module("dask")
    if dask is None or not hasattr(dask, "is_dask_collection") or not dask.is_dask_collection(obj):
        return None
    if not isinstance(obj, getattr(module("dask.array"), "Array", ())):
        raise UnsupportedError(f"{_type_name(obj)} is computed by dask: convert obj.compute(), or a dask array (to_dask_array)")
    if obj.ndim == 0:
        return [("", Whole(np.asarray(obj.compute())))]
    if any(np.isnan(length) for axis in obj.chunks[1:] for length in axis):
        raise RequestError("the lengths of chunks along other axes than the first are not known: call compute_chunk_sizes() first")
    return [("", _dask_stream(dask, obj, block_bytes))]


def _dask_stream(dask: Any, obj: Any, block_bytes: int) -> Stream:
    lengths = obj.chunks[0]
    is_known = not any(np.isnan(length) for length in lengths)
    row_bytes = max(1, int(np.prod(obj.shape[1:], dtype=object)) * obj.dtype.itemsize)

    def blocks() -> Iterator[dict[str, Any]]:
        # As many rows of chunks at a time as fit into a block, so that workers have something to do.
        first = 0
        while first < len(lengths):
            last, held = first + 1, lengths[first]
            while last < len(lengths) and (held + lengths[last]) * row_bytes <= block_bytes:
                held, last = held + lengths[last], last + 1
            yield {"": _fetched(dask.compute(obj.blocks[first:last])[0])}
            first = last

    rows = int(sum(lengths)) if is_known else None
    column = Column(kind(obj.dtype), tuple(int(length) for length in obj.shape[1:]), rows)
    cut = (lambda start, stop: _dask_stream(dask, obj[start:stop], block_bytes)) if is_known else None
    return Stream({"": column}, blocks, cut=cut)


def _arrays(obj: Any, block_bytes: int, choices: Choices) -> Iterable[tuple[str, Item]] | None:
    """Whatever has a shape, a dtype and slices: h5py, zarr, tensorstore, xarray, and lazy tensors of this package."""
    if not all(hasattr(obj, name) for name in ("shape", "dtype", "__getitem__")):
        return None
    if obj.shape is None:
        raise UnsupportedError(f"{_type_name(obj)} has no shape, and so no elements")
    try:
        lengths = tuple(obj.shape)
        dtype = _dtype_of(obj)
    except TypeError:
        return None
    if None in lengths:
        text = f"the shape {list(lengths)} of {_type_name(obj)} is not known yet: convert it on its own, or compute it first"
        raise UnsupportedError(text)
    shape = tuple(int(length) for length in lengths)
    h5py = module("h5py")
    if dtype.kind == "O" and h5py is not None and isinstance(obj, h5py.Dataset) and h5py.check_string_dtype(obj.dtype) is None:
        raise UnsupportedError(f"the elements of {obj.name} are references or lists of different lengths, which an array cannot hold")
    if not shape:
        value = obj[()]
        return [("", Whole(np.asarray(value, object if dtype.kind in "OT" else dtype)))]
    return [("", sliced(obj, shape, dtype, block_bytes, getattr(obj, "chunks", None)))]


def _dtype_of(obj: Any) -> np.dtype:
    # That of tensorstore has NumPy's inside.
    dtype = getattr(obj.dtype, "numpy_dtype", obj.dtype)
    try:
        return np.dtype(dtype)
    except TypeError:
        # NumPy knows bfloat16 by its name only where ml_dtypes is imported.
        return numpy_dtype(dtype_name(dtype))


def sliced(
    obj: Any,
    shape: tuple[int, ...],
    dtype: np.dtype,
    block_bytes: int,
    chunks: Any = None,
    rows: tuple[int, int] | None = None,
    fetch: Callable[[Any], np.ndarray] | None = None,
    name: str | None = None,
) -> Stream:
    """Slices along axis 0, one in memory at a time."""
    rows_of_chunk = int(chunks[0]) if chunks and isinstance(chunks, tuple) and isinstance(chunks[0], (int, np.integer)) else 1
    start, stop = rows or (0, shape[0])

    def blocks() -> Iterator[dict[str, Any]]:
        return ({"": (fetch or _fetched)(obj[key])} for key in runs(shape, dtype.itemsize, block_bytes, rows_of_chunk, start, stop))

    def cut(first: int, last: int | None) -> Stream:
        within = start + first, stop if last is None else start + last
        return sliced(obj, shape, dtype, block_bytes, chunks, within, fetch, name)

    return Stream({"": Column(name or kind(dtype), shape[1:], stop - start)}, blocks, is_flat=True, cut=cut)


def _fetched(part: Any) -> np.ndarray:
    # The slices of tensorstore are read by a call.
    if type(part).__module__.partition(".")[0] == "tensorstore":
        part = part.read().result()
    array = unmasked(part)
    if array.ndim == 0 and array.dtype == object:
        raise UnsupportedError(f"a slice of it is {_type_name(part)}, which NumPy makes no array of: convert its parts, or a dense copy")
    return array


def unmasked(value: Any) -> np.ndarray:
    """The array of a value. A masked array is refused, because its mask would be lost."""
    # NumPy imports it when it is used, and a fork meanwhile would leave it locked.
    masked = module("numpy.ma")
    if masked is not None and isinstance(value, masked.MaskedArray):
        raise UnsupportedError("a masked array has a mask, which an array cannot hold: convert array.filled(value), or its data and mask")
    return np.asarray(value)


def kind(dtype: Any) -> str | np.dtype:
    """What a column is made of: the name of a dtype; ``"string"``; or the dtype of elements that are copied as they are."""
    found = np.dtype(dtype)
    if found.kind in "OT":
        return "string"
    if found.hasobject:
        raise UnsupportedError(f"records of {found} hold Python objects, which are elsewhere in memory")
    try:
        return dtype_name(found)
    except UnsupportedError:
        # Long doubles and the like are numbers that differ between machines.
        if found.kind not in "SUMmV":
            raise
        return found


def with_rows(item: Stream, ends: tuple[int | None, int | None]) -> Stream | None:
    """Only these rows of a stream; ``None`` if which they are is known only at its end."""
    start, stop = ends
    lengths = {column.rows for column in item.columns.values()}
    if len(lengths) == 1 and None not in lengths:
        start, stop, _ = slice(start, stop).indices(lengths.pop())
    elif (start or 0) < 0 or (stop or 0) < 0:
        return None
    start = start or 0
    stop = None if stop is None else max(start, stop)
    if item.cut is not None:
        return item.cut(start, stop)

    def blocks() -> Iterator[dict[str, Any]]:
        seen = dict.fromkeys(item.columns, 0)
        for block in item.blocks():
            wanted = {}
            for name, part in block.items():
                first, seen[name] = seen[name], seen[name] + len(part)
                wanted[name] = part[max(0, start - first) : None if stop is None else max(0, stop - first)]
            yield wanted
            if stop is not None and all(rows >= stop for rows in seen.values()):
                return

    columns = {name: replace(column, rows=None if column.rows is None else stop - start) for name, column in item.columns.items()}
    return replace(item, columns=columns, blocks=blocks)


def runs(
    shape: tuple[int, ...], itemsize: int, block_bytes: int, rows_of_chunk: int = 1, start: int = 0, stop: int | None = None
) -> Iterator[Any]:
    """Keys of slices in C order that hold at most ``block_bytes``: runs of rows, or parts of rows that are larger than that."""
    stop = shape[0] if stop is None else stop
    row_bytes = int(np.prod(shape[1:], dtype=object)) * itemsize
    if row_bytes > block_bytes and len(shape) > 1:
        for row in range(start, stop):
            for inner in runs(shape[1:], itemsize, block_bytes):
                yield (row, *(inner if isinstance(inner, tuple) else (inner,)))
        return
    step = max(1, block_bytes // max(1, row_bytes))
    # Whole chunks, where several fit.
    step = step // rows_of_chunk * rows_of_chunk or step
    while start < stop:
        end = min(start // step * step + step, stop)
        yield slice(start, end)
        start = end


# Several objects, and iterables


def _is_mapping(obj: Any) -> bool:
    # Groups of zarr are no Mapping, but have its methods.
    return isinstance(obj, Mapping) or hasattr(obj, "keys") and hasattr(obj, "__getitem__")


def _mapping(obj: Any, block_bytes: int, choices: Choices) -> Iterable[tuple[str, Item]] | None:
    if not _is_mapping(obj):
        return None
    names = list(obj.keys())
    if not names:
        raise RequestError(f"{_type_name(obj)} is empty: there is nothing to convert")
    return _each(((str(name), obj[name]) for name in names), block_bytes, choices)


def _each(named: Iterable[tuple[str, Any]], block_bytes: int, choices: Choices) -> Iterator[tuple[str, Item]]:
    for name, value in named:
        yield from _nested(name, value, block_bytes, choices)


def _nested(name: str, value: Any, block_bytes: int, choices: Choices) -> Iterator[tuple[str, Item]]:
    """The arrays in a part of a structure, named by the way to them. What is no array is noted."""
    inner = replace(choices, skipped={})
    if value is None:
        inner.skipped[""] = "it is None"
    elif isinstance(value, (list, tuple)) and not value or _is_mapping(value) and not list(value.keys()):
        inner.skipped[""] = "it is empty"
    else:
        found = _sequence(value, block_bytes, inner) if isinstance(value, (list, tuple)) else items(value, block_bytes, inner)
        try:
            for part_name, item in found:
                yield _below(name, part_name), item
        except UnsupportedError as error:
            if not name:
                raise
            inner.skipped[""] = str(error)
    choices.skipped.update((_below(name, part_name), reason) for part_name, reason in inner.skipped.items())


def _below(name: str, part_name: str) -> str:
    return "/".join(filter(None, (name, part_name)))


def _sequence(value: list | tuple, block_bytes: int, choices: Choices) -> Iterator[tuple[str, Item]]:
    """A list of numbers or strings, or the parts of a structure."""
    numbers = _numbers(value)
    if numbers is not None:
        return iter([("", Whole(numbers))])
    if all(isinstance(part, (str, bytes)) for part in value):
        return iter([("", Whole(np.asarray(value, object)))])
    fields = getattr(value, "_fields", None) or map(str, range(len(value)))
    return _each(zip(fields, value), block_bytes, choices)


def _numbers(value: Any) -> np.ndarray | None:
    """The array of a list of Python's numbers, or of such lists."""

    def is_plain(part: Any) -> bool:
        return isinstance(part, (bool, int, float, complex)) or isinstance(part, (list, tuple)) and all(map(is_plain, part))

    if not is_plain(value):
        return None
    try:
        array = np.asarray(value)
    except ValueError:
        # Lists of different lengths.
        return None
    return array if array.dtype.kind in "biufc" else None


def _iterable(obj: Any, block_bytes: int, choices: Choices) -> Iterable[tuple[str, Item]] | None:
    if not hasattr(obj, "__iter__") and not (hasattr(obj, "__len__") and hasattr(obj, "__getitem__")):
        return None
    if isinstance(obj, (list, tuple)) and choices.shape is None and choices.batched is None:
        numbers = _numbers(obj)
        if numbers is not None:
            return [("", Whole(numbers))]
        if isinstance(obj, tuple) and any(getattr(part, "ndim", 0) for part in obj):
            # As in what an iterable hands out, a tuple is a structure and a list is an array.
            return _sequence(obj, block_bytes, choices)
    from . import iterables

    return iterables.items(obj, block_bytes, choices)


#: Tried in this order.
_RECOGNISED = (_numpy, _tensorflow, _keras, _torch, _jax, _dask, _arrays, _mapping, _iterable)
