"""What is in hand: objects of TensorFlow, torch, jax, dask, h5py, zarr and NumPy, and iterables, as arrays to write.

Everything becomes one of two shapes. A :class:`Whole` is an array in host memory, which the engine reads in parallel. A :class:`Stream`
hands out blocks of rows: slices of something that is elsewhere (a GPU, a file, a task graph), or what an iterator makes. Frameworks are
recognised by the modules that the caller has imported; none is imported here.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .dtypes import dtype_name, is_text
from .errors import RequestError, UnsupportedError

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

    #: The name of the dtype, or ``None`` to take that of the first block.
    dtype: str | None
    #: The shape of a row; ``None`` to take that of the first block.
    row_shape: tuple[int, ...] | None
    #: The number of rows, if it is known.
    rows: int | None


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


Item = "Whole | Stream"


def module(name: str) -> Any:
    """A module that the caller has imported, or ``None``."""
    return sys.modules.get(name)


def items(obj: Any, block_bytes: int, choices: Choices) -> Iterator[tuple[str, Item]]:
    """The arrays that an object becomes, by name. The name of an only array is ``""``."""
    if isinstance(obj, (Whole, Stream)):
        yield "", obj
        return
    for recognise in _RECOGNISED:
        found = recognise(obj, block_bytes, choices)
        if found is not None:
            yield from found
            return
    raise UnsupportedError(
        f"{_type_name(obj)} cannot be converted: it is no path, no Source or Tensor, and has neither shape, dtype and slices nor rows to iterate over"
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
    #: What was left out, with the reason.
    skipped: dict[str, str] = field(default_factory=dict)


def _type_name(obj: Any) -> str:
    return f"{type(obj).__module__}.{type(obj).__qualname__}"


# TensorFlow


def _tensorflow(obj: Any, block_bytes: int, choices: Choices) -> Iterable[tuple[str, Item]] | None:
    tf = module("tensorflow")
    if choices.session is not None:
        value = choices.session.run(obj, feed_dict=choices.feed_dict)
        return _nested("", value, block_bytes, Choices(skipped=choices.skipped))
    if tf is None or not hasattr(tf, "Tensor"):
        return None
    if isinstance(obj, tf.RaggedTensor):
        return _ragged(obj, block_bytes)
    if isinstance(obj, tf.SparseTensor):
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
        if not hasattr(obj, "numpy"):
            raise UnsupportedError(f"{obj.name} is computed by a graph: pass session=, and feed_dict= if it has inputs")
        return [("", _tensor(obj, block_bytes))]
    return None


def _is_on_host(tensor: Any) -> bool:
    device = getattr(tensor, "backing_device", None) or getattr(tensor, "device", "")
    return "CPU" in device.upper() or not device


def _tensor(tensor: Any, block_bytes: int) -> Item:
    """An eager tensor. On the host its memory is used as it is."""
    if tensor.dtype.name in ("resource", "variant"):
        raise UnsupportedError(f"a tensor of {tensor.dtype.name}s has no elements that an array could hold")
    shape = tuple(int(length) for length in tensor.shape)
    if _is_on_host(tensor) or not shape or tensor.dtype.name in ("int4", "uint4", "string"):
        # `numpy()` copies, but is all that 0-d bfloat16 has.
        return Whole(np.asarray(tensor) if shape else np.asarray(tensor.numpy()))
    return _sliced(tensor, shape, np.dtype(tensor.dtype.as_numpy_dtype), block_bytes)


def _ragged(ragged: Any, block_bytes: int) -> list[tuple[str, Item]]:
    """The flat values, and the start of each row followed by the end of the last, for every ragged axis; as TensorFlow names them."""
    splits = ragged.nested_row_splits
    named = [("row_splits", splits[0])] if len(splits) == 1 else [(f"row_splits_{axis}", split) for axis, split in enumerate(splits)]
    return [(name, _tensor(part, block_bytes)) for name, part in [("flat_values", ragged.flat_values), *named]]


def _sparse_parts(sparse: Any) -> list[tuple[str, Any]]:
    return [("indices", sparse.indices), ("values", sparse.values), ("dense_shape", sparse.dense_shape)]


def _joined(parts: list[Any], block_bytes: int) -> Item:
    """Parts of one table, row after row."""
    rows = sum(int(part.shape[0]) for part in parts)
    row_shape = tuple(int(length) for length in parts[0].shape[1:])
    if len(parts) == 1:
        return _tensor(parts[0], block_bytes)

    def blocks() -> Iterator[dict[str, Any]]:
        for part in parts:
            found = _tensor(part, block_bytes)
            if isinstance(found, Stream):
                yield from found.blocks()
            else:
                yield from ({"": found.array[rows]} for rows in _runs(found.array.shape, found.array.itemsize, block_bytes))

    columns = {"": Column(dtype_name(parts[0].dtype), row_shape, rows)}
    return Stream(columns, blocks, is_flat=True)


def _keras(obj: Any, block_bytes: int, choices: Choices) -> Iterable[tuple[str, Item]] | None:
    """Models and layers: all weights by their paths. Variables: their value."""
    keras = module("keras") or getattr(module("tensorflow"), "keras", None)
    if keras is None:
        return None
    variable = getattr(keras, "Variable", None)
    if variable is not None and isinstance(obj, variable):
        return items(obj.value, block_bytes, choices)
    layer, optimizer = getattr(getattr(keras, "layers", None), "Layer", None), getattr(getattr(keras, "optimizers", None), "Optimizer", None)
    if layer is not None and isinstance(obj, layer):
        variables = obj.weights
    elif optimizer is not None and isinstance(obj, optimizer):
        variables = obj.variables() if callable(obj.variables) else obj.variables
    else:
        return None
    if not variables:
        raise RequestError(f"{_type_name(obj)} has no weights yet: build it first, or call it once")
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
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce()
        shape = torch.tensor(tensor.shape)
        parts = {"indices": tensor.indices().T.contiguous(), "values": tensor.values(), "dense_shape": shape}
        return [(name, _torch_tensor(torch, part, block_bytes)) for name, part in parts.items()]
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise UnsupportedError(f"a torch tensor of layout {tensor.layout} and dtype {tensor.dtype}: convert it with to_dense() or dequantize() first")
    return [("", _torch_tensor(torch, tensor, block_bytes))]


def _torch_tensor(torch: Any, tensor: Any, block_bytes: int) -> Item:
    name = dtype_name(tensor.dtype) if str(tensor.dtype) not in ("torch.complex32", "torch.bits8") else None
    if name is None:
        raise UnsupportedError(f"a torch tensor of {tensor.dtype} has no counterpart in NumPy: convert it with .to(torch.complex64) first")
    # NumPy has no such types, but integers with the same bits.
    bits = {"bfloat16": torch.uint16 if hasattr(torch, "uint16") else torch.int16}
    bits |= {float8: torch.uint8 for float8 in ("float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2fnuz")}

    def array(part: Any) -> np.ndarray:
        part = part.resolve_conj().resolve_neg() if part.is_complex() or part.is_neg() else part
        if name in bits:
            part = part.contiguous().view(bits[name])
        return part.cpu().numpy()

    if tensor.device.type == "cpu" or tensor.ndim == 0:
        return Whole(array(tensor), dtype=name)
    shape = tuple(tensor.shape)
    itemsize = tensor.element_size()

    def blocks() -> Iterator[dict[str, Any]]:
        return ({"": array(tensor[rows])} for rows in _runs(shape, itemsize, block_bytes))

    return Stream({"": Column(name, shape[1:], shape[0])}, blocks, is_flat=True)


def _jax(obj: Any, block_bytes: int, choices: Choices) -> Iterable[tuple[str, Item]] | None:
    jax = module("jax")
    if jax is None or not hasattr(jax, "Array") or not isinstance(obj, jax.Array):
        return None
    if not hasattr(obj.dtype, "itemsize") or str(obj.dtype).startswith("key<"):
        raise UnsupportedError(f"a jax array of {obj.dtype}: convert jax.random.key_data(key)")
    devices = obj.devices()
    if obj.ndim == 0 or all(device.platform == "cpu" for device in devices) and len(devices) == 1:
        return [("", Whole(np.asarray(obj)))]
    return [("", _sliced(obj, tuple(obj.shape), np.dtype(obj.dtype), block_bytes))]


# Arrays


def _numpy(obj: Any, block_bytes: int, choices: Choices) -> Iterable[tuple[str, Item]] | None:
    if isinstance(obj, np.ma.MaskedArray):
        raise UnsupportedError("a masked array has a mask, which an array cannot hold: convert obj.filled(value), or obj.data and obj.mask")
    if isinstance(obj, (np.ndarray, np.generic)):
        return [("", Whole(np.asarray(obj)))]
    if isinstance(obj, (bool, int, float, complex, bytes, str)):
        return [("", Whole(np.asarray(obj, dtype=object if isinstance(obj, (bytes, str)) else None)))]
    return None


def _dask(obj: Any, block_bytes: int, choices: Choices) -> Iterable[tuple[str, Item]] | None:
    dask = module("dask.array")
    if dask is None or not isinstance(obj, dask.Array):
        return None
    if obj.ndim == 0:
        return [("", Whole(np.asarray(obj.compute())))]
    lengths = obj.chunks[0]
    is_known = not any(np.isnan(length) for length in lengths)
    if any(np.isnan(length) for axis in obj.chunks[1:] for length in axis):
        raise RequestError("the lengths of chunks along other axes than the first are not known: call compute_chunk_sizes() first")

    def blocks() -> Iterator[dict[str, Any]]:
        import dask as scheduler

        # As many rows of chunks at a time as fit into a block, so that workers have something to do.
        row_bytes = max(1, int(np.prod(obj.shape[1:], dtype=object)) * obj.dtype.itemsize)
        first = 0
        while first < len(lengths):
            last, held = first + 1, lengths[first] * row_bytes
            while last < len(lengths) and not held + lengths[last] * row_bytes > block_bytes:
                held, last = held + lengths[last] * row_bytes, last + 1
            yield {"": np.asarray(scheduler.compute(obj.blocks[first:last])[0])}
            first = last

    rows = int(sum(lengths)) if is_known else None
    return [("", Stream({"": Column(_name_or_text(obj.dtype), tuple(int(n) for n in obj.shape[1:]), rows)}, blocks))]


def _arrays(obj: Any, block_bytes: int, choices: Choices) -> Iterable[tuple[str, Item]] | None:
    """Whatever has a shape, a dtype and slices: h5py, zarr, tensorstore, xarray, and lazy tensors of this package."""
    if isinstance(obj, type) or not all(hasattr(obj, name) for name in ("shape", "dtype", "__getitem__")):
        return None
    try:
        shape = tuple(int(length) for length in obj.shape)
        dtype = np.dtype(getattr(obj.dtype, "numpy_dtype", obj.dtype))
    except TypeError:
        return None
    if not shape:
        return [("", Whole(np.asarray(obj[()])))]
    return [("", _sliced(obj, shape, dtype, block_bytes, getattr(obj, "chunks", None)))]


def _sliced(obj: Any, shape: tuple[int, ...], dtype: np.dtype, block_bytes: int, chunks: Any = None) -> Stream:
    """Slices along axis 0, one in memory at a time."""
    rows_of_chunk = int(chunks[0]) if chunks and isinstance(chunks, tuple) and isinstance(chunks[0], (int, np.integer)) else 1

    def blocks() -> Iterator[dict[str, Any]]:
        return ({"": _fetched(obj[rows])} for rows in _runs(shape, dtype.itemsize, block_bytes, rows_of_chunk))

    return Stream({"": Column(_name_or_text(dtype), shape[1:], shape[0])}, blocks, is_flat=True)


def _fetched(part: Any) -> np.ndarray:
    # The slices of tensorstore are read by a call.
    read = getattr(part, "read", None)
    if read is not None and not isinstance(part, np.ndarray) and hasattr(read(), "result"):
        return np.asarray(read().result())
    return np.asarray(part)


def _name_or_text(dtype: Any) -> str:
    found = np.dtype(dtype)
    return "string" if is_text(found) else dtype_name(found)


def _runs(shape: tuple[int, ...], itemsize: int, block_bytes: int, rows_of_chunk: int = 1) -> Iterator[Any]:
    """Keys of slices in C order that hold at most ``block_bytes``: runs of rows, or parts of rows that are larger than that."""
    row_bytes = int(np.prod(shape[1:], dtype=object)) * itemsize
    if row_bytes > block_bytes and len(shape) > 1:
        for row in range(shape[0]):
            for inner in _runs(shape[1:], itemsize, block_bytes):
                yield (row, *(inner if isinstance(inner, tuple) else (inner,)))
        return
    step = max(1, block_bytes // max(1, row_bytes))
    # Whole chunks, where several fit.
    step = step // rows_of_chunk * rows_of_chunk or step
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


# Several objects, and iterables


def _mapping(obj: Any, block_bytes: int, choices: Choices) -> Iterable[tuple[str, Item]] | None:
    if not isinstance(obj, Mapping) and not (hasattr(obj, "keys") and hasattr(obj, "items") and hasattr(obj, "__getitem__")):
        return None
    if not len(obj):
        raise RequestError(f"{_type_name(obj)} is empty: there is nothing to convert")
    return _each(((str(name), value) for name, value in obj.items()), block_bytes, choices)


def _each(named: Iterable[tuple[str, Any]], block_bytes: int, choices: Choices) -> Iterator[tuple[str, Item]]:
    for name, value in named:
        yield from _nested(name, value, block_bytes, choices)


def _nested(name: str, value: Any, block_bytes: int, choices: Choices) -> Iterator[tuple[str, Item]]:
    """The arrays in a part of a structure, named by the way to them."""
    below = f"{name}/" if name else ""
    if value is None or callable(value) and not hasattr(value, "shape"):
        choices.skipped[name] = f"it is {_type_name(value)}, which is no array"
        return
    if isinstance(value, (list, tuple)) and not all(isinstance(part, (bool, int, float, complex)) for part in value):
        fields = getattr(value, "_fields", None) or map(str, range(len(value)))
        for field_name, part in zip(fields, value):
            yield from _nested(f"{below}{field_name}", part, block_bytes, choices)
        return
    if isinstance(value, (list, tuple)):
        yield name, Whole(np.asarray(value))
        return
    try:
        for part_name, item in items(value, block_bytes, choices):
            yield (f"{below}{part_name}" if part_name else name), item
    except UnsupportedError as error:
        if not name:
            raise
        choices.skipped[name] = str(error)


def _iterable(obj: Any, block_bytes: int, choices: Choices) -> Iterable[tuple[str, Item]] | None:
    if not hasattr(obj, "__iter__") and not (hasattr(obj, "__len__") and hasattr(obj, "__getitem__")):
        return None
    if isinstance(obj, (list, tuple)) and obj and not any(hasattr(part, "shape") or hasattr(part, "__iter__") for part in obj):
        return [("", Whole(np.asarray(obj)))]
    from . import iterables

    return iterables.items(obj, block_bytes, choices)


#: Tried in this order.
_RECOGNISED = (_numpy, _tensorflow, _keras, _torch, _jax, _dask, _arrays, _mapping, _iterable)
