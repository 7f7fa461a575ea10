"""dask arrays: what is written is what they compute to."""

import threading

import mmconvert as mm
import numpy as np
import pytest
from conftest import framework, left_behind, same_bytes

framework("dask")
da = framework("dask.array")
dask = framework("dask")

ARRAY = np.random.default_rng(0).normal(size=(103, 40)) * 100


@pytest.mark.parametrize("chunks", [(10, 40), (10, 7), (103, 3), (1, 40), (-1, -1), ((50, 0, 53), 40)], ids=str)
@pytest.mark.parametrize("dtype", ["f8", "i2", "bool", ">f4", "c8", "S3", "U2", "M8[s]"])
def test_arrays(dtype, chunks, tmp_path):
    array = ARRAY.astype("i8").astype(dtype)
    lazy = da.from_array(array, chunks=chunks)
    native = array.astype(array.dtype.newbyteorder("="))
    assert same_bytes(mm.convert(lazy, tmp_path / "x.npy"), native)
    assert same_bytes(mm.convert(lazy, tmp_path / "r.npy", rows=(20, -7)), native[20:-7])
    if array.dtype.kind in "fib":
        assert same_bytes(mm.convert(lazy + 0, tmp_path / "f.npy", layout="F", dtype="f4", memory="32MiB"), (native + 0).astype("f4"))


def test_types_and_shapes(tmp_path):
    ml_dtypes = framework("ml_dtypes")
    half = ARRAY.astype(ml_dtypes.bfloat16)
    assert same_bytes(mm.convert(da.from_array(half, chunks=(7, 9)), tmp_path / "b.npy"), half)
    assert mm.convert(da.from_array(ARRAY).sum(), tmp_path / "sum.npy")[()] == pytest.approx(ARRAY.sum())
    for number, shape in enumerate([(0, 3), (3, 0), (2, 3, 4, 5)]):
        array = np.ones(shape, "i4")
        assert same_bytes(mm.convert(da.from_array(array, chunks=2), tmp_path / f"{number}.npy"), array)
    words = np.array(["a", "é", "ccc", ""], object)
    assert mm.convert(da.from_array(words, chunks=3), tmp_path / "w.npy", strings="utf8").tolist() == words.tolist()
    done = mm.convert({"a": da.from_array(ARRAY, chunks=9), "b": [da.ones(3)]}, tmp_path / "d")
    assert same_bytes(done["a"], ARRAY) and same_bytes(done["b/0"], np.ones(3))


def test_chunks_of_unknown_length(tmp_path):
    lazy = da.from_array(ARRAY, chunks=(10, 7))
    mask = da.from_array(ARRAY[:, 0], chunks=10) > 0
    assert same_bytes(mm.convert(lazy[mask], tmp_path / "x.npy"), ARRAY[ARRAY[:, 0] > 0])
    for rows in [(5, 9), (-3, None)]:
        assert same_bytes(mm.convert(lazy[mask], tmp_path / "x.npy", rows=rows, overwrite=True), ARRAY[ARRAY[:, 0] > 0][slice(*rows)])
    with pytest.raises(mm.RequestError, match="compute_chunk_sizes"):
        mm.convert(lazy[:, da.from_array(ARRAY[0], chunks=7) > 0], tmp_path / "y.npy")


@pytest.mark.parametrize("is_known", [True, False])
def test_few_chunks_are_computed_at_a_time_and_each_once(is_known, tmp_path):
    computed, lock = [], threading.Lock()

    def chunk(number):
        with lock:
            computed.append(int(number))
        return np.full((500, 1000), number)

    parts = [da.from_delayed(dask.delayed(chunk)(n), (500 if is_known else np.nan, 1000), dtype="i8") for n in range(12)]
    lazy, seen = da.concatenate(parts, allow_unknown_chunksizes=True), []
    made = mm.convert(lazy, tmp_path / "x.npy", progress=lambda done, total: seen.append((done, len(computed))))
    assert np.array_equal(made[::500, 0], np.arange(12)) and sorted(computed) == list(range(12))
    # 4 MB each: two fit into a block.
    assert all(count * 4_000_000 <= done + (8 << 20) for done, count in seen)
    if is_known:
        computed.clear()
        mm.convert(lazy, tmp_path / "r.npy", rows=(600, 700))
        assert computed == [1]


def test_schedulers(tmp_path):
    lazy = da.from_array(ARRAY, chunks=(10, 7)) * 2
    for scheduler in ("threads", "sync"):
        with dask.config.set(scheduler=scheduler):
            assert same_bytes(mm.convert(lazy, tmp_path / f"{scheduler}.npy"), ARRAY * 2)


def test_distributed(tmp_path):
    distributed = framework("distributed")
    lazy = da.from_array(ARRAY, chunks=(10, 7)) * 2
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None):
        assert same_bytes(mm.convert(lazy, tmp_path / "x.npy"), ARRAY * 2)


def test_storing_into_a_writer(tmp_path):
    lazy = da.from_array(ARRAY, chunks=(10, 40))
    with mm.ArrayWriter(tmp_path / "x.npy", "f8", ARRAY.shape) as writer:
        da.store(lazy, writer, lock=False)
    assert same_bytes(writer.result, ARRAY)


def test_errors_leave_nothing(tmp_path):
    def broken(block):
        if block.size and block.flat[0] == 50:
            raise RuntimeError("in a chunk")
        return block

    lazy = da.arange(100, chunks=10).map_blocks(broken, dtype="i8")
    for number, obj in enumerate([lazy, {"a": da.ones(3), "b": lazy}]):
        with pytest.raises(RuntimeError, match="in a chunk"):
            mm.convert(obj, tmp_path / str(number))
    for obj in (dask.delayed(np.ones)(3), dask.delayed(1) + 1):
        with pytest.raises(mm.UnsupportedError, match="compute"):
            mm.convert(obj, tmp_path / "x.npy")
    assert left_behind(tmp_path) == []
