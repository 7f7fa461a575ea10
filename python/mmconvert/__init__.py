"""TensorFlow tensors, in files or in hand, that are bigger than memory, as memory-mapped NumPy arrays.

>>> import mmconvert as mm, tempfile
>>> src = mm.open("tests/data/checkpoint/chicago_taxi/model.ckpt-1000")
>>> out = tempfile.mkdtemp()
>>> kernel = mm.convert(src, "dnn/hiddenlayer_1/kernel", f"{out}/kernel.npy")
>>> kernel.shape, kernel.report.verified
((100, 70), 'full')

:func:`open` opens every format, :func:`convert` writes tensors and objects of TensorFlow, torch, jax, dask and others, within a memory
limit; :class:`ArrayWriter` writes rows that a program makes, :func:`predict` what a model makes of them. Nothing is imported that the
caller has not imported.
"""

import os as _os
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from . import errors
from ._core import VERSION as __version__
from .conversion import convert
from .errors import (
    CorruptError,
    DifferentError,
    Error,
    LimitError,
    LossyError,
    NoSuchTensorError,
    RequestError,
    SkippedWarning,
    SourceWarning,
    UnsupportedError,
)
from .results import Array, Arrays, Report, load
from .sources import Source, Tensor, formats, info, ls, open  # noqa: A004
from .verification import verify
from .writing import ArrayWriter

if _TYPE_CHECKING:
    from .prediction import predict


def __getattr__(name: str) -> _Any:
    # Together with what writes objects, this takes longer to import than everything else.
    if name == "predict":
        from .prediction import predict

        return predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "predict"])


def _import_the_rest() -> None:
    """Import what is otherwise imported when it is needed.

    Before a fork: a module that another thread is importing would stay locked in the child.
    """
    import hashlib  # noqa: F401
    import html  # noqa: F401
    import json  # noqa: F401
    import mmap  # noqa: F401
    import tempfile  # noqa: F401

    from . import datasets, iterables, objects, prediction, storing  # noqa: F401


if hasattr(_os, "register_at_fork"):
    _os.register_at_fork(before=_import_the_rest)

__all__ = [
    "Array",
    "ArrayWriter",
    "Arrays",
    "CorruptError",
    "DifferentError",
    "Error",
    "LimitError",
    "LossyError",
    "NoSuchTensorError",
    "Report",
    "RequestError",
    "SkippedWarning",
    "Source",
    "SourceWarning",
    "Tensor",
    "UnsupportedError",
    "__version__",
    "convert",
    "errors",
    "formats",
    "info",
    "load",
    "ls",
    "open",
    "predict",
    "verify",
]
