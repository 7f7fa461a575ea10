"""Arrays of rows that Python makes."""

import threading

import mmconvert as mm
import numpy as np
import pytest
from conftest import framework, left_behind, same_bytes

FRAMES = np.random.default_rng(0).integers(0, 256, (50, 4, 6, 3), np.uint8)


@pytest.mark.parametrize("rows", [None, 50])
def test_rows_and_batches_are_appended(rows, tmp_path):
    with mm.ArrayWriter(tmp_path / "x.npy", dtype="uint8", shape=(rows, 4, 6, 3), memory="16MiB") as writer:
        writer.append(FRAMES[0])
        writer.append(FRAMES[1:30])
        writer.append(FRAMES[30:30])
        writer.append(FRAMES[30:].tolist())
        assert writer.shape == (rows, 4, 6, 3) and writer.dtype == np.uint8 and not (tmp_path / "x.npy").exists()
    assert same_bytes(writer.result, FRAMES) and same_bytes(np.load(tmp_path / "x.npy"), FRAMES) and writer.shape == FRAMES.shape


@pytest.mark.parametrize("rows", [None, 50])
def test_rows_are_written_at_their_places_from_many_threads(rows, tmp_path):
    with mm.ArrayWriter(tmp_path / "x.npy", dtype=np.uint8, shape=(rows, 4, 6, 3)) as writer:

        def write(first):
            for row in range(first, 50, 8):
                if row % 2:
                    writer[row : row + 1] = FRAMES[row : row + 1]
                else:
                    writer[row] = FRAMES[row]

        threads = [threading.Thread(target=write, args=(first,)) for first in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert same_bytes(writer.result, FRAMES)


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="mine"), mm.ArrayWriter(tmp_path / "x.npy", "uint8", (None, 4, 6, 3)) as writer:
        writer.append(FRAMES)
        raise RuntimeError("mine")
    assert left_behind(tmp_path) == []
    writer = mm.ArrayWriter(tmp_path / "x.npy", "uint8", (None, 4, 6, 3))
    writer.append(FRAMES)
    del writer
    assert left_behind(tmp_path) == []


def test_an_unfinished_array_is_none(tmp_path):
    writer = mm.ArrayWriter(tmp_path / "x.npy", "uint8", (50, 4, 6, 3))
    writer.append(FRAMES[:49])
    with pytest.raises(mm.RequestError, match="not finished"):
        writer.result
    with pytest.raises(mm.RequestError, match="49 of 50"):
        writer.finish()
    assert left_behind(tmp_path) == []
    with pytest.raises(ValueError, match="closed"):
        writer.append(FRAMES[:1])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda w: w.append(FRAMES[:, :3]),
        lambda w: w.append(FRAMES.astype(np.float32)),
        lambda w: w.append(FRAMES.astype(np.int64)),
        lambda w: w.append([[[[300, 0, 0]] * 6] * 4]),
        lambda w: w.append("text"),
        lambda w: w.__setitem__(slice(0, 2), FRAMES[:3]),
        lambda w: w.__setitem__(slice(0, 4, 2), FRAMES[:2]),
        lambda w: w.__setitem__((slice(0, 2), slice(0, 1)), FRAMES[:2, :1]),
        lambda w: w.__setitem__(slice(49, 51), FRAMES[:2]),
        lambda w: w.__setitem__(50, FRAMES[0]),
        lambda w: (w.__setitem__(0, FRAMES[0]), w.__setitem__(0, FRAMES[0])),
    ],
)
def test_what_does_not_fit_is_refused(wrong, tmp_path):
    writer = mm.ArrayWriter(tmp_path / "x.npy", "uint8", (50, 4, 6, 3))
    with pytest.raises((mm.RequestError, mm.LossyError, mm.UnsupportedError)):
        wrong(writer)
    writer.discard()
    assert left_behind(tmp_path) == []


def test_lossless_casts_are_made(tmp_path):
    with mm.ArrayWriter(tmp_path / "x.npy", "float64", (None, 3)) as writer:
        writer.append(np.arange(3, dtype=np.int32))
        writer.append(np.arange(3, dtype=">f4"))
        writer.append([1, 2.5, 3])
    assert writer.result.tolist() == [[0, 1, 2], [0, 1, 2], [1, 2.5, 3]]


@pytest.mark.parametrize("shape", [(None,), (7,), None, 7, (None, 0), (5, 0), (0, 3)])
def test_shapes_of_every_kind(shape, tmp_path):
    lengths = shape if isinstance(shape, tuple) else (shape,)
    expected = np.arange(7.0) if len(lengths) == 1 else np.empty((lengths[0] if lengths[0] is not None else 5, *lengths[1:]))
    with mm.ArrayWriter(tmp_path / "x.npy", np.float64, shape) as writer:
        if len(expected):
            writer.append(expected)
    assert writer.result.shape == expected.shape and same_bytes(np.load(tmp_path / "x.npy"), expected)


@pytest.mark.parametrize("shape", [(), (3, None), (-1, 3), (2**62, 2**62)])
def test_impossible_shapes_are_refused(shape, tmp_path):
    with pytest.raises(mm.RequestError):
        mm.ArrayWriter(tmp_path / "x.npy", "float32", shape)
    assert left_behind(tmp_path) == []


def test_existing_files_are_kept(tmp_path):
    (tmp_path / "x.npy").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        mm.ArrayWriter(tmp_path / "x.npy", "uint8", (None,))
    with mm.ArrayWriter(tmp_path / "x.npy", "uint8", (None,), overwrite=True) as writer:
        writer.append(np.arange(5, dtype=np.uint8))
        assert (tmp_path / "x.npy").read_text() == "mine"
    assert np.load(tmp_path / "x.npy").tolist() == [0, 1, 2, 3, 4]


def test_types_that_numpy_lacks(tmp_path):
    ml_dtypes = framework("ml_dtypes")
    values = np.arange(12).reshape(4, 3).astype(ml_dtypes.bfloat16)
    for dtype in ("bfloat16", ml_dtypes.bfloat16, values.dtype):
        with mm.ArrayWriter(tmp_path / "x.npy", dtype, (None, 3), overwrite=True) as writer:
            writer.append(values)
        assert same_bytes(writer.result, values)


def test_dask_stores_into_a_writer(tmp_path):
    da = framework("dask.array")
    values = np.arange(1000.0).reshape(100, 10)
    with mm.ArrayWriter(tmp_path / "x.npy", "float64", (100, 10)) as writer:
        da.store(da.from_array(values, chunks=(7, 10)), writer, lock=False)
    assert same_bytes(writer.result, values)
    writer = mm.ArrayWriter(tmp_path / "y.npy", "float64", (100, 10))
    with pytest.raises(mm.RequestError, match="rechunk"):
        da.store(da.from_array(values, chunks=(7, 5)), writer, lock=False)
    writer.discard()
