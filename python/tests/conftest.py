"""Data, and oracles that are there or not."""

import importlib
import os
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    """Examples name data by their path from the root of the repository."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def data():
    return DATA


@pytest.fixture
def checkpoint():
    return str(DATA / "checkpoint" / "chicago_taxi" / "model.ckpt-1000")


def framework(name):
    """A framework, or a skip that says that it is not installed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return pytest.importorskip(name, reason=f"{name} is not installed")


def left_behind(directory):
    """Everything below a directory, hidden things included."""
    return sorted(str(path.relative_to(directory)) for path in Path(directory).rglob("*"))


def same_bytes(array, expected):
    """Whether dtype, shape and every byte agree."""
    array, expected = np.asarray(array), np.asarray(expected)
    return array.dtype == expected.dtype and array.shape == expected.shape and array.tobytes() == expected.tobytes()


def installed(name):
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True
