"""Element types: TensorFlow's names, NumPy's dtypes, and the bytes of arrays."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .errors import UnsupportedError

#: NumPy has no such types; ml_dtypes has, under the same names.
_OF_ML_DTYPES = {
    "bfloat16": "V2",
    "float8_e5m2": "V1",
    "float8_e4m3fn": "V1",
    "float8_e4m3fnuz": "V1",
    "float8_e4m3b11fnuz": "V1",
    "float8_e5m2fnuz": "V1",
    "int4": "V1",
    "uint4": "V1",
    "int2": "V1",
    "uint2": "V1",
    "float4_e2m1fn": "V1",
}
#: Quantised values are stored as plain integers.
_QUANTISED = {"qint8": "int8", "quint8": "uint8", "qint16": "int16", "quint16": "uint16", "qint32": "int32"}
_PLAIN = frozenset(
    ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
    + ["float16", "float32", "float64", "complex64", "complex128"]
)


@functools.cache
def numpy_dtype(name: str) -> np.dtype:
    """The NumPy dtype for TensorFlow's name of a type.

    bfloat16, float8 and integers of less than 8 bits are those of ``ml_dtypes`` where that is installed, else ``V2`` and ``V1``.
    Strings are ``object``: Python's ``bytes``.

    Examples
    --------
    >>> numpy_dtype("float32"), numpy_dtype("qint8")
    (dtype('float32'), dtype('int8'))
    """
    if name in _OF_ML_DTYPES:
        try:
            import ml_dtypes
        except ImportError:
            return np.dtype(_OF_ML_DTYPES[name])
        return np.dtype(getattr(ml_dtypes, name, _OF_ML_DTYPES[name]))
    if name in ("string", "resource", "variant"):
        return np.dtype(object)
    return np.dtype(_QUANTISED.get(name, name))


def dtype_name(dtype: Any) -> str:
    """The name of a dtype as the engine has it, from a name, a NumPy dtype, or a dtype of TensorFlow, torch or jax.

    Raises
    ------
    UnsupportedError
        For a dtype that no tensor has: dates, structured records.

    Examples
    --------
    >>> dtype_name(np.float32), dtype_name(">i2"), dtype_name(bool)
    ('float32', 'int16', 'bool')
    """
    if isinstance(dtype, str) and (dtype in _OF_ML_DTYPES or dtype in _QUANTISED or dtype == "string"):
        return dtype
    # tf.DType has as_numpy_dtype, torch.dtype is called torch.float32.
    if hasattr(dtype, "as_numpy_dtype"):
        return str(dtype.name)
    text = str(dtype)
    if text.startswith("torch."):
        return {"half": "float16", "float": "float32", "double": "float64"}.get(text[6:], text[6:])
    named = np.dtype(dtype)
    name = named.newbyteorder("=").name if named.kind in "biufc" else named.name
    if name not in _PLAIN and name not in _OF_ML_DTYPES:
        raise UnsupportedError(f"arrays of {named} cannot be written: their elements are no numbers that TensorFlow has; use numpy.save")
    return name


def is_text(dtype: np.dtype) -> bool:
    """Whether elements are strings: Python objects, or NumPy's ``S``, ``U`` and ``StringDType``."""
    return dtype.kind in "OSUT"


def as_bytes(array: np.ndarray) -> np.ndarray:
    """The bytes of a C-contiguous array, without a copy."""
    return array.reshape(-1).view(np.uint8)


def view_as(array: np.ndarray, name: str) -> np.ndarray:
    """The array with the dtype that its name stands for, without a copy: an array of ``V2`` as bfloat16."""
    if name not in _OF_ML_DTYPES:
        return array
    wanted = numpy_dtype(name)
    if array.dtype == wanted or array.dtype.kind != "V" or wanted.itemsize != array.dtype.itemsize:
        return array
    return array.view(wanted)
