"""TensorFlow's objects: what is written is what TensorFlow itself gives."""

import mmconvert as mm
import numpy as np
import pytest
from conftest import framework, left_behind, same_bytes

tf = framework("tensorflow")

NAMES = "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64 complex64 complex128 bfloat16".split()
NAMES += "float8_e5m2 float8_e4m3fn int4 uint4 string qint8 quint8 qint16 quint16 qint32".split()
SHAPES = [(), (5,), (4, 3, 2), (0, 3), (3, 0)]


def dtype_of(name):
    from tensorflow.python.framework import dtypes

    return getattr(dtypes, name)


def tensor(name, shape):
    count = int(np.prod(shape))
    if name == "string":
        return tf.constant(np.array([b"", b"a", b"\xff\x00b", "é".encode()] * count, object)[:count].reshape(shape))
    if name.startswith("q"):
        integers = tf.constant(np.arange(count).reshape(shape), name[1:])
        return tf.bitcast(integers, dtype_of(name))
    return tf.constant((np.arange(count) % 7).reshape(shape).astype(dtype_of(name).as_numpy_dtype))


def own(value):
    """TensorFlow's own array of a tensor; of strings with the dtype that holds them all."""
    if value.dtype == tf.string:
        return np.asarray(value.numpy(), object).astype("S")
    return np.asarray(value.numpy())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_tensors_and_variables(name, shape, tmp_path):
    value = tensor(name, shape)
    expected = own(value)
    assert same_bytes(mm.convert(value, tmp_path / "x.npy"), expected)
    if not name.startswith("q") and not (name in ("int4", "uint4") and not shape):
        variable = tf.Variable(value)
        made = mm.convert({"v": variable, "t": value}, tmp_path / "d")
        assert same_bytes(made["v"], own(variable)) and same_bytes(made["t"], expected)
    assert not any(part.startswith(".") for part in left_behind(tmp_path))


def test_options(tmp_path):
    value = tf.reshape(tf.range(60, dtype=tf.float32), (6, 5, 2))
    assert same_bytes(mm.convert(value, tmp_path / "rows.npy", rows=(1, -1)), value[1:-1].numpy())
    assert same_bytes(mm.convert(value, tmp_path / "i.npy", dtype=tf.int32), value.numpy().astype("i4"))
    assert same_bytes(mm.convert(value, tmp_path / "h.npy", dtype="float16", strict=True), value.numpy().astype("f2"))
    bfloat16 = mm.convert(value, tmp_path / "b.npy", dtype=tf.bfloat16)
    assert same_bytes(bfloat16, tf.cast(value, tf.bfloat16).numpy())
    words = tf.constant(["é", "a"])
    assert mm.convert(words, tmp_path / "u.npy", strings="utf8").tolist() == ["é", "a"]
    with pytest.raises(mm.LossyError, match="zero|NUL|\\\\0"):
        mm.convert(tf.constant([b"ends\0"]), tmp_path / "nul.npy")
    big = tf.random.normal((1 << 20, 12))
    assert same_bytes(mm.convert(big, tmp_path / "big.npy", memory="16MiB"), big.numpy())


def test_a_variable_is_written_as_it_was(tmp_path):
    variable = tf.Variable(tf.zeros((4000, 1000)))

    def change(done, total):
        variable.assign(tf.ones_like(variable))

    assert not mm.convert(variable, tmp_path / "x.npy", progress=change).any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "string", "int8"])
def test_sharded_variables(dtype, tmp_path):
    from tensorflow.python.distribute.sharded_variable import ShardedVariable

    parts = [tensor(dtype, (rows, 3)) for rows in (4, 1, 0, 5)]
    sharded = ShardedVariable([tf.Variable(part) for part in parts])
    expected = own(tf.concat(parts, 0))
    assert same_bytes(mm.convert(sharded, tmp_path / "x.npy"), expected)
    for start, stop in [(3, 6), (0, 1), (5, 99), (-5, -4), (7, 7)]:
        made = mm.convert(sharded, tmp_path / "y.npy", rows=(start, stop), overwrite=True)
        assert made.tolist() == expected[start:stop].tolist()
    assert same_bytes(mm.convert(ShardedVariable([tf.Variable(parts[0])]), tmp_path / "1.npy"), own(parts[0]))
    large = [tf.random.normal((1000, 1000)) for _ in range(3)]
    made = mm.convert(ShardedVariable([tf.Variable(part) for part in large]), tmp_path / "large.npy", memory="16MiB", layout="F")
    assert np.array_equal(made, tf.concat(large, 0).numpy()) and made.flags.f_contiguous


RAGGED = {
    "one axis": lambda: tf.ragged.constant([[1, 2], [], [3]]),
    "inner": lambda: tf.RaggedTensor.from_row_lengths(tf.ones((5, 2)), [2, 0, 3]),
    "two axes": lambda: tf.ragged.constant([[[1], [2, 3]], [], [[4, 5, 6], []]]),
    "three axes": lambda: tf.ragged.constant([[[[1.0], []], []], [[[2.0, 3.0]]]]),
    "strings": lambda: tf.ragged.constant([["a", "bb"], [], ["é"]]),
    "no rows": lambda: tf.RaggedTensor.from_row_splits(tf.zeros((0,)), [0]),
    "int32 splits": lambda: tf.ragged.constant([[1], [2, 3]], row_splits_dtype=tf.int32),
    "slice": lambda: tf.ragged.constant([[1, 2], [], [3], [4, 5]])[1:3],
}


@pytest.mark.parametrize("make", RAGGED.values(), ids=RAGGED)
def test_ragged_tensors(make, tmp_path):
    ragged = make()
    done = mm.convert(ragged, tmp_path / "d")
    splits = ragged.nested_row_splits
    names = ["row_splits"] if len(splits) == 1 else [f"row_splits_{axis}" for axis in range(len(splits))]
    assert set(done) == {"flat_values", *names}
    assert same_bytes(done["flat_values"], own(ragged.flat_values))
    assert all(same_bytes(done[name], split.numpy()) for name, split in zip(names, splits))
    with pytest.raises(mm.RequestError, match="ragged\\[start:stop\\]"):
        mm.convert(ragged, tmp_path / "cut", rows=(0, 1))
    with pytest.raises(mm.RequestError, match="arrays do not fit"):
        mm.convert(ragged, tmp_path / "x.npy")


def test_sparse_tensors_and_what_tensor_arrays_hold(tmp_path):
    sparse = tf.sparse.from_dense([[0, 1, 0], [2, 0, 3]])
    done = mm.convert({"s": sparse}, tmp_path / "d")
    assert set(done) == {"s/indices", "s/values", "s/dense_shape"}
    assert all(same_bytes(done[f"s/{name}"], getattr(sparse, name).numpy()) for name in ("indices", "values", "dense_shape"))
    with pytest.raises(mm.RequestError, match="tf.sparse.slice"):
        mm.convert(sparse, tmp_path / "cut", rows=(0, 1))
    array = tf.TensorArray(tf.float32, size=3, element_shape=(2,)).unstack(tf.ones((3, 2)))
    assert same_bytes(mm.convert(array, tmp_path / "x.npy"), np.ones((3, 2), "f4"))


def test_what_has_no_array_says_why(tmp_path):
    slices = tf.IndexedSlices(tf.ones((1, 2)), [0], (3, 2))
    symbolic, variant = [], tf.data.experimental.to_variant(tf.data.Dataset.range(3))

    @tf.function
    def traced(x):
        symbolic.append(x)
        return x

    traced(tf.ones(3))
    for obj, text in [(slices, "convert_to_tensor"), (symbolic[0], "session="), (variant, "variants")]:
        with pytest.raises(mm.UnsupportedError, match=text):
            mm.convert(obj, tmp_path / "x.npy")
        with pytest.warns(mm.SkippedWarning, match="a: "):
            assert list(mm.convert({"a": obj, "b": tf.ones(2)}, f"{tmp_path}/d/", overwrite=True)) == ["b"]
    assert left_behind(tmp_path) == ["d", "d/b.npy", "d/manifest.json"]


def test_sessions(tmp_path):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        fed = v1.placeholder(tf.float32, (None, 3), "fed")
        variable = v1.get_variable("v", initializer=np.arange(6, dtype="f4").reshape(2, 3))
        product, words = fed * 2, tf.constant(["a", "é"])
        ragged, sparse = tf.ragged.constant([[1], [2, 3]]), tf.sparse.from_dense([[0, 1]])
        session.run(v1.global_variables_initializer())
        array = np.arange(9, dtype="f4").reshape(3, 3)
        feeds = {"session": session, "feed_dict": {fed: array}}
        assert same_bytes(mm.convert(product, tmp_path / "x.npy", **feeds), array * 2)
        assert same_bytes(mm.convert(product, tmp_path / "y.npy", rows=(1, None), dtype="f8", **feeds), (array * 2)[1:].astype("f8"))
        assert same_bytes(mm.convert(variable, tmp_path / "v.npy", session=session), session.run(variable))
        assert mm.convert(words[1], tmp_path / "w.npy", session=session).tolist() == "é".encode()
        structure = {"p": product, "list": [variable, words], "r": ragged, "s": sparse, "t": (tf.cast(product, tf.bfloat16),)}
        done = mm.convert(structure, tmp_path / "d", **feeds)
        expected = session.run(structure, {fed: array})
        assert same_bytes(done["p"], expected["p"]) and same_bytes(done["t/0"], expected["t"][0])
        assert same_bytes(done["list/0"], expected["list"][0])
        assert done["list/1"].tolist() == expected["list"][1].tolist()
        assert same_bytes(done["r/flat_values"], expected["r"].flat_values) and same_bytes(done["r/row_splits"], expected["r"].row_splits)
        assert same_bytes(done["s/values"], expected["s"].values) and same_bytes(done["s/dense_shape"], expected["s"].dense_shape)
        both = mm.convert([product, variable], tmp_path / "list", **feeds)
        assert same_bytes(both["0"], array * 2) and same_bytes(both["1"], session.run(variable))
        for obj in (product, variable, {"a": product}, ragged):
            with pytest.raises(mm.UnsupportedError, match="pass session="):
                mm.convert(obj, tmp_path / "z.npy")
        with pytest.raises(mm.UnsupportedError, match="None"):
            mm.convert(tf.no_op(), tmp_path / "z.npy", session=session)
        with pytest.raises(mm.RequestError, match="feed_dict"):
            mm.convert(product, tmp_path / "z.npy", feed_dict={fed: array})
        with pytest.raises(mm.RequestError, match="session"):
            mm.convert(array, tmp_path / "z.npy", session=session)
        with pytest.raises(tf.errors.InvalidArgumentError, match="fed"):
            mm.convert(product, tmp_path / "z.npy", session=session)
        with pytest.raises(mm.UnsupportedError, match="get_next"):
            mm.convert(tf.data.Dataset.range(3), tmp_path / "z.npy")
    assert not (tmp_path / "z.npy").exists() and not any(part.startswith(".") for part in left_behind(tmp_path))
