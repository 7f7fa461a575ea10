"""Data sets of tf.data: what is written is what iterating over them gives, joined along axis 0."""

from collections import namedtuple

import mmconvert as mm
import numpy as np
import pytest
from conftest import framework, left_behind, same_bytes

tf = framework("tensorflow")
Pair = namedtuple("Pair", "left right")
Dataset = tf.data.Dataset


def flat(structure, name=""):
    if isinstance(structure, dict):
        named = structure.items()
    elif isinstance(structure, (tuple, list)):
        named = zip(getattr(structure, "_fields", None) or map(str, range(len(structure))), structure)
    else:
        return {name: structure}
    return {inner: part for key, value in named for inner, part in flat(value, f"{name}/{key}" if name else str(key)).items()}


def joined(dataset, batched=False):
    """What iterating gives, as NumPy joins it."""
    parts = {}
    for element in dataset:
        for name, value in flat(element).items():
            parts.setdefault(name, []).append(value.numpy())
    join = np.concatenate if batched else np.stack
    arrays = {name: join([np.asarray(part) for part in values]) for name, values in parts.items()}
    return {name: array.astype("S") if array.dtype == object else array for name, array in arrays.items()}


def check(dataset, tmp_path, are_batches=False, **options):
    out = tmp_path / f"out{len(left_behind(tmp_path))}"
    done = mm.convert(dataset, out, **options)
    expected = joined(dataset, are_batches)
    if isinstance(done, mm.Array):
        assert list(expected) == [""] and same_bytes(done, expected[""])
    else:
        assert set(done) == set(expected) and all(same_bytes(done[name], array) for name, array in expected.items())
    return done


N = 103
ARRAYS = {"x": np.arange(N * 6, dtype="f4").reshape(N, 3, 2), "n": np.arange(N), "s": np.array([b"w" * (n % 5) for n in range(N)])}
STRUCTURES = {
    "array": lambda: ARRAYS["x"],
    "dict": lambda: ARRAYS,
    "tuple": lambda: (ARRAYS["x"], ARRAYS["n"]),
    "named": lambda: Pair(ARRAYS["x"], {"deep": (ARRAYS["n"], ARRAYS["s"])}),
    "types": lambda: {name: tf.cast(ARRAYS["n"], name) for name in ["bool", "int8", "uint16", "half", "double", "complex64", "bfloat16"]},
}


@pytest.mark.parametrize("make", STRUCTURES.values(), ids=STRUCTURES)
def test_structures(make, tmp_path):
    rows = Dataset.from_tensor_slices(make())
    check(rows, tmp_path)
    check(rows.batch(10), tmp_path, True)
    check(rows.batch(10, drop_remainder=True), tmp_path, True)
    check(rows.shuffle(50, seed=1, reshuffle_each_iteration=False), tmp_path)
    check(rows.batch(7).unbatch().take(20), tmp_path)


rows = Dataset.from_tensor_slices(ARRAYS["x"])
PIPELINES = {
    "prefetch": (rows.batch(8).prefetch(2), True),
    "cache": (rows.batch(8).cache().shuffle(100, seed=1, reshuffle_each_iteration=False), True),
    "take": (rows.batch(8).skip(1).take(4).repeat(2), True),
    "options": (rows.batch(8).with_options(tf.data.Options()), True),
    "parallel": (rows.batch(8, num_parallel_calls=2), True),
    "map": (rows.batch(8).map(lambda x: x * 2), True),
    "parallel map": (rows.batch(8, drop_remainder=True).map(lambda x: x[:, 0], num_parallel_calls=2).prefetch(1), True),
    "map to structure": (rows.batch(8).map(lambda x: {"a": x, "b": (x[:, 0], x[..., 1])}), True),
    "map that reduces": (rows.batch(8).map(lambda x: tf.reduce_sum(x)), False),
    "map before": (rows.map(lambda x: x[0]).batch(8), True),
    "filter": (rows.batch(8).filter(lambda x: x[0, 0, 0] > 100), True),
    "filter of rows": (rows.filter(lambda x: x[0, 0] % 4 < 2), False),
    "rebatch": (rows.batch(8).rebatch(5), True),
    "zip": (Dataset.zip((rows.batch(8), rows.batch(8))), True),
    "concatenate": (rows.batch(8).concatenate(rows.batch(9)), True),
    "sample": (Dataset.sample_from_datasets([rows.batch(8), rows.batch(9)], seed=1, rerandomize_each_iteration=False), True),
    "enumerate": (rows.enumerate(), False),
    "batch of batches": (rows.batch(4, drop_remainder=True).batch(3), True),
    "interleave": (rows.interleave(Dataset.from_tensors), False),
    "window": (rows.window(4, drop_remainder=True).flat_map(lambda w: w.batch(4, drop_remainder=True)), False),
    "padded": (Dataset.range(1, 12).map(lambda n: tf.range(n % 5)).padded_batch(4, padded_shapes=[5]), True),
    "range": (Dataset.range(1000), False),
    "generator": (Dataset.from_generator(lambda: ((i, [i, i]) for i in range(30)), output_types=(tf.int32, tf.float32)), False),
    "signature": (Dataset.from_generator(lambda: iter(range(30)), output_signature=tf.TensorSpec((), tf.int64)).batch(4), True),
    "unknown but alike": (Dataset.range(20).map(lambda n: tf.py_function(lambda n: tf.fill((3,), n), [n], tf.int64)), False),
    "reshape in a map": (rows.map(lambda x: tf.reshape(x, tf.reverse(tf.shape(x), [0]))), False),
}


@pytest.mark.parametrize(("dataset", "batched"), PIPELINES.values(), ids=PIPELINES)
def test_pipelines(dataset, batched, tmp_path):
    check(dataset, tmp_path, batched)
    check(dataset, tmp_path, batched, batched=batched, memory="16MiB")
    if not isinstance(dataset.element_spec, tuple):
        for cut in [(3, 7), (-2, None)]:
            expected = joined(dataset, batched)
            done = mm.convert(dataset, tmp_path / "cut", rows=cut, overwrite=True)
            for name, array in expected.items():
                assert same_bytes(done[name] if name else done, array[slice(*cut)])


def test_what_was_said_about_batches_counts(tmp_path):
    batches = rows.batch(10, drop_remainder=True)
    made = mm.convert(batches, tmp_path / "x.npy", batched=False)
    assert same_bytes(made, np.stack([batch.numpy() for batch in batches]))
    one = Dataset.from_tensors(ARRAYS["x"])
    assert mm.convert(one, tmp_path / "one.npy").shape == (1, *ARRAYS["x"].shape)
    assert same_bytes(mm.convert(one, tmp_path / "all.npy", batched=True), ARRAYS["x"])
    unknown = rows.batch(8).map(lambda x: tf.numpy_function(lambda x: x, [x], tf.float32))
    with pytest.raises(mm.RequestError, match="batched=True or batched=False"):
        mm.convert(unknown, tmp_path / "y.npy")
    assert same_bytes(mm.convert(unknown, tmp_path / "y.npy", batched=True), ARRAYS["x"])


def test_large_elements_and_options(tmp_path):
    large = Dataset.range(5).map(lambda n: tf.fill((1500, 1000), tf.cast(n, tf.float32)))
    check(large, tmp_path, memory="16MiB")
    check(large.batch(2), tmp_path, True, memory="16MiB")
    expected = joined(large)[""]
    made = mm.convert(large, tmp_path / "x.npy", dtype="u1", layout="F", rows=(1, 3), memory="32MiB")
    assert same_bytes(made, expected[1:3].astype("u1")) and made.flags.f_contiguous
    parts = mm.convert(Dataset.from_tensor_slices(ARRAYS), tmp_path / "s", strings="offsets")
    values, offsets = parts["s.values"].tobytes(), parts["s.offsets"].tolist()
    assert [values[a:b] for a, b in zip(offsets, offsets[1:])] == ARRAYS["s"].tolist()
    with pytest.warns(mm.SkippedWarning, match="s: .*string"):
        cast = mm.convert(Dataset.from_tensor_slices(ARRAYS), tmp_path / "cast", dtype="float64")
    assert same_bytes(cast["n"], ARRAYS["n"].astype("f8")) and set(cast) == {"x", "n"}
    told = []
    mm.convert(large, tmp_path / "p.npy", progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (expected.nbytes, expected.nbytes)
    many = Dataset.from_tensors({str(n): n for n in range(8)}).repeat(50)
    check(many, tmp_path, memory="16MiB")
    with pytest.raises(mm.LimitError, match="memory"):
        mm.convert(Dataset.from_tensors({str(n): n for n in range(80)}).repeat(50), tmp_path / "limit", memory="16MiB")


@pytest.mark.parametrize(
    "make",
    [
        lambda n: tf.ragged.range(tf.range(n, dtype=tf.int64) % 4),
        lambda n: tf.ragged.range(tf.range(n) % 4, row_splits_dtype=tf.int32),
        lambda n: tf.RaggedTensor.from_row_lengths(tf.random.normal((sum(k % 3 for k in range(n)), 2)), [k % 3 for k in range(n)]),
        lambda n: tf.ragged.constant([[["a"] * j for j in range(k % 4)] for k in range(n)], dtype=tf.string, ragged_rank=2),
    ],
    ids=["one axis", "int32", "inner axes", "two axes of strings"],
)
def test_ragged_components(make, tmp_path):
    n = 50
    ragged = make(n)
    rows = Dataset.from_tensor_slices({"r": ragged, "n": tf.range(n)})
    for number, dataset in enumerate([rows, rows.batch(7)]):
        done = mm.convert(dataset, tmp_path / str(number))
        values = ragged.flat_values.numpy()
        assert same_bytes(done["r/flat_values"], values.astype("S") if values.dtype == object else values)
        splits = ragged.nested_row_splits
        names = ["row_splits"] if len(splits) == 1 else [f"row_splits_{axis}" for axis in range(len(splits))]
        assert all(same_bytes(done[f"r/{name}"], split.numpy().astype("i8")) for name, split in zip(names, splits))
        with pytest.raises(mm.RequestError, match="skip\\(start\\)"):
            mm.convert(dataset, tmp_path / "cut", rows=(0, 3))
    empty = mm.convert(Dataset.from_tensor_slices(ragged).take(0), tmp_path / "empty")
    assert all(array.tolist() == [0] for name, array in empty.items() if "splits" in name) and len(empty["flat_values"]) == 0


def test_sparse_components(tmp_path):
    dense = np.where(np.arange(60).reshape(20, 3) % 4, 0, np.arange(60).reshape(20, 3))
    sparse = tf.sparse.from_dense(dense)
    for number, dataset in enumerate([Dataset.from_tensor_slices(sparse), Dataset.from_tensor_slices(sparse).batch(7)]):
        done = mm.convert(dataset, tmp_path / str(number))
        assert all(same_bytes(done[name], getattr(sparse, name).numpy()) for name in ("indices", "values", "dense_shape"))
    empty = mm.convert(Dataset.from_tensor_slices(sparse).take(0), tmp_path / "empty")
    assert empty["dense_shape"].tolist() == [0, 3] and empty["indices"].shape == (0, 2)
    growing = Dataset.range(1, 5).map(lambda n: tf.sparse.from_dense(tf.ones((n, 2), tf.int32)))
    done = mm.convert(growing, tmp_path / "growing", batched=True)
    expected = tf.sparse.concat(0, [element for element in growing])
    assert all(same_bytes(done[name], getattr(expected, name).numpy()) for name in ("indices", "values", "dense_shape"))


def test_empty_data_sets(tmp_path):
    done = mm.convert(Dataset.from_tensor_slices(ARRAYS).take(0), tmp_path / "d")
    assert {name: array.shape for name, array in done.items()} == {"x": (0, 3, 2), "n": (0,), "s": (0,)}
    done = mm.convert(Dataset.from_tensor_slices(ARRAYS).batch(5).filter(lambda batch: False), tmp_path / "f")
    assert done["x"].shape == (0, 3, 2) and done["x"].dtype == "f4"
    with pytest.raises(mm.RequestError, match="no element"):
        mm.convert(Dataset.from_generator(lambda: iter([]), output_types=tf.int32), tmp_path / "x.npy")


def test_what_has_no_array_is_listed(tmp_path):
    variant = tf.data.experimental.to_variant
    nested = Dataset.range(6).map(lambda n: {"n": n, "none": None, "d": Dataset.range(n), "v": variant(Dataset.range(n))})
    with pytest.warns(mm.SkippedWarning):
        done = mm.convert(nested, f"{tmp_path}/d/")
    assert list(done) == ["n"] and set(done.skipped) == {"none", "d", "v"}
    with pytest.raises(mm.UnsupportedError, match="DatasetSpec"):
        mm.convert(Dataset.range(6).window(2), tmp_path / "x.npy")


def test_errors_leave_nothing(tmp_path):
    def broken():
        yield 1
        raise KeyError("in the generator")

    cases = [
        (Dataset.range(3).repeat(), mm.RequestError, "take"),
        (Dataset.range(1, 9).map(lambda n: tf.range(n)), mm.RequestError, r"row 1 has the shape \[2\].*\[1\].*padded_batch.*batched=True"),
        (Dataset.range(30).map(lambda n: tf.range(n // 10)).padded_batch(5), mm.RequestError, r"row 10 has the shape \[1\]"),
        (Dataset.from_generator(broken, output_types=tf.int32), Exception, "in the generator"),
        (Dataset.range(3).map(lambda n: {"a": n, "b": tf.py_function(broken_map, [n], tf.int64)}), Exception, "in the map"),
        (Dataset.range(3).apply(tf.data.experimental.assert_cardinality(4)), Exception, "cardinality|4 elements"),
    ]
    for number, (dataset, error, text) in enumerate(cases):
        for options in [{}, {"layout": "F"}, {"rows": (0, 30)}]:
            with pytest.raises(error, match=text):
                mm.convert(dataset, tmp_path / str(number), **options)
    with pytest.raises(mm.RequestError, match="shape"):
        mm.convert(Dataset.range(3), tmp_path / "x", shape=(3,))
    assert left_behind(tmp_path) == []


def broken_map(n):
    if n == 2:
        raise ValueError("in the map")
    return n
