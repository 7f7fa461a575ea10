""":func:`predict`: what a model makes of inputs that are larger than memory."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import numpy as np

from . import dtypes, objects, storing
from .errors import RequestError
from .iterables import flat, host_array
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
        A Keras model, a torch module (in evaluation mode meanwhile), a signature of a SavedModel
        (``tf.saved_model.load(path).signatures["serving_default"]``), or any function of a batch.
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
        raise RequestError(f"inputs have different numbers of rows: {lengths}" if lengths else "there are no inputs")
    rows = next(iter(lengths.values()))
    if rows == 0:
        raise RequestError("the inputs have no rows")

    def fetched(part: slice) -> Any:
        return {name: host_array(value[part]) for name, value in fed.items()} if isinstance(fed, dict) else host_array(fed[part])

    def outputs() -> Iterator[dict[str, np.ndarray]]:
        with _calling(model) as call:
            for start in range(0, rows, batch):
                part = slice(start, min(start + batch, rows))
                made = flat(call(fetched(part)))
                for name, value in made.items():
                    if value.ndim == 0 or len(value) != part.stop - part.start:
                        where, found, wanted = f" {name!r}" if name else "", list(value.shape), part.stop - part.start
                        raise RequestError(f"the output{where} has the shape {found} for {wanted} rows of input: each needs one")
                yield made

    with closing(outputs()) as produced:
        first = next(produced)
        columns = {name: Column(objects.kind(value.dtype), value.shape[1:], rows) for name, value in first.items()}
        stream = Stream(columns, lambda: itertools.chain([first], produced))
        how = {"memory": memory, "threads": None, "verify": None, "overwrite": overwrite}
        form = {"dtype": None if dtype is None else dtypes.dtype_name(dtype), "strict": strict or None, "byte_order": None}
        form |= {"layout": None, "strings": None, "method": None}
        with reporting(progress, os.path.basename(out.rstrip("/"))) as report:
            return storing.store(stream, out, None, how, form, objects.Choices(), report, mode)


def _input(value: Any) -> Any:
    if isinstance(value, (str, bytes, os.PathLike)):
        path = os.fsdecode(value)
        if not path.endswith(".npy"):
            raise RequestError(f"{path}: an input by its path is a .npy; give mmconvert.open(path)[name] for a tensor of another file")
        return load(path)
    if isinstance(value, Tensor) or hasattr(value, "shape") and hasattr(value, "__getitem__"):
        return value
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"an input is an array or the path of one, not {type(value).__name__}")
    return np.asarray(value)


@contextmanager
def _calling(model: Any) -> Iterator[Callable[[Any], Any]]:
    """A function of a batch of NumPy arrays."""
    tf, torch = module("tensorflow"), module("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        with _evaluating(torch, model) as call:
            yield call
    elif any(isinstance(model, getattr(module(name), "Model", ())) for name in objects.KERAS):
        yield model.predict_on_batch
    elif tf is not None and hasattr(model, "structured_input_signature"):
        names = list(model.structured_input_signature[1])

        def of_signature(batch: Any) -> Any:
            if not isinstance(batch, dict):
                if len(names) != 1:
                    raise RequestError(f"the signature has the inputs {names}: give a dictionary")
                batch = {names[0]: batch}
            return model(**{name: tf.constant(value) for name, value in batch.items()})

        yield of_signature
    elif not callable(model):
        advice = f": choose one of its signatures, {list(model.signatures)}" if hasattr(model, "signatures") else ""
        raise TypeError(f"{type(model).__name__} is no model that can be called{advice}")
    else:
        yield model


@contextmanager
def _evaluating(torch: Any, model: Any) -> Iterator[Callable[[Any], Any]]:
    """A call of a torch module without gradients, dropout, or updates of its statistics. It is left as it was."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    device = next((tensor.device for tensor in tensors), None)
    training = [part for part in model.modules() if part.training]

    def fed(array: np.ndarray) -> Any:
        if array.dtype.name == "bfloat16":
            return torch.tensor(array.view(np.int16), device=device).view(torch.bfloat16)
        return torch.tensor(array, device=device)

    def call(batch: Any) -> Any:
        with torch.no_grad():
            return model(**{name: fed(value) for name, value in batch.items()}) if isinstance(batch, dict) else model(fed(batch))

    model.eval()
    try:
        yield call
    finally:
        for part in training:
            part.training = True
