"""The examples in docstrings."""

import doctest
import importlib
import pkgutil

import mmconvert
import pytest

MODULES = ["mmconvert", *(f"mmconvert.{found.name}" for found in pkgutil.iter_modules(mmconvert.__path__) if found.name != "_core")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(str(error))
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0
