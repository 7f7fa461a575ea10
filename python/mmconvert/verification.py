""":func:`verify`: arrays compared with the sources they were made from, element by element."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from . import _core, dtypes
from .errors import DifferentError, NoSuchTensorError, RequestError
from .progress import Progress, reporting
from .sources import PathLike, Source, open as open_source

_PARTS = (".values", ".offsets")


def verify(
    path: PathLike,
    name: str | None = None,
    *,
    against: Source | PathLike | Sequence[PathLike] | None = None,
    rows: Any = None,
    dtype: Any = None,
    strings: str | None = None,
    concat: bool = False,
    memory: int | str | None = None,
    threads: int | None = None,
    checksums: bool = True,
    progress: bool | Progress | None = None,
    **options: Any,
) -> dict[str, str]:
    """Compare every element of an array, or of all arrays in a directory or a safetensors file, with its source.

    Parameters
    ----------
    path : path
        A ``.npy``, or a directory or safetensors file that :func:`convert` made.
    name : str, optional
        The tensor; not needed if the source has only one, or for everything in a directory.
    against : Source, path or sequence of paths, optional
        The source. Default: as in the manifest of a directory.
    rows, dtype, strings, concat
        How the array was made, where that is not in the manifest of a directory.
    memory, threads, progress
        As for :func:`convert`.
    checksums : bool
        Compare the checksums of the source, too.
    **options
        How the source is read: see :func:`convert`.

    Returns
    -------
    dict of str to str
        For each array, by its path, how much of its source the source's checksums cover: ``"full"``, ``"partial"`` or ``"not"``.

    Raises
    ------
    DifferentError
        If an array differs; ``differences`` says where.

    Examples
    --------
    >>> import mmconvert as mm, tempfile
    >>> out, ckpt = tempfile.mkdtemp(), "tests/data/checkpoint/chicago_taxi/model.ckpt-1000"
    >>> kernel = mm.convert(ckpt, "dnn/hiddenlayer_1/kernel", f"{out}/kernel.npy")
    >>> list(mm.verify(f"{out}/kernel.npy", "dnn/hiddenlayer_1/kernel", against=ckpt).values())
    ['full']
    """
    from .conversion import _FOR_OPENING, _FOR_RECORDS, _ends

    out = os.fsdecode(path)
    arrays = [out] if os.path.exists(out) else [_part_path(out, part) for part in _PARTS]
    if not os.path.exists(arrays[0]):
        raise FileNotFoundError(2, "there is no array", out)
    unknown = set(options) - {*_FOR_OPENING, *_FOR_RECORDS, "format", "byte_order"}
    if unknown:
        raise TypeError(f"verify() got an unexpected keyword argument {sorted(unknown)[0]!r}")
    manifest = _core.manifest_of(out) if os.path.isdir(out) else None
    records = {key: value for key, value in options.items() if key in _FOR_RECORDS}
    source = _source(out, against, manifest, concat, {key: value for key, value in options.items() if key in (*_FOR_OPENING, "format")})
    core = source._opened_core() if isinstance(source, Source) else source
    made = {"memory": memory, "threads": threads, "verify": checksums if manifest is None or not checksums else None, **records}
    made |= {"dtype": None if dtype is None else dtypes.dtype_name(dtype), "strings": strings, "byte_order": options.get("byte_order")}
    ends = _ends(rows)
    if ends is None and manifest is not None:
        ends = manifest["rows"]
    results: dict[str, str] = {}
    differences: dict[str, str] = {}
    with reporting(progress, os.path.basename(out.rstrip("/"))) as report:
        for array, packed, tensor, cast in _pairs(out, arrays, core, name, manifest):
            shown = array if packed is None else f"{array}: {packed.shown_name}"
            how = {**made, "dtype": cast or made["dtype"]}
            if not os.path.exists(array):
                differences[shown] = "the file is missing"
                continue
            covered, difference = _core.compare(array, packed, tensor, ends, out if manifest else None, how, report)
            if difference is not None:
                differences[shown] = f"compared with {tensor.shown_name}: {difference}"
            else:
                results[shown] = str(covered)
    if differences:
        first = next(iter(differences.items()))
        more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
        raise DifferentError(f"{first[0]} differs: {first[1]}{more}", differences=differences)
    return results


def _part_path(out: str, part: str) -> str:
    return f"{out.removesuffix('.npy')}{part}.npy"


def _source(out: str, against: Any, manifest: dict[str, Any] | None, concat: bool, options: dict[str, Any]) -> Any:
    if isinstance(against, Source):
        return against
    given = [] if against is None else [against] if isinstance(against, (str, bytes, os.PathLike)) else list(against)
    paths = [os.fsdecode(each) for each in given]
    if manifest is not None and "format" not in options:
        return _core.Source.of_manifest(out, paths, concat, options)
    if not paths:
        raise RequestError(f"{out} does not record its source: name it with against=")
    return open_source(paths, concat=concat, **options)


def _pairs(out: str, arrays: list[str], core: Any, name: str | None, manifest: dict[str, Any] | None) -> list[tuple[str, Any, Any, str | None]]:
    """Each array, or tensor of a safetensors file, with its tensor and the dtype it was cast to."""
    wanted = None if name is None else core.tensor(name)
    is_wanted = lambda tensor: wanted is None or wanted.name == tensor.name  # noqa: E731
    if manifest is not None:
        listed = [(os.path.join(out, file), None, core.tensor(tensor), cast) for tensor, file, cast in manifest["files"]]
        pairs = [pair for pair in listed if is_wanted(pair[2])]
    elif out.endswith(".safetensors"):
        listed = [(out, packed, _packed_from(core, packed.name), None) for packed in _core.Source.open([out], "safetensors", False, {}).tensors()]
        pairs = [pair for pair in listed if is_wanted(pair[2])]
    else:
        if wanted is None:
            candidates = [tensor for tensor in core.select([], False) if tensor.unsupported is None]
            if len(candidates) != 1:
                raise RequestError(f"{core.path} holds {len(candidates)} tensors: name the one that {out} was made from")
            wanted = candidates[0]
        pairs = [(array, None, wanted, None) for array in arrays]
    if not pairs:
        raise RequestError(f"{out} has no array of {name}")
    return pairs


def _packed_from(core: Any, name: str) -> Any:
    """The tensor of an array in a safetensors file: the one with its name, or with its name minus the suffix of a part."""
    try:
        return core.tensor(name)
    except NoSuchTensorError:
        for part in _PARTS:
            if name.endswith(part):
                return core.tensor(name.removesuffix(part))
        raise
