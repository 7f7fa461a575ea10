"""Rows and batches that an iterable hands out."""

import itertools
import os
import signal
import threading
import time
from collections import namedtuple

import mmconvert as mm
import numpy as np
import pytest
from conftest import left_behind, same_bytes

Pair = namedtuple("Pair", "left right")
ARRAY = np.arange(103 * 6, dtype="i4").reshape(103, 3, 2)


def batches(array, rows=10):
    return (array[start : start + rows] for start in range(0, len(array), rows))


def reused(memory):
    """Rows that are all in the same memory."""
    for row in ARRAY:
        memory[...] = row
        yield memory


class Sized:
    """Rows by their number, as data sets of torch have them."""

    def __init__(self, rows, length=None):
        self.rows, self.length = rows, len(rows) if length is None else length

    def __len__(self):
        return self.length

    def __getitem__(self, number):
        return self.rows[number]


WAYS = {
    "rows": (lambda: iter(ARRAY), {}),
    "list": (lambda: list(ARRAY), {}),
    "generator": (lambda: (row for row in ARRAY), {}),
    "sized": (lambda: Sized(ARRAY), {}),
    "lists": (lambda: (row.tolist() for row in ARRAY), {"dtype": "i4"}),
    "of known length": (lambda: iter(ARRAY), {"shape": ARRAY.shape}),
    "of unknown length": (lambda: iter(ARRAY), {"shape": (None, 3, 2)}),
    "said rows": (lambda: iter(ARRAY), {"batched": False}),
    "batches": (lambda: batches(ARRAY), {"batched": True}),
    "batches by shape": (lambda: batches(ARRAY), {"shape": ARRAY.shape}),
    "uneven batches": (lambda: iter([ARRAY[:1], ARRAY[1:1], ARRAY[1:100], ARRAY[100:]]), {"shape": (None, 3, 2)}),
    "list of batches": (lambda: list(batches(ARRAY)), {"batched": True}),
    "fortran": (lambda: iter(np.asfortranarray(ARRAY)), {}),
    "reused": (lambda: reused(np.empty((3, 2), "i4")), {}),
    "reused batches": (lambda: reused(np.empty((1, 3, 2), "i4")), {"batched": True}),
    "big-endian": (lambda: iter(ARRAY.astype(">i4")), {}),
}


@pytest.mark.parametrize(("make", "options"), WAYS.values(), ids=WAYS)
def test_rows_and_batches(make, options, tmp_path):
    convert = lambda **more: mm.convert(make(), tmp_path / "x.npy", overwrite=True, **{**options, **more})  # noqa: E731
    assert same_bytes(convert(), ARRAY)
    assert same_bytes(convert(memory="16MiB"), ARRAY)
    assert same_bytes(convert(dtype="float64"), ARRAY.astype("f8"))
    for rows in [(0, 5), (7, 50), (100, 999), (-4, -1), (None, None), (5, 5)]:
        assert same_bytes(convert(rows=rows), ARRAY[slice(*rows)]), rows
    made = convert(layout="F", byte_order="big", rows=(3, None))
    assert same_bytes(made, ARRAY[3:].astype(">i4")) and made.flags.f_contiguous
    assert left_behind(tmp_path) == ["x.npy"]


@pytest.mark.parametrize("dtype", ["bool", "u1", "f2", "c16", "M8[ms]", [("a", "i4"), ("b", "f8")]], ids=str)
def test_types(dtype, tmp_path):
    array = np.arange(40, dtype="i8").astype(dtype) if isinstance(dtype, str) else np.array([(n, n / 2) for n in range(40)], dtype)
    for number, obj in enumerate([iter(array), iter(array.reshape(10, 4)), list(array)]):
        assert np.array_equal(np.asarray(mm.convert(obj, tmp_path / f"{number}.npy")).reshape(-1), array)
    assert same_bytes(mm.convert(batches(array), tmp_path / "b.npy", batched=True), array)


def test_python_numbers_and_strings(tmp_path):
    for number, rows in enumerate([[1, 2, 3], [1.5, 2.5], [True, False], [1j, 2j], [[1, 2], [3, 4.5]], [[[1], [2]]], ((1, 2), (3, 4))]):
        assert same_bytes(mm.convert(rows, tmp_path / f"{number}.npy"), np.asarray(rows))
    assert mm.convert(iter([0.5, 1, True, np.float32(2)]), tmp_path / "mixed.npy").tolist() == [0.5, 1, 1, 2]
    assert same_bytes(mm.convert((float(n) for n in range(9)), tmp_path / "g.npy"), np.arange(9.0))
    words = ["a", "", "é€", "longer"]
    rows = [iter(words), iter(np.array(words)), [[w] for w in words], np.array(words).astype(object)]
    for number, obj in enumerate([*rows, batches(np.array(words), 2), batches(np.array(words, object), 3)]):
        options = {"batched": True} if number >= len(rows) else {}
        made = mm.convert(obj, tmp_path / f"s{number}.npy", strings="utf8", **options)
        assert made.reshape(-1).tolist() == words
    assert mm.convert(iter([b"a\0b", "c"]), tmp_path / "b.npy").tolist() == [b"a\0b", b"c"]
    assert mm.convert(iter(words), tmp_path / "r.npy", rows=(1, 3)).tolist() == [b"", "é€".encode()]


def test_structures(tmp_path):
    rows = lambda: ({"x": ARRAY[n], "deep": (n, Pair(float(n), f"row {n}")), "list": [ARRAY[n, 0], n]} for n in range(103))  # noqa: E731
    expected = {"x": ARRAY, "deep/0": np.arange(103), "deep/1/left": np.arange(103.0), "list/0": ARRAY[:, 0], "list/1": np.arange(103)}
    for number, options in enumerate([{}, {"memory": "16MiB"}]):
        done = mm.convert(rows(), tmp_path / str(number), **options)
        assert set(done) == {*expected, "deep/1/right"} and all(same_bytes(done[name], array) for name, array in expected.items())
        assert done["deep/1/right"].tolist() == [f"row {n}".encode() for n in range(103)]
    done = mm.convert(rows(), tmp_path / "cut", rows=(-3, None))
    assert all(same_bytes(done[name], array[-3:]) for name, array in expected.items())
    done = mm.convert(((ARRAY[n : n + 9], np.arange(n, min(n + 9, 103))) for n in range(0, 103, 9)), tmp_path / "b", batched=True)
    assert same_bytes(done["0"], ARRAY) and same_bytes(done["1"], np.arange(103))
    done = mm.convert({"rows": iter(ARRAY), "more": {"g": (n for n in range(3))}}, tmp_path / "d")
    assert same_bytes(done["rows"], ARRAY) and same_bytes(done["more/g"], np.arange(3))
    with pytest.warns(mm.SkippedWarning, match="deep/1/right: .*string"):
        cast = mm.convert(rows(), tmp_path / "cast", dtype="f4")
    assert same_bytes(cast["x"], ARRAY.astype("f4")) and set(cast) == set(expected)


def test_rows_that_are_larger_than_the_memory(tmp_path):
    rows = np.random.default_rng(0).integers(0, 255, (3, 40 << 20), np.uint8)
    assert np.array_equal(mm.convert(iter(rows), tmp_path / "x.npy", memory="16MiB"), rows)
    many = np.random.default_rng(0).normal(size=(200, 100_000))
    assert np.array_equal(mm.convert(batches(many, 50), tmp_path / "y.npy", memory="16MiB", batched=True), many)


def failing(rows, error):
    yield from rows
    raise error


ODD = {
    "shape": (lambda: iter([[1, 2], [3, 4], [5]]), {}, mm.RequestError, r"row 2 has the shape \[1\], the first has \[2\].*batched=True"),
    "dtype": (lambda: iter([1, 2, 3.5]), {}, mm.RequestError, "row 2 is float64, the first is int64"),
    "kind": (lambda: iter([1, "a"]), {}, mm.RequestError, "row 1 is string, the first is int64"),
    "other kind": (lambda: iter(["a", 1]), {}, mm.RequestError, "row 1 is int64, the first is string"),
    "late": (lambda: itertools.chain(iter(np.zeros(70_000)), [np.zeros(2)]), {}, mm.RequestError, "row 70000 "),
    "of a part": (lambda: iter([{"a": 1}, {"a": [1]}]), {}, mm.RequestError, "a: row 1 has the shape"),
    "parts": (lambda: iter([{"a": 1}, {"b": 1}]), {}, mm.RequestError, r"item 1 has the parts \['b'\], the first has \['a'\]"),
    "batch": (lambda: iter([ARRAY[:9], ARRAY[9:, :2]]), {"batched": True}, mm.RequestError, r"row 9 has the shape \[2, 2\], .* \[3, 2\]"),
    "batch of floats": (lambda: iter([ARRAY[:9], ARRAY[9:] / 2]), {"batched": True}, mm.RequestError, "row 9 is float64, .* int32"),
    "batch of strings": (lambda: iter([np.array(["a"]), np.array([1])]), {"batched": True}, mm.RequestError, "row 1 is int64, .* string"),
    "scalar batch": (lambda: iter([1, 2]), {"batched": True}, mm.RequestError, "batched=False"),
    "large integers in batches": (lambda: iter([np.array([0.5]), np.array([2**53 + 1])]), {"batched": True}, mm.LossyError, r"\[1\]"),
    "large integers": (lambda: iter([0.5, 2**53 + 1]), {}, mm.RequestError, "row 1 is int64"),
    "too many": (lambda: iter(ARRAY), {"shape": (100, 3, 2)}, mm.RequestError, "100 rows"),
    "too few": (lambda: iter(ARRAY), {"shape": (104, 3, 2)}, mm.RequestError, "103 of 104 rows"),
    "too few strings": (lambda: iter(["a", "b"]), {"shape": (3,)}, mm.RequestError, "2 of 3 rows"),
    "too few of the length": (lambda: Sized(ARRAY, 102), {"shape": (103, 3, 2)}, mm.RequestError, "102 of 103 rows"),
    "other shape": (lambda: iter(ARRAY), {"shape": (None, 2, 3)}, mm.RequestError, r"rows of shape \[2, 3\]; the first item has \[3, 2\]"),
    "shape of several": (lambda: iter([(1, 2)]), {"shape": (None,)}, mm.RequestError, "several"),
    "nothing": (lambda: iter([]), {}, mm.RequestError, "nothing"),
    "nothing of a shape": (lambda: iter([]), {"shape": (None, 3)}, mm.RequestError, "ArrayWriter"),
    "ragged": (lambda: iter([[[1], [2, 3]]]), {}, mm.RequestError, "inhomogeneous"),
    "no arrays": (lambda: iter([object()]), {}, mm.UnsupportedError, "object cannot"),
    "strict": (lambda: iter(ARRAY), {"strict": True}, mm.RequestError, "strict"),
    "strings": (lambda: iter(ARRAY), {"strings": "utf8"}, mm.RequestError, "strings"),
    "cast of strings": (lambda: iter(["a"]), {"dtype": "f4"}, mm.UnsupportedError, "cast from string"),
    "error": (lambda: failing(ARRAY, KeyError("mine")), {}, KeyError, "mine"),
    "error in batches": (lambda: failing(batches(ARRAY), KeyError("mine")), {"batched": True}, KeyError, "mine"),
    "error at once": (lambda: failing([], KeyError("mine")), {}, KeyError, "mine"),
    "error of strings": (lambda: failing(["a"], KeyError("mine")), {}, KeyError, "mine"),
    "interrupt": (lambda: failing(ARRAY, KeyboardInterrupt("now")), {}, KeyboardInterrupt, "now"),
    "exit": (lambda: failing(ARRAY, SystemExit(3)), {}, SystemExit, "3"),
}


@pytest.mark.parametrize(("make", "options", "error", "text"), ODD.values(), ids=ODD)
def test_errors_say_where_and_leave_nothing(make, options, error, text, tmp_path):
    for more in [{}, {"layout": "F"}]:
        with pytest.raises(error, match=text):
            mm.convert(make(), tmp_path / "x.npy", **options, **more)
        if error is not mm.UnsupportedError:
            # What cannot be converted at all is left out there.
            with pytest.raises(error, match=text):
                mm.convert({"a": np.arange(3), "b": make()}, tmp_path / "d", **options, **more)
        assert left_behind(tmp_path) == []


def test_endless_rows_are_cut(tmp_path):
    assert same_bytes(mm.convert(itertools.count(), tmp_path / "x.npy", rows=(5, 9)), np.arange(5, 9))
    taken = []
    rows = (taken.append(n) or n for n in itertools.count())
    mm.convert(rows, tmp_path / "y.npy", rows="0:3", memory="16MiB")
    # A block is made at a time.
    assert len(taken) <= 65536


def test_an_interrupt_ends_the_work_and_leaves_nothing(tmp_path):
    def slow():
        for _ in range(1000):
            time.sleep(0.01)
            yield np.zeros(1000)

    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        mm.convert(slow(), tmp_path / "x.npy")
    timer.join()
    assert left_behind(tmp_path) == []
