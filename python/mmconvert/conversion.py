""":func:`convert`: tensors of sources and objects in hand, into arrays on disk."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

from . import _core, dtypes
from .errors import RequestError, SkippedWarning
from .progress import Progress, reporting
from .results import Array, Arrays, Report, mapped
from .sources import Source, Tensor, open as open_source

#: Options that a path is opened with.
_FOR_OPENING = ("shape", "raw", "offset", "channels", "stream", "salvage")
#: Options for records.
_FOR_RECORDS = ("read_as", "ragged", "missing", "jpeg", "flatten")


def convert(
    source: Any,
    *names_and_out: Any,
    rows: slice | tuple[int | None, int | None] | str | None = None,
    dtype: Any = None,
    strict: bool = False,
    memory: int | str | None = None,
    threads: int | None = None,
    verify: bool = True,
    overwrite: bool = False,
    byte_order: str | None = None,
    layout: str | None = None,
    strings: str | None = None,
    method: str | None = None,
    all: bool = False,  # noqa: A002
    progress: bool | Progress | None = None,
    mode: str = "r",
    format: str | None = None,  # noqa: A002
    concat: bool = False,
    shape: Any = None,
    raw: Any = None,
    offset: int | None = None,
    channels: int | None = None,
    stream: int | None = None,
    salvage: bool = False,
    read_as: Any = None,
    ragged: Any = None,
    missing: Any = None,
    jpeg: str | None = None,
    flatten: bool = False,
    session: Any = None,
    feed_dict: Any = None,
    batched: bool | None = None,
) -> Array | Arrays:
    """Convert tensors of a source, or an object in hand, to ``.npy`` files, within a memory limit.

    ``convert(source, names, out)`` converts what the names select, ``convert(source, out)`` all of it.

    Parameters
    ----------
    source
        A path, pattern, or list of paths; a :class:`Source` or :class:`Tensor`. Or an object in hand: a tensor, variable or data set of
        TensorFlow, a Keras model (all weights by their paths), torch tensors, modules and ``state_dict`` s, jax, NumPy, dask, h5py and
        zarr arrays, dictionaries of these, and iterables of rows or batches.
    names : str, Tensor or sequence of these, optional
        Names, aliases or patterns. Without any, the tensors that are meant: no bookkeeping, no constants of graphs.
    out : path
        A ``.npy`` for one array; a directory for several (it ends in ``/``, exists, or has no suffix); a ``.safetensors`` file for any
        number of tensors of a source.
    rows : slice, (start, stop) or "start:stop", optional
        Only these rows of axis 0; of records, these records.
    dtype : dtype, optional
        Cast like :meth:`numpy.ndarray.astype`.
    strict : bool
        Fail at the first value that the cast changes.
    memory : int or str, optional
        The most memory to use, in bytes or as ``"256MiB"``: buffers, and pages of the output that are not on disk yet. Default: a
        quarter of what is available, at most 1 GiB. What the object itself takes comes on top.
    threads : int, optional
        The most threads to use.
    verify : bool
        Compare stored checksums while the bytes pass through.
    overwrite : bool
        Replace an existing output, in one step once the new one is complete.
    byte_order : {"little", "big", "native"}, optional
    layout : {"C", "F"}, optional
        The order of elements.
    strings : {"pad", "offsets", "utf8"}, optional
        Strings as NumPy's ``S`` (the default), as two arrays (bytes and offsets), or as NumPy's ``U``.
    method : str, optional
        Write only in this way: ``clone``, ``direct``, ``uncached``, ``portable``, ``map``.
    all : bool
        Without names: also bookkeeping and constants.
    progress : bool or callable, optional
        ``True`` shows a bar of tqdm, or a line where there is no tqdm. A function gets the bytes done and the total (``None`` if it is
        not known); an exception in it cancels and is raised.
    mode : {"r", "r+", "c"}
        How the result is mapped.
    format, concat, shape, raw, offset, channels, stream, salvage
        For opening a path: see ``docs/sources.md``. ``shape`` is also the shape of the array that an iterable makes; the first length may
        be ``None``.
    read_as, ragged, missing, jpeg, flatten
        For records. A value is for every feature that it can apply to; a dictionary has values for features by their names:
        ``ragged={"tokens": "pad:0"}``.
    session, feed_dict
        A TensorFlow 1 session that computes ``source``, a tensor or a structure of tensors.
    batched : bool, optional
        Whether what a data set or an iterable hands out are batches, which are joined along axis 0. Default: for a data set what its
        transformations say; for an iterable ``False``, unless ``shape`` says otherwise.

    Returns
    -------
    Array or Arrays
        The mapped array (an :class:`numpy.memmap`) with its ``report``; for several, a mapping of names to arrays.

    Raises
    ------
    FileExistsError
        If the output exists and ``overwrite`` is not set.
    NoSuchTensorError
        For a name that is not there.
    CorruptError, LossyError, LimitError, UnsupportedError, RequestError
        See :mod:`mmconvert.errors`. No output exists then.

    Warns
    -----
    SkippedWarning
        If some of several tensors have no array; :attr:`Arrays.skipped` has the reasons.

    Examples
    --------
    >>> import mmconvert as mm, numpy as np, tempfile
    >>> out = tempfile.mkdtemp()
    >>> mm.convert("tests/data/records/penguin_eval.gz", ["species", "body_mass_g"], f"{out}/penguins/")["species"].shape
    (100, 1)
    >>> mm.convert((np.full((4, 6), i, "u1") for i in range(3)), f"{out}/frames.npy").shape
    (3, 4, 6)
    """
    if len(names_and_out) == 1:
        names, out = None, names_and_out[0]
    elif len(names_and_out) == 2:
        names, out = names_and_out
    else:
        raise TypeError(f"convert(source, [names,] out) takes 2 or 3 positional arguments, {1 + len(names_and_out)} were given")
    if not isinstance(out, (str, bytes, os.PathLike)):
        raise TypeError(f"out is a path, not {type(out).__name__}")
    out = os.fsdecode(out)
    if mode not in ("r", "r+", "c"):
        raise ValueError(f"mode is 'r', 'r+' or 'c', not {mode!r}")
    form = {"dtype": None if dtype is None else dtypes.dtype_name(dtype), "strict": strict or None, "byte_order": byte_order}
    form |= {"layout": layout, "strings": strings, "method": method}
    how = {"memory": memory, "threads": threads, "verify": verify, "overwrite": overwrite}
    opening = {"shape": shape, "raw": raw, "offset": offset, "channels": channels, "stream": stream, "salvage": salvage or None}
    opening = {name: value for name, value in opening.items() if value is not None}
    records = {"read_as": read_as, "ragged": ragged, "missing": missing, "jpeg": jpeg, "flatten": flatten or None}
    records = {name: value for name, value in records.items() if value is not None}
    ends = _ends(rows)
    if isinstance(source, Tensor):
        if names is not None:
            raise RequestError("a Tensor has no names to choose from: convert(tensor, out)")
        source, names = source.source, source
    if _is_path(source):
        source = open_source(source, format=format, concat=concat, **opening)
        opening = {}
    elif format is not None or concat:
        raise RequestError("format and concat are for opening a path", code="without-effect")
    if isinstance(source, Source):
        _without_effect(session=session, feed_dict=feed_dict, batched=batched)
        return _of_source(source, names, out, ends, {**how, **form, **opening, **records}, all, progress, mode)
    if names is not None:
        raise RequestError(f"names select tensors of a source; {type(source).__name__} is none: convert(object, out)")
    array_shape = opening.pop("shape", None)
    _without_effect(all=all or None, **opening, **records)
    if session is None:
        _without_effect(feed_dict=feed_dict)
    # Not imported before it is needed, so that importing the package takes no time.
    from . import objects, storing

    choices = objects.Choices(session=session, feed_dict=feed_dict, batched=batched, shape=_array_shape(array_shape))
    with reporting(progress, os.path.basename(out.rstrip("/"))) as report:
        return storing.store(source, out, ends, how, form, choices, report, mode)


def _without_effect(**given: Any) -> None:
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise RequestError(f"{', '.join(names)} would have no effect on this source", code="without-effect")


def _array_shape(shape: Any) -> tuple[int | None, ...] | None:
    if shape is None:
        return None
    return tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)


def _is_path(source: Any) -> bool:
    is_path = lambda part: isinstance(part, (str, bytes, os.PathLike))  # noqa: E731
    return is_path(source) or isinstance(source, (list, tuple)) and len(source) > 0 and all(map(is_path, source))


def _ends(rows: Any) -> tuple[int | None, int | None] | None:
    """Both ends of a range of rows."""
    if rows is None:
        return None
    if isinstance(rows, str):
        start, colon, stop = rows.partition(":")
        try:
            if colon:
                return (int(start) if start.strip() else None, int(stop) if stop.strip() else None)
        except ValueError:
            pass
        raise ValueError(f"rows: {rows!r} is not a range of rows, as in '10:20' or ':-1'")
    if isinstance(rows, range):
        rows = slice(rows.start, rows.stop, rows.step)
    if isinstance(rows, slice):
        if rows.step not in (None, 1):
            raise RequestError("rows are a run: the step of the slice is 1")
        return rows.start, rows.stop
    start, stop = rows
    return start, stop


def target(out: str, count: int) -> str:
    """What an output is: a ``file``, a ``directory``, or ``packed`` (safetensors), as the program decides it."""
    if out.endswith("/") or os.path.isdir(out):
        return "directory"
    stem, suffix = os.path.splitext(out)
    if suffix == ".safetensors":
        return "packed"
    if suffix == ".npy" and count > 1:
        raise RequestError(f"{count} arrays do not fit into {out}, a .npy holds one: name one of them, or write to a directory ({stem}/)")
    if suffix not in ("", ".npy"):
        raise RequestError(f"{out}: cannot write {suffix}, only .npy and .safetensors; for a directory of that name write {out}/")
    return "directory" if count > 1 else "file"


def _of_source(
    source: Source,
    names: str | Tensor | Sequence[str | Tensor] | None,
    out: str,
    rows: tuple[int | None, int | None] | None,
    options: dict[str, Any],
    everything: bool,
    progress: bool | Progress | None,
    mode: str,
) -> Array | Arrays:
    wanted = [names] if isinstance(names, (str, bytes, Tensor)) else list(names or [])
    patterns = [name.name if isinstance(name, Tensor) else name for name in wanted]
    if names is not None and not patterns:
        raise RequestError("names is empty: leave it out to convert everything")
    core = source._opened_core()
    tensors = core.select(patterns, everything)
    kind = target(out, len(tensors))
    with reporting(progress, os.path.basename(out.rstrip("/"))) as report:
        if kind == "file" and len(tensors) == 1:
            reports = [Report.of(made) for made in _core.convert(tensors[0], out, rows, options, report)]
            return mapped(reports[0], mode) if len(reports) == 1 else Arrays(out, reports, mode=mode)
        make = _core.pack if kind == "packed" else _core.export
        made, skipped = make(core, patterns, everything, out, rows, options, report)
    reasons = {name if isinstance(name, str) else repr(name): reason for name, reason in skipped}
    if reasons:
        listed = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:3])
        warnings.warn(f"{len(reasons)} tensors have no array: {listed}", SkippedWarning, stacklevel=3)
    reports = [Report.of(each) for each in made]
    return Arrays(out, reports, reasons, mode=mode, maps=_of_packed(out, mode) if kind == "packed" else None)


def _of_packed(out: str, mode: str) -> Any:
    packed = open_source(out, format="safetensors")

    def of(name: str, report: Report) -> Array:
        array = packed[name]._map(mode)
        array.report = report
        return array

    return of
