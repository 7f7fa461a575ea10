""":func:`predict`: what a model makes of inputs that are larger than memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from . import dtypes, objects, storing
from .errors import RequestError
from .objects import Column, Stream, module
from .progress import Progress, reporting
from .results import Array, Arrays, load
from .sources import PathLike, Tensor


def predict(
    model: Any,
    inputs: Any,
    out: PathLike,
    *,
    batch: int = 32,
    dtype: Any = None,
    strict: bool = False,
    memory: int | str | None = None,
    overwrite: bool = False,
    progress: bool | Progress | None = None,
    mode: str = "r",
) -> Array | Arrays:
    """Compute the outputs of a model batch by batch, and write them to disk.

    Parameters
    ----------
    model
        A Keras model, a torch module, a signature of a SavedModel (``tf.saved_model.load(path).signatures["serving_default"]``), or any
        function of a batch.
    inputs : array, path or dictionary of these
        Arrays with an axis of rows: NumPy arrays and maps, :class:`Tensor` s, anything that is sliced; or paths of ``.npy`` files. A
        dictionary for models with several inputs.
    out : path
        A ``.npy`` for one output; a directory for several.
    batch : int
        Rows that the model gets at a time.
    dtype, strict, memory, overwrite, progress, mode
        As for :func:`convert`. The memory of the model itself comes on top.

    Returns
    -------
    Array or Arrays
        The outputs, joined along axis 0; several by the names that the model gives them, or by number.

    Raises
    ------
    RequestError
        If inputs have different numbers of rows, or the model makes another number of rows than it got.

    Examples
    --------
    >>> import mmconvert as mm, numpy as np, tempfile
    >>> out = tempfile.mkdtemp()
    >>> mm.predict(lambda x: x * 2, np.arange(5.0), f"{out}/y.npy", batch=2)[:].tolist()
    [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    if batch < 1:
        raise ValueError("batch is at least 1")
    out = os.fsdecode(out)
    fed = {name: _input(value) for name, value in inputs.items()} if isinstance(inputs, Mapping) else _input(inputs)
    lengths = {name: len(value) for name, value in fed.items()} if isinstance(fed, dict) else {"": len(fed)}
    if len(set(lengths.values())) != 1:
        raise RequestError(f"inputs have different numbers of rows: {lengths}")
    rows = next(iter(lengths.values()))
    if rows == 0:
        raise RequestError("the inputs have no rows")
    call = _callable(model)

    def outputs() -> Iterator[dict[str, np.ndarray]]:
        from .iterables import flat

        for start in range(0, rows, batch):
            part = slice(start, min(start + batch, rows))
            made = flat(call({name: np.asarray(value[part]) for name, value in fed.items()} if isinstance(fed, dict) else np.asarray(fed[part])))
            for name, value in made.items():
                if value.ndim == 0 or len(value) != part.stop - part.start:
                    where = f" {name!r}" if name else ""
                    raise RequestError(f"the output{where} has the shape {list(value.shape)} for {part.stop - part.start} rows: an output has a row for each row of the input")
            yield made

    produced = outputs()
    first = next(produced)

    def blocks() -> Iterator[dict[str, np.ndarray]]:
        yield first
        yield from produced

    stream = Stream({name: Column(dtypes.dtype_name(value.dtype), value.shape[1:], rows) for name, value in first.items()}, blocks)
    how = {"memory": memory, "threads": None, "verify": None, "overwrite": overwrite}
    form = {"dtype": None if dtype is None else dtypes.dtype_name(dtype), "strict": strict or None, "byte_order": None}
    form |= {"layout": None, "strings": None, "method": None}
    with reporting(progress, os.path.basename(out.rstrip("/"))) as report:
        return storing.store(stream, out, None, how, form, objects.Choices(), report, mode)


def _input(value: Any) -> Any:
    if isinstance(value, (str, bytes, os.PathLike)):
        return load(os.fsdecode(value))
    if isinstance(value, Tensor) or hasattr(value, "shape") and hasattr(value, "__getitem__"):
        return value
    return np.asarray(value)


def _callable(model: Any) -> Any:
    """A function of a batch of NumPy arrays."""
    tf, keras, torch = module("tensorflow"), module("keras"), module("torch")
    if torch is not None and isinstance(model, torch.nn.Module):

        def of_torch(batch: Any) -> Any:
            parameter = next(iter(model.parameters()), None)
            device = parameter.device if parameter is not None else None
            with torch.no_grad():
                if isinstance(batch, dict):
                    return model(**{name: torch.tensor(value, device=device) for name, value in batch.items()})
                return model(torch.tensor(batch, device=device))

        return of_torch
    keras = keras or getattr(tf, "keras", None)
    if keras is not None and isinstance(model, getattr(keras, "Model", ())):
        return model.predict_on_batch
    if tf is not None and hasattr(model, "structured_input_signature"):
        names = list(model.structured_input_signature[1])

        def of_signature(batch: Any) -> Any:
            if not isinstance(batch, dict):
                if len(names) != 1:
                    raise RequestError(f"the signature has the inputs {names}: give a dictionary")
                batch = {names[0]: batch}
            return model(**{name: tf.constant(value) for name, value in batch.items()})

        return of_signature
    if not callable(model):
        raise TypeError(f"{type(model).__name__} is no model that can be called")
    return model
