"""Sources of tensors: checkpoints, SavedModels, records, and every other format."""

from __future__ import annotations

import math
import os
import threading
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core, indexing, scratch
from ._core import Source as CoreSource, Tensor as CoreTensor
from .dtypes import as_bytes, numpy_dtype
from .errors import Error, RequestError, SourceWarning, UnsupportedError
from .progress import size
from .results import Array, load

if TYPE_CHECKING:
    import dask.array

#: Lines of a table.
_MOST_SHOWN = 60
#: Bytes of the rows that iteration reads at a time.
_ROWS_BYTES = 4 << 20

PathLike = str | os.PathLike[str]


def open(  # noqa: A001
    path: PathLike | Sequence[PathLike],
    *,
    format: str | None = None,  # noqa: A002
    concat: bool = False,
    shape: Any = None,
    raw: Any = None,
    offset: int | None = None,
    channels: int | None = None,
    stream: int | None = None,
    salvage: bool = False,
) -> Source:
    """Open a source of tensors.

    The content tells the format: a checkpoint by its prefix, a SavedModel directory, HDF5, Keras, safetensors, ``.npy`` and ``.npz``,
    TFRecord files, folders of tf.data and TFDS, videos, serialized tensors and graphs.

    Parameters
    ----------
    path : path or sequence of paths
        A file, a directory, the prefix of a checkpoint, or a pattern for several files (``train-*.tfrecord``). Several sources lie side
        by side; shards of one set become one source.
    format : str, optional
        Read it as this format, whatever its content: one of :func:`formats`.
    concat : bool
        Join tensors of the same name along axis 0 over all sources.
    shape, raw, offset, channels, stream, salvage
        How to read frames, images and videos; see :func:`convert`.

    Returns
    -------
    Source

    Raises
    ------
    FileNotFoundError
        If nothing is there; the message says what was found instead.
    UnsupportedError
        For a format that is not read.
    CorruptError
        For a file that breaks its format.

    Examples
    --------
    >>> import mmconvert as mm
    >>> src = mm.open("tests/data/checkpoint/chicago_taxi/model.ckpt-1000")
    >>> src["dnn/hiddenlayer_1/kernel"][:2, :3]
    array([[-0.0008729 ,  0.11724749, -0.1543852 ],
           [ 0.0952312 ,  0.16631563, -0.01752491]], dtype=float32)
    """
    # A pattern of one source is a path like any other.
    paths = [path] if isinstance(path, (str, bytes, os.PathLike)) else list(path)
    options = {"shape": shape, "raw": raw, "offset": offset, "channels": channels, "stream": stream, "salvage": salvage or None}
    how = _How(tuple(os.fsdecode(each) for each in paths), format, concat, {name: value for name, value in options.items() if value is not None})
    return Source._opened(how, how.open())


def formats() -> list[str]:
    """The names of all formats, as :func:`open` takes them.

    >>> import mmconvert as mm
    >>> "tfrecord" in mm.formats()
    True
    """
    return _core.formats()


class _How:
    """How a source is opened; it can be sent to another process."""

    def __init__(self, paths: tuple[str, ...], format: str | None, concat: bool, options: dict[str, Any]) -> None:  # noqa: A002
        if not paths:
            raise RequestError("there is no path to open")
        self.paths, self.format, self.concat, self.options = paths, format, concat, options

    def open(self) -> _core.Source:
        return _core.Source.open(list(self.paths), self.format, self.concat, self.options)

    def absolute(self) -> _How:
        """The same, wherever another process works."""
        return _How(tuple(os.path.abspath(path) if path != "-" else path for path in self.paths), self.format, self.concat, self.options)

    def __reduce__(self):
        return _How, (self.paths, self.format, self.concat, self.options)


#: Sources that came from other processes, so that a thousand tensors of one open it once.
_received: weakref.WeakValueDictionary[tuple, Source] = weakref.WeakValueDictionary()
_receiving = threading.Lock()


def _receive(how: _How, identity: str) -> Source:
    key = (how.paths, how.format, how.concat, repr(how.options), identity)
    with _receiving:
        source = _received.get(key)
        if source is None:
            source = Source._opened(how, how.open())
            if source.identity != identity:
                raise Error(f"{source.path} is not what it was when it was sent to this process: open it again", code="changed")
            _received[key] = source
        return source


class Source(Mapping):
    """An opened source: a mapping of names to :class:`Tensor`. :func:`open` makes it.

    Names are those that TensorFlow lists, and aliases. A missing name is a :class:`NoSuchTensorError` (a :class:`KeyError`) with the
    nearest ones. Sources can be used from several threads, after a fork, and be pickled (as their paths).

    Examples
    --------
    >>> import mmconvert as mm
    >>> src = mm.open("tests/data/savedmodel/half_plus_two")
    >>> [str(name) for name in src][:3], src.format
    (['a', 'b', 'c'], 'saved-model')
    """

    _how: _How
    _core: CoreSource
    #: Warnings that have been given.
    _told: set[str]

    @classmethod
    def _opened(cls, how: _How, core: CoreSource) -> Source:
        source = cls.__new__(cls)
        source._how, source._core, source._told = how, core, set()
        source._tell_warnings()
        return source

    def __init__(self) -> None:
        raise TypeError("mmconvert.open makes sources")

    def _tell_warnings(self) -> None:
        for warning in self._core.warnings():
            if warning not in self._told:
                self._told.add(warning)
                warnings.warn(f"{self.path}: {warning}", SourceWarning, stacklevel=4)

    def _opened_core(self) -> CoreSource:
        # What Ctrl-C interrupted is opened again.
        if self._core.is_cancelled:
            self._core = self._how.open()
        return self._core

    @property
    def path(self) -> str:
        """The path that it was opened by, or the first of several."""
        return os.fspath(self._core.path)

    @property
    def format(self) -> str:
        """The name of its format."""
        return self._core.format

    @property
    def files(self) -> list[str]:
        """The files that it consists of."""
        return [os.fspath(file) for file in self._core.files()]

    @property
    def signatures(self) -> list[dict[str, Any]]:
        """What TensorFlow could compute from a graph or a SavedModel: names, inputs and outputs."""
        return self._core.signatures()

    @property
    def identity(self) -> str:
        """A digest of its paths and of its files' sizes and times: it changes when a file is written to."""
        import hashlib

        digest = hashlib.blake2b(repr((self._how.absolute().paths, self._how.format, self._how.concat)).encode(), digest_size=12)
        digest.update(repr(sorted(self._how.options.items())).encode())
        for file in self.files:
            try:
                found = os.stat(file)
            except FileNotFoundError:
                continue
            digest.update(repr((os.path.abspath(file), found.st_size, found.st_mtime_ns, found.st_ino)).encode(errors="surrogateescape"))
        return digest.hexdigest()

    def tensors(self) -> list[Tensor]:
        """All tensors, in the order of the source, with TensorFlow's bookkeeping."""
        found = [Tensor(self, core) for core in self._opened_core().tensors()]
        self._tell_warnings()
        return found

    def select(self, *patterns: str, all: bool = False) -> list[Tensor]:  # noqa: A002
        """The tensors that names and patterns select, in the order of the source.

        Parameters
        ----------
        *patterns : str
            Names, or patterns: ``*`` matches any run of characters, ``?``, ``[…]`` and ``{a,b}`` are as in a shell. Without any: those
            that are converted by default.
        all : bool
            Include TensorFlow's bookkeeping and the constants of graphs.

        Examples
        --------
        >>> import mmconvert as mm
        >>> src = mm.open("tests/data/checkpoint/chicago_taxi/model.ckpt-1000")
        >>> [tensor.name for tensor in src.select("dnn/*_1/kernel")]
        ['dnn/hiddenlayer_1/kernel']
        """
        return [Tensor(self, core) for core in self._opened_core().select(list(patterns), all)]

    def __getitem__(self, name: str) -> Tensor:
        return Tensor(self, self._opened_core().tensor(name))

    def __contains__(self, name: object) -> bool:
        try:
            self[name]  # type: ignore[index]
        except (KeyError, TypeError):
            return False
        return True

    def __iter__(self) -> Iterator[Any]:
        return (tensor.name for tensor in self.tensors())

    def __len__(self) -> int:
        return len(self._opened_core())

    def values(self):
        return self.tensors()

    def items(self):
        return [(tensor.name, tensor) for tensor in self.tensors()]

    def __repr__(self) -> str:
        return _table(f"{self.path} ({self.format})", self.tensors(), self.signatures)

    def _repr_html_(self) -> str:
        return _html_table(f"{self.path} ({self.format})", self.tensors())

    def __reduce__(self):
        return _receive, (self._how.absolute(), self.identity)

    def __dask_tokenize__(self):
        return ("mmconvert.Source", self.identity)


class Tensor:
    """One tensor of a :class:`Source`. Its data are read when they are asked for.

    ``tensor[10:20]`` reads these rows, ``tensor[[3, 1, 7]]`` those, both in parallel and without the GIL; ``numpy.asarray(tensor)`` reads
    all of it. Tensors can be pickled, as source and name.

    Examples
    --------
    >>> import mmconvert as mm
    >>> kernel = mm.open("tests/data/checkpoint/chicago_taxi/model.ckpt-1000")["dnn/hiddenlayer_1/kernel"]
    >>> kernel.shape, kernel.dtype, kernel.nbytes
    ((100, 70), dtype('float32'), 28000)
    >>> kernel[[3, 1, 3], 0]
    array([-0.10969622,  0.0952312 , -0.10969622], dtype=float32)
    """

    __slots__ = ("_core", "_dtype", "source")

    def __init__(self, source: Source, core: CoreTensor) -> None:
        #: The source that it belongs to.
        self.source = source
        self._core = core
        self._dtype: np.dtype | None = None

    @property
    def name(self) -> str | bytes:
        """The name that TensorFlow lists; ``bytes`` if it is not UTF-8."""
        return self._core.name

    @property
    def alias(self) -> str | None:
        """A friendlier name, which is accepted wherever a name is."""
        return self._core.alias

    @property
    def dtype(self) -> np.dtype:
        """The NumPy dtype; ``object`` for strings, whose elements are ``bytes``."""
        if self._dtype is None:
            self._dtype = np.dtype(self._core.item) if self._core.item else numpy_dtype(self._core.dtype)
        return self._dtype

    @property
    def tf_dtype(self) -> str:
        """TensorFlow's name of the dtype: ``"bfloat16"``, ``"string"``."""
        return self._core.dtype

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The length of every axis; ``None`` for one that is not known before everything has been read."""
        shape = self._core.shape
        if shape is None:
            raise UnsupportedError(f"the shape of {self._core.shown_name} is known only once it has been computed")
        # The bytes of an element are an axis of their own there.
        return tuple(shape[:-1] if self._core.item else shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements; axes of unknown length count as 0."""
        return math.prod(length or 0 for length in self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of elements; 0 if that is not known before reading."""
        return self._core.nbytes

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """The shape of the chunks that it is stored in, if reading a part of one takes decoding all of it."""
        chunks = self._core.chunks
        return None if chunks is None else tuple(chunks)

    @property
    def bookkeeping(self) -> bool:
        """Whether TensorFlow keeps it for itself: the object graph, the save counter."""
        return self._core.bookkeeping

    @property
    def unsupported(self) -> str | None:
        """Why it cannot be read, if it cannot."""
        return self._core.unsupported

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a scalar")
        if self.shape[0] is None:
            raise TypeError(f"the number of rows of {self._core.shown_name} is known only once it has been read")
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        return indexing.get(self, key)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a tensor in a file cannot become an array without a copy: use .map()")
        array = self.read()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __iter__(self) -> Iterator[Any]:
        rows = len(self)
        row_bytes = max(1, self.nbytes // max(1, rows))
        step = max(1, _ROWS_BYTES // row_bytes)
        for start in range(0, rows, step):
            yield from self[start : start + step]

    def read(self, start: int | None = None, stop: int | None = None, *, threads: int | None = None, verify: bool = True) -> np.ndarray:
        """Read rows ``start`` to ``stop`` of axis 0 into memory, or everything.

        Parameters
        ----------
        start, stop : int, optional
            As in a slice: negative ones count from the end.
        threads : int, optional
            The most threads to use.
        verify : bool
            Compare stored checksums of what is read completely.

        Returns
        -------
        numpy.ndarray

        Raises
        ------
        CorruptError
            If the source is damaged, or was written to since it was opened.
        UnsupportedError
            If it cannot be read; :attr:`unsupported` says why.
        RequestError
            For rows of a scalar.
        """
        self._core.check()
        shape = self.shape
        if self._core.is_text or self._core.is_of_records or None in shape or self._core.is_made:
            return self._read_by_way_of_a_file(start, stop, threads, verify)
        if start is None and stop is None:
            out = np.empty(shape, self.dtype)
            self._core.read(None, as_bytes(out), threads, verify)
            return out
        if not shape:
            raise RequestError(f"{self._core.shown_name} is a scalar, which has no rows to choose from", code="rows-of-scalar")
        start, stop, _ = slice(start, stop).indices(shape[0])
        out = np.empty((max(0, stop - start), *shape[1:]), self.dtype)
        self._core.read((start, max(start, stop)), as_bytes(out), threads, verify)
        return out

    def _read_by_way_of_a_file(self, start: int | None, stop: int | None, threads: int | None, verify: bool) -> np.ndarray:
        """Strings, and rows whose number is not known: they are converted in a temporary directory."""
        import tempfile

        rows = None if start is None and stop is None else (start, stop)
        options = {"threads": threads, "verify": verify, "strings": "offsets" if self._core.is_text else None}
        with scratch.beside(os.path.join(tempfile.gettempdir(), f"mmconvert-{os.getpid()}")) as directory:
            reports = _core.convert(self._core, os.path.join(directory, "x.npy"), rows, options, None)
            arrays = [np.array(load(report["path"], dtype=report["dtype"])) for report in reports]
        if len(arrays) == 1:
            return arrays[0]
        values, offsets = arrays
        if not self._core.is_text and values.dtype.kind != "u":
            raise UnsupportedError(f"{self._core.shown_name} has lists of different lengths: mmconvert.convert writes them with ragged=")
        return _strings(values, offsets, self.shape, rows)

    def map(self, mode: str = "r") -> Array:
        """The tensor in its file as an array, without converting or copying anything.

        Parameters
        ----------
        mode : str
            ``"r"``, or ``"c"`` for a private copy of the pages that are written to.

        Raises
        ------
        UnsupportedError
            If its bytes are not as an array has them; the message says why: compressed, in several pieces, in the other byte order,
            not aligned.

        Examples
        --------
        >>> import mmconvert as mm
        >>> kernel = mm.open("tests/data/checkpoint/chicago_taxi/model.ckpt-1000")["dnn/hiddenlayer_1/kernel"]
        >>> kernel.map().shape
        (100, 70)
        """
        if mode not in ("r", "c"):
            raise ValueError(f"mode is 'r' or 'c', not {mode!r}: a source is not written to")
        return self._map(mode)

    def _map(self, mode: str) -> Array:
        path, offset, is_fortran = self._core.in_place()
        shape = tuple(length or 0 for length in self.shape)
        if 0 in shape:
            return np.empty(shape, self.dtype).view(Array)
        array = np.memmap(path, dtype=self.dtype, mode=mode, offset=offset, shape=shape, order="F" if is_fortran else "C")
        return array.view(Array)

    def to_dask(self, chunks: Any = "auto") -> dask.array.Array:
        """The tensor as a dask array, which is read chunk by chunk.

        Parameters
        ----------
        chunks : int, tuple or "auto"
            As :func:`dask.array.from_array` takes them. ``"auto"`` respects the chunks that the tensor is stored in.
        """
        import dask.array

        meta = np.empty((0,) * self.ndim, self.dtype)
        name = f"mmconvert-{dask.base.tokenize(self, chunks)}"
        return dask.array.from_array(self, chunks=chunks, name=name, lock=False, asarray=True, fancy=True, meta=meta)

    def info(self) -> dict[str, Any]:
        """What is known of the tensor and of its place; see :func:`mmconvert.info`."""
        return info(self.source, self)

    def __dask_tokenize__(self):
        return ("mmconvert.Tensor", self.source.identity, self.name)

    def __reduce__(self):
        return _tensor_of, (self.source, self.name)

    def __repr__(self) -> str:
        lost = f", not converted: {self.unsupported}" if self.unsupported else ""
        return f"<Tensor {self._core.shown_name} {self.tf_dtype} {_shape_text(self._core)} of {self.source.path}{lost}>"

    def _repr_html_(self) -> str:
        return _html_table(f"{self.source.path} ({self.source.format})", [self])


def _tensor_of(source: Source, name: str) -> Tensor:
    return source[name]


def _strings(values: np.ndarray, offsets: np.ndarray, shape: tuple[int | None, ...], rows: tuple | None) -> np.ndarray:
    text = values.tobytes()
    bounds = offsets.tolist()
    strings = np.empty(len(bounds) - 1, object)
    strings[:] = [text[start:stop] for start, stop in zip(bounds, bounds[1:])]
    if not shape:
        return strings.reshape(())
    others = [length for length in shape[1:]]
    if None in others:
        return strings
    per_row = math.prod(length or 0 for length in others)
    count = len(strings) // per_row if per_row else len(range(*slice(*(rows or (None, None))).indices(shape[0] or 0)))
    return strings.reshape(count, *others)


def _shape_text(core: CoreTensor) -> str:
    shape = core.shape
    if shape is None:
        return "[…]"
    lengths = shape[:-1] if core.item else shape
    return "[" + ", ".join("?" if length is None else str(length) for length in lengths) + "]"


def _lines(tensors: Sequence[Tensor]) -> list[tuple[str, str, str, str, str]]:
    def line(tensor: Tensor) -> tuple[str, str, str, str, str]:
        core = tensor._core
        is_known = core.shape is not None and None not in core.shape and not core.is_text
        more = [core.alias] if core.alias else []
        if core.bookkeeping:
            more.append("bookkeeping")
        if core.feature:
            kind, (least, most), encoding, missing = core.feature
            more.append(f"{kind} of {least if least == most else f'{least} to {most}'}")
            more += [encoding] if encoding else []
            more += [f"missing in {missing}"] if missing else []
        if core.unsupported:
            more.append(f"not converted: {core.unsupported}")
        return core.shown_name, core.item or core.dtype, _shape_text(core), size(core.nbytes) if is_known else "-", ", ".join(more)

    return [line(tensor) for tensor in tensors[:_MOST_SHOWN]]


def _table(title: str, tensors: Sequence[Tensor], signatures: Sequence[dict[str, Any]] = ()) -> str:
    lines = _lines(tensors)
    widths = [max((len(line[column]) for line in lines), default=0) for column in range(4)]
    text = [title]
    for name, dtype, shape, nbytes, more in lines:
        text.append(f"  {name:<{widths[0]}}  {dtype:<{widths[1]}}  {shape:<{widths[2]}}  {nbytes:>{widths[3]}}  {more}".rstrip())
    if len(tensors) > len(lines):
        text.append(f"  … {len(tensors) - len(lines)} more")
    for signature in signatures:
        inputs, outputs = (", ".join(argument["name"] for argument in signature[side]) for side in ("inputs", "outputs"))
        text.append(f"  signature {signature['name'] or 'graph'}: {inputs} -> {outputs}")
    return "\n".join(text)


def _html_table(title: str, tensors: Sequence[Tensor]) -> str:
    from html import escape

    lines = _lines(tensors)
    head = "".join(f"<th style='text-align:left'>{column}</th>" for column in ("name", "dtype", "shape", "size", ""))
    rows = "".join("<tr>" + "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    more = f"<p>… {len(tensors) - len(lines)} more</p>" if len(tensors) > len(lines) else ""
    return f"<p><b>{escape(title)}</b></p><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{more}"


class Listing(list):
    """The tensors of a source, shown as a table."""

    def __init__(self, title: str, tensors: Sequence[Tensor], signatures: Sequence[dict[str, Any]]) -> None:
        super().__init__(tensors)
        self._title, self._signatures = title, signatures

    def __repr__(self) -> str:
        return _table(self._title, self, self._signatures)

    def _repr_html_(self) -> str:
        return _html_table(self._title, self)


def ls(source: Source | PathLike, *patterns: str, **options: Any) -> Listing:
    """List the tensors of a source.

    Parameters
    ----------
    source : Source or path
    *patterns : str
        Names and patterns, as :meth:`Source.select` takes them; without any, all tensors.
    **options
        For opening a path; see :func:`open`.

    Returns
    -------
    list of Tensor
        It is shown as a table.

    Examples
    --------
    >>> import mmconvert as mm
    >>> mm.ls("tests/data/checkpoint/chicago_taxi/model.ckpt-1000", "dnn/hiddenlayer_1/kernel")
    tests/data/checkpoint/chicago_taxi/model.ckpt-1000 (tensor-bundle)
      dnn/hiddenlayer_1/kernel  float32  [100, 70]  27.34 KiB
    """
    source = opened(source, options)
    tensors = source.select(*patterns) if patterns else source.tensors()
    return Listing(f"{source.path} ({source.format})", tensors, () if patterns else source.signatures)


def info(source: Source | PathLike, name: str | Tensor | None = None, **options: Any) -> dict[str, Any]:
    """What is known of a source, or of one of its tensors: format, shards, offsets, checksums, and what a conversion would take.

    Parameters
    ----------
    source : Source or path
    name : str or Tensor, optional
        The tensor; without it, the source as a whole.
    **options
        For opening a path; see :func:`open`.

    Returns
    -------
    dict

    Examples
    --------
    >>> import mmconvert as mm
    >>> facts = mm.info("tests/data/checkpoint/chicago_taxi/model.ckpt-1000", "dnn/hiddenlayer_1/kernel")
    >>> facts["shape"], facts["view_in_place"]
    ([100, 70], 'yes')
    """
    import json

    source = opened(source, options)
    facts: dict[str, Any] = {"source": source.path, "format": source.format}
    if name is None:
        tensors = source.tensors()
        facts["tensors"] = len(tensors)
        facts["convertible"] = sum(tensor.unsupported is None for tensor in tensors)
        facts["convertible_bytes"] = sum(tensor.nbytes for tensor in tensors if tensor.unsupported is None)
        facts.update(json.loads(source._core.facts()))
        if source._core.tag_sets():
            facts["tag_sets"] = source._core.tag_sets()
        return facts
    tensor = name if isinstance(name, Tensor) else source[name]
    core = tensor._core
    facts.update(json.loads(core.facts()))
    shape = core.shape if core.shape is None or not core.item else core.shape[:-1]
    facts.update(name=tensor.name, alias=core.alias, dtype=core.item or core.dtype, shape=shape, nbytes=core.nbytes)
    facts.update(convertible=core.unsupported is None, reason=core.unsupported)
    if core.unsupported is None:
        try:
            estimates = core.estimate(source.path, {})
            facts["conversion"] = estimates[0] if len(estimates) == 1 else estimates
        except Error as error:
            # That it cannot be converted without more options is known of it, too.
            facts["conversion"] = str(error)
        if not (core.is_text or core.is_of_records or core.is_made):
            try:
                core.in_place()
                facts["view_in_place"] = "yes"
            except UnsupportedError as error:
                facts["view_in_place"] = f"no: {error}"
    return facts


def opened(source: Source | PathLike | Sequence[PathLike], options: dict[str, Any]) -> Source:
    """The source, opened if it is a path."""
    if isinstance(source, Source):
        if options:
            raise TypeError(f"options for opening ({', '.join(options)}) are for paths: this source is open")
        return source
    return open(source, **options)
