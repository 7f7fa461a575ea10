"""Arrays that are not of a framework: NumPy, HDF5, zarr, and whatever has a shape, a dtype and slices."""

import os
import subprocess
import sys
import warnings
from collections import namedtuple

import mmconvert as mm
import numpy as np
import pytest
from conftest import framework, left_behind, same_bytes

NUMBERS = "bool i1 u1 i2 u2 i4 u4 i8 u8 f2 f4 f8 c8 c16".split()
#: Elements that are copied as they are.
OTHERS = ["S3", "U4", "M8[us]", "m8[D]", "V5", [("a", "<i4"), ("b", ">f8", (2,)), ("c", "S3")]]
SHAPES = [(), (7,), (5, 3, 2), (0, 4), (4, 0), (0,), (1, 1, 1, 1)]


def elements(dtype, shape):
    dtype, count = np.dtype(dtype), int(np.prod(shape))
    rng = np.random.default_rng(0)
    if dtype.kind in "SU":
        return np.array(["abc"[: n % 4] for n in range(count)], dtype).reshape(shape)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    return np.ndarray(shape, dtype, rng.bytes(count * dtype.itemsize) or b"\0" * dtype.itemsize)


class Sliced:
    """An array that is elsewhere: only slices of it can be had, and they are written down."""

    def __init__(self, array, **more):
        self.array, self.shape, self.dtype, self.fetched = array, array.shape, array.dtype, []
        self.__dict__.update(more)

    def __getitem__(self, key):
        part = self.array[key]
        self.fetched.append((key, part.nbytes))
        return part


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", NUMBERS + OTHERS, ids=str)
def test_numpy(dtype, shape, tmp_path):
    array = elements(dtype, shape)
    assert same_bytes(mm.convert(array, tmp_path / "x.npy"), array)
    assert same_bytes(mm.convert(Sliced(array), tmp_path / "y.npy"), array)
    assert left_behind(tmp_path) == ["x.npy", "y.npy"]


VIEWS = {
    "fortran": lambda a: np.asfortranarray(a),
    "transposed": lambda a: a.T,
    "axes": lambda a: a.transpose(1, 0, 2),
    "step": lambda a: a[::2, 1::2],
    "backwards": lambda a: a[::-1, :, ::-1],
    "broadcast": lambda a: np.broadcast_to(a[:1], (6, *a.shape[1:])),
    "nothing": lambda a: a[:, :, 2:2],
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "big-endian fortran": lambda a: np.asfortranarray(a.astype(a.dtype.newbyteorder(">"))),
    "big-endian step": lambda a: a.astype(a.dtype.newbyteorder(">"))[::2],
    "unaligned": lambda a: np.frombuffer(b"x" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "scalar": lambda a: np.asarray(a[1, 2, 1]) if a.dtype.kind == "S" else a[1, 2, 1],
    "python": lambda a: a.tolist(),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("dtype", ["i2", "f8", "c16", "S3"])
def test_any_order_of_elements(dtype, view, tmp_path):
    array = view(elements(dtype, (6, 4, 5)))
    if isinstance(array, list):
        if dtype == "S3":
            pytest.skip("Python's strings have no length")
        expected = np.asarray(array)
    else:
        expected = np.asarray(array)
    expected = expected.astype(expected.dtype.newbyteorder("="))
    native = lambda made: np.asarray(made).astype(made.dtype.newbyteorder("="))  # noqa: E731
    for obj in [array, Sliced(expected)]:
        for rows in [slice(None)] if not expected.ndim else [slice(None), slice(1, -1), slice(2, 3)]:
            wanted = expected[rows] if expected.ndim else expected
            options = {"rows": rows, "overwrite": True} if expected.ndim else {"overwrite": True}
            assert same_bytes(mm.convert(obj, tmp_path / "x.npy", **options), wanted)
            made = mm.convert(obj, tmp_path / "x.npy", byte_order="big", **options)
            assert same_bytes(native(made), wanted) and (made.dtype.byteorder == ">" or made.dtype.byteorder == "|")
            if dtype == "S3" and expected.ndim > 1 and expected.size:
                with pytest.raises(mm.UnsupportedError, match="order"):
                    mm.convert(obj, tmp_path / "x.npy", layout="F", **options)
                continue
            made = mm.convert(obj, tmp_path / "x.npy", layout="F", **options)
            assert same_bytes(made, wanted) and made.flags.f_contiguous
    if not expected.ndim:
        with pytest.raises(mm.RequestError, match="scalar"):
            mm.convert(array, tmp_path / "x.npy", rows=(0, 1), overwrite=True)
    assert left_behind(tmp_path) == ["x.npy"]


def test_types_of_ml_dtypes(tmp_path):
    ml_dtypes = framework("ml_dtypes")
    for name in ["bfloat16", "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2fnuz", "int4", "uint4"]:
        for shape in [(), (5, 3), (0, 2)]:
            array = np.arange(int(np.prod(shape))).reshape(shape).astype(getattr(ml_dtypes, name))
            for kind, obj in {"whole": array, "step": array[::2] if shape else array, "sliced": Sliced(array)}.items():
                made = mm.convert(obj, tmp_path / f"{name}-{kind}-{len(shape)}.npy", overwrite=True)
                assert same_bytes(made, getattr(obj, "array", obj)), name
                assert made.report.dtype == made.report.source_dtype == name
            assert same_bytes(mm.convert(array, tmp_path / "f.npy", dtype="float32", overwrite=True), array.astype(np.float32))


def test_strings(tmp_path):
    words = np.array([[b"a", b"", b"longer"], ["é", "z", b"\xff\x00x"]], object)
    expected = np.array([[w.encode() if isinstance(w, str) else w for w in row] for row in words.tolist()], "S")
    objects = {"array": words, "sliced": Sliced(words), "fortran": np.asfortranarray(words)}
    for name, obj in objects.items():
        assert same_bytes(mm.convert(obj, tmp_path / f"{name}.npy"), expected)
        parts = mm.convert(obj, tmp_path / f"{name}-o.npy", strings="offsets")
        values, offsets = parts["array.values"].tobytes(), parts["array.offsets"].tolist()
        assert [values[a:b] for a, b in zip(offsets, offsets[1:])] == expected.reshape(-1).tolist()
        assert mm.convert(obj, tmp_path / f"{name}-r.npy", rows=(1, None)).tolist() == expected[1:].tolist()
    text = np.array(["a", "é€", ""])
    variants = [text, text.astype(object), Sliced(text)]
    if hasattr(np.dtypes, "StringDType"):
        variants.append(text.astype(np.dtypes.StringDType()))
    for number, array in enumerate(variants):
        assert same_bytes(mm.convert(array, tmp_path / f"u{number}.npy", strings="utf8"), text)
        assert mm.convert(array, tmp_path / f"p{number}.npy", strings="pad").tolist() == [w.encode() for w in text.tolist()]
    assert mm.convert(np.array("é", object), tmp_path / "0.npy").tolist() == "é".encode()
    assert mm.convert(np.array([], object), tmp_path / "none.npy").shape == (0,)
    with pytest.raises(mm.UnsupportedError, match="int"):
        mm.convert(np.array(["a", 1], object), tmp_path / "not.npy")
    assert not (tmp_path / "not.npy").exists() and not any(name.startswith(".") for name in left_behind(tmp_path))


@pytest.mark.parametrize(
    ("obj", "error", "text"),
    [
        (np.ma.masked_array([1, 2], [True, False]), mm.UnsupportedError, "mask"),
        ([np.ma.masked_array([1, 2], [True, False])], mm.UnsupportedError, "mask"),
        (Sliced(np.ma.masked_array([1, 2], [True, False])), mm.UnsupportedError, "mask"),
        (np.array([(None,)], [("o", object)]), mm.UnsupportedError, "Python objects"),
        (np.arange(3, dtype=np.longdouble), mm.UnsupportedError, "numpy.save"),
        (object(), mm.UnsupportedError, "object cannot"),
        (dict, mm.UnsupportedError, "type"),
        (len, mm.UnsupportedError, "builtin"),
        ({}, mm.RequestError, "empty"),
        (None, mm.UnsupportedError, "NoneType"),
        ({"a": None, "b": {}, "c": len}, mm.UnsupportedError, "a: it is None; b: it is empty; c: "),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_no_array_is_refused(obj, error, text, tmp_path):
    with pytest.raises(error, match=text):
        mm.convert(obj, tmp_path / "x.npy")
    assert left_behind(tmp_path) == []


def test_memmaps_and_their_parts(tmp_path):
    array = np.memmap(tmp_path / "raw", np.float32, "w+", shape=(50, 20))
    array[:] = np.arange(1000).reshape(50, 20)
    array.flush()
    assert same_bytes(mm.convert(array, tmp_path / "x.npy"), np.arange(1000, dtype="f4").reshape(50, 20))
    made = mm.convert(array[5:9, ::3], tmp_path / "y.npy")
    assert same_bytes(made, array[5:9, ::3]) and same_bytes(mm.convert(made, tmp_path / "z.npy"), made)


@pytest.mark.parametrize("memory", ["16MiB", "64MiB", None])
def test_only_one_slice_of_bounded_size_is_fetched_at_a_time(memory, tmp_path):
    most = {"16MiB": 1 << 20, "64MiB": 8 << 20, None: 8 << 20}[memory]
    for shape in [(3000, 1000), (3, 2, 1_000_000), (12_000_000,), (2, 3_000_000)]:
        fake = Sliced(np.arange(int(np.prod(shape)), dtype="i4").reshape(shape))
        assert same_bytes(mm.convert(fake, tmp_path / "x.npy", memory=memory, overwrite=True), fake.array)
        assert max(nbytes for _, nbytes in fake.fetched) <= most and sum(nbytes for _, nbytes in fake.fetched) == fake.array.nbytes
        fake.fetched.clear()
        assert same_bytes(mm.convert(fake, tmp_path / "x.npy", rows=(1, 2), memory=memory, overwrite=True), fake.array[1:2])
        # Only what is wanted is fetched.
        assert sum(nbytes for _, nbytes in fake.fetched) == fake.array[1:2].nbytes


def test_slices_respect_chunks(tmp_path):
    fake = Sliced(np.zeros((10000, 1000)), chunks=(300, 1000))
    mm.convert(fake, tmp_path / "x.npy")
    assert all(key.start % 300 == 0 for key, _ in fake.fetched) and len(fake.fetched) > 1
    fake.fetched.clear()
    mm.convert(fake, tmp_path / "x.npy", rows=(100, 9000), overwrite=True)
    assert fake.fetched[0][0].start == 100 and all(key.start % 300 == 0 for key, _ in fake.fetched[1:])


@pytest.mark.parametrize("make", [lambda a: a, Sliced, iter, lambda a: np.repeat(a, 2, 1)[:, ::2]], ids=["array", "sliced", "rows", "step"])
def test_options(make, tmp_path):
    array = np.arange(-6, 6, dtype="i8").reshape(4, 3) * 1000
    out = tmp_path / "x.npy"
    convert = lambda **options: mm.convert(make(array), out, overwrite=True, **options)  # noqa: E731
    assert same_bytes(convert(dtype="float32"), array.astype("f4"))
    assert same_bytes(convert(dtype="int8"), array.astype("i1"))
    assert same_bytes(convert(dtype="i4", strict=True), array.astype("i4"))
    assert same_bytes(convert(dtype="float64", layout="F", byte_order="big", rows=(1, 3)), array[1:3].astype(">f8"))
    assert same_bytes(convert(layout="C", byte_order="native"), array) and same_bytes(convert(byte_order="little"), array)
    assert same_bytes(convert(method="portable"), array)
    for rows in [(1, 2), (None, 99), (3, 1), (-3, -1), (2, None), (-99, 2)]:
        assert same_bytes(convert(rows=rows), array[slice(*rows)]), rows
    before = out.read_bytes()
    with pytest.raises(mm.LossyError, match=r"\[0, 0\]") as caught:
        convert(dtype="int8", strict=True)
    assert caught.value.index == [0, 0]
    without_effect = {"strict": True, "strings": "pad", "feed_dict": {}, "ragged": "pad", "jpeg": "fast", "raw": "u1", "all": True}
    without_effect |= {"concat": True, "channels": 3, "salvage": True}
    without_effect |= {} if hasattr(make(array), "__next__") else {"batched": False, "shape": array.shape}
    for name, value in without_effect.items():
        with pytest.raises(mm.RequestError, match=f"{name}.*effect|only|for opening"):
            convert(**{name: value})
    for name, value in {"layout": "X", "byte_order": "middle", "method": "magic", "dtype": "float33"}.items():
        with pytest.raises((ValueError, TypeError), match=f"{name}|float33"):
            convert(**{name: value})
    with pytest.raises(mm.LimitError, match="memory"):
        convert(memory="1MiB")
    assert out.read_bytes() == before and left_behind(tmp_path) == ["x.npy"]


def test_a_lossy_element_is_named_by_its_place_in_the_array(tmp_path):
    array = np.zeros((5000, 1000), "i8")
    array[4321, 17] = 1 << 40
    ways = [(array, {}), (Sliced(array), {}), (iter(array), {}), ({"a": array}, {}), (iter(np.split(array, 10)), {"batched": True})]
    for obj, options in ways:
        with pytest.raises(mm.LossyError, match=r"\[4321, 17\]") as caught:
            mm.convert(obj, tmp_path / "x", dtype="int32", strict=True, **options)
        assert caught.value.index == [4321, 17]
    assert left_behind(tmp_path) == []


def test_several_arrays_share_the_options_that_they_can(tmp_path):
    arrays = {"n": np.arange(3), "s": np.array(["a", "bb", "c"], object), "f": np.asfortranarray(np.ones((3, 2), "f4"))}
    done = mm.convert(arrays, tmp_path / "utf8", strings="utf8")
    assert done["s"].dtype == "U2" and same_bytes(done["n"], arrays["n"])
    with pytest.warns(mm.SkippedWarning, match="s: .*string"):
        done = mm.convert(arrays, tmp_path / "cast", dtype="float64")
    assert set(done) == {"n", "f"} and done["f"].dtype == "f8" and "s" in done.skipped
    with pytest.raises(mm.RequestError, match="strings"):
        mm.convert({"n": arrays["n"], "f": arrays["f"]}, tmp_path / "none", strings="utf8")
    done = mm.convert(arrays, tmp_path / "rows", rows=(1, None), layout="F")
    assert done["n"].tolist() == [1, 2] and done["s"].tolist() == [b"bb", b"c"] and done["f"].flags.f_contiguous
    with pytest.raises(mm.RequestError, match="x: .*scalar"):
        mm.convert({**arrays, "x": np.float32(1)}, tmp_path / "scalar", rows=(1, None))
    assert {name.split("/")[0] for name in left_behind(tmp_path)} == {"utf8", "cast", "rows"}


Pair = namedtuple("Pair", "left right")


def test_nested_structures(tmp_path):
    a = np.arange(4).reshape(2, 2)
    nested = {"x": a, "y": {"z": [a, a[0]], 7: Pair(a, (1.5, 2))}, "list": [[1, 2], [3, 4]], "words": ["a", "é"]}
    nested |= {"no": None, "f": {"g": len, "h": []}}
    with pytest.warns(mm.SkippedWarning) as warned:
        done = mm.convert(nested, tmp_path / "d")
    assert warned[0].filename == __file__
    assert set(done.skipped) == {"no", "f/g", "f/h"}
    expected = {"x": a, "y/z/0": a, "y/z/1": a[0], "y/7/left": a, "y/7/right": np.array([1.5, 2]), "list": np.array([[1, 2], [3, 4]])}
    assert set(done) == {*expected, "words"} and all(same_bytes(done[name], array) for name, array in expected.items())
    assert [word.decode() for word in done["words"]] == ["a", "é"]
    pair = mm.convert(Pair(a, a[0]), tmp_path / "pair")
    assert set(pair) == {"left", "right"} and same_bytes(pair["right"], a[0])
    assert set(mm.convert((a, a[0]), tmp_path / "tuple")) == {"0", "1"}
    with pytest.warns(mm.SkippedWarning, match="b: it is None"):
        assert same_bytes(mm.convert({"a": a, "b": None}, tmp_path / "x.npy"), a)
    with pytest.raises(mm.RequestError, match="'a/b'"):
        mm.convert({"a": {"b": a}, "a/b": a}, tmp_path / "twice")


def test_outputs_are_replaced_only_if_they_may_be(tmp_path):
    array, out = np.arange(6), tmp_path / "x.npy"
    out.write_text("mine")
    texts = np.array(["a"], object)
    for obj in [array, Sliced(array), iter(array), texts, Sliced(texts), array.astype("M8[s]"), array[::-1]]:
        for options in [{}, {"byte_order": "big"}]:
            with pytest.raises(FileExistsError, match="overwrite=True") as caught:
                mm.convert(obj, out, **options)
            assert caught.value.filename == str(out)
    assert out.read_text() == "mine" and left_behind(tmp_path) == ["x.npy"]
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine").write_text("mine")
    with pytest.raises(FileExistsError):
        mm.convert({"a": array, "b": texts}, tmp_path / "d")
    assert left_behind(tmp_path / "d") == ["mine"]
    done = mm.convert({"a": array, "b": texts}, tmp_path / "d", overwrite=True)
    assert left_behind(tmp_path / "d") == ["a.npy", "b.npy", "manifest.json", "mine"] and same_bytes(done["a"], array)
    mm.convert({"a": array * 2, "b": texts}, tmp_path / "d", overwrite=True)
    assert np.array_equal(np.load(tmp_path / "d" / "a.npy"), array * 2)
    for obj in [array, Sliced(array), texts, {"a": array}]:
        with pytest.raises(FileNotFoundError):
            mm.convert(obj, tmp_path / "none" / "x.npy")


def test_an_array_that_fails_leaves_nothing(tmp_path):
    class Broken(Sliced):
        def __getitem__(self, key):
            if key.start > 1000:
                raise OSError("the device is gone")
            return super().__getitem__(key)

    broken = Broken(np.zeros((4000, 1000)))
    for number, obj in enumerate([broken, {"a": np.arange(3), "b": broken, "c": np.arange(3)}]):
        for options in [{}, {"layout": "F"}]:
            with pytest.raises(OSError, match="device is gone"):
                mm.convert(obj, tmp_path / str(number), **options)
    assert left_behind(tmp_path) == []
    out = mm.convert({"a": np.arange(3)}, f"{tmp_path}/kept/")
    with pytest.raises(OSError, match="device is gone"):
        mm.convert({"a": np.arange(4), "b": broken}, tmp_path / "kept", overwrite=True)
    assert out["a"].shape == (3,) and left_behind(tmp_path) == ["kept", "kept/a.npy", "kept/manifest.json"]


def test_tensors_of_sources_among_others(checkpoint, tmp_path):
    source = mm.open(checkpoint)
    name = "dnn/hiddenlayer_1/kernel"
    done = mm.convert({"kernel": source[name], "all": {key: source[key] for key in [name, "dnn/hiddenlayer_1/bias"]}}, tmp_path / "d")
    assert set(done) == {"kernel", f"all/{name}", "all/dnn/hiddenlayer_1/bias"} and same_bytes(done["kernel"], source[name][...])


def test_hdf5(tmp_path):
    h5py = framework("h5py")
    arrays = {dtype: elements(dtype, (40, 5)) for dtype in ["bool", "i1", "<i2", ">i4", "f2", "f8", "c8", "S3", "u8"]}
    arrays["record"] = elements([("a", "<i4"), ("b", "<f8", (2,))], (6,))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for number, (name, array) in enumerate(arrays.items()):
            chunks = {"chunks": (3, *array.shape[1:]), "compression": "gzip"} if number % 2 else {}
            file.create_dataset(f"g{number % 3}/{name}", data=array, **chunks)
        file["scalar"], file["words"], file["word"] = 2.5, ["a", "é", ""], "é"
        file["empty"] = np.zeros((0, 3), "i4")
        file.create_group("nothing")
        file["null"] = h5py.Empty("f4")
        file.create_dataset("lists", (2,), h5py.vlen_dtype(np.int32))
        file["reference"] = file["scalar"].ref
        with pytest.warns(mm.SkippedWarning) as warned:
            done = mm.convert(file, tmp_path / "all")
        assert set(done.skipped) == {"nothing", "null", "lists", "reference"} and len(warned) == 1
        found = {}
        file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        assert set(done) == set(found) - set(done.skipped)
        for name in set(done) - {"words", "word"}:
            expected = np.asarray(found[name][()])
            expected = expected if expected.dtype.names else expected.astype(expected.dtype.newbyteorder("="))
            assert same_bytes(done[name], expected), name
            if len(expected.shape) and len(expected):
                made = mm.convert(file[name], tmp_path / "one.npy", rows=(2, 5), overwrite=True)
                assert same_bytes(made, expected[2:5]), name
        assert [w.decode() for w in done["words"]] == ["a", "é", ""] and done["word"].tolist().decode() == "é"
        text = next(item for name, item in found.items() if name.endswith("S3"))
        assert mm.convert(text, tmp_path / "u.npy", strings="utf8").tolist() == text[()].astype("U").tolist()
        one = mm.convert(file["g0"], tmp_path / "group")
        assert set(one) == {name.removeprefix("g0/") for name in found if name.startswith("g0/")}


def test_zarr(tmp_path):
    zarr = framework("zarr")
    group = zarr.create_group({})
    for dtype in ["bool", "i1", "u2", "f2", "f4", "f8", "c16", "i8"]:
        array = group.create_array(f"numbers/{dtype}", shape=(50, 30), chunks=(7, 11), dtype=dtype)
        array[...] = elements(dtype, (50, 30))
        made = mm.convert(array, tmp_path / f"{dtype}.npy", memory="16MiB")
        assert same_bytes(made, array[...])
        assert same_bytes(mm.convert(array, tmp_path / f"{dtype}.npy", rows=(-3, None), overwrite=True), array[-3:])
    with warnings.catch_warnings():
        # zarr warns of dtypes that its third format does not specify.
        warnings.filterwarnings("ignore", module="zarr")
        group.create_array("scalar", shape=(), dtype="f4")[...] = 1.5
        words = group.create_array("words", shape=(3,), dtype=str, chunks=(2,))
        words[...] = np.array(["a", "é", "ccc"], object)
        dates = group.create_array("dates", shape=(3,), dtype="M8[s]", chunks=(2,))
        dates[...] = np.array([1, 2, 3], "M8[s]")
    done = mm.convert(group, tmp_path / "all")
    assert set(done) == {*(f"numbers/{d}" for d in ["bool", "i1", "u2", "f2", "f4", "f8", "c16", "i8"]), "scalar", "words", "dates"}
    assert done["scalar"][()] == 1.5 and [w.decode() for w in done["words"]] == ["a", "é", "ccc"] and same_bytes(done["dates"], dates[...])


def test_sparse_matrices_are_refused(tmp_path):
    class Matrix(Sliced):
        # As those of SciPy: its slices are no arrays.
        def __getitem__(self, key):
            return Matrix(self.array[key])

        __array__ = None

    with pytest.raises((mm.UnsupportedError, TypeError)):
        mm.convert(Matrix(np.eye(3)), tmp_path / "x.npy")
    assert left_behind(tmp_path) == []


def test_nothing_is_imported_that_the_caller_has_not_imported():
    code = """
import sys, tempfile
import numpy as np, mmconvert as mm
out = tempfile.mkdtemp()
mm.convert({"a": np.arange(3), "b": (np.zeros(2) for _ in range(3)), "c": np.array(["x"], object), "d": np.ones((9, 9))[::2]}, out + "/d")
mm.convert(iter([{"x": 1, "y": "s"}]), out + "/e", rows=(0, 1))
mm.predict(lambda x: x, np.arange(3.0), out + "/p.npy")
frameworks = {"tensorflow", "torch", "jax", "dask", "keras", "tf_keras", "h5py", "zarr", "tqdm", "ml_dtypes", "pandas", "distributed"}
assert not frameworks & set(sys.modules), frameworks & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
