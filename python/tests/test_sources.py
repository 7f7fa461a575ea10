"""Sources and lazy tensors: what indexing reads is what NumPy would give of the whole array."""

import pickle
import warnings

import mmconvert as mm
import numpy as np
import pytest
from conftest import DATA, framework, same_bytes

#: A sample of every way in which tensors are stored.
SAMPLES = [
    "checkpoint/chicago_taxi/model.ckpt-1000",
    "generated/six_shards",
    "savedmodel/half_plus_two",
    "keras/dk_model.keras",
    "keras-h5/tf_keras_2_20.weights.h5",
    "safetensors",
    "npy",
    "records/penguin_eval.gz",
    "tfds/labels",
    "graph/addition.pb",
]


def sources():
    for sample in SAMPLES:
        path = DATA / sample
        files = sorted(path.iterdir()) if sample in ("safetensors", "npy") else [path]
        for file in files:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", mm.SourceWarning)
                    yield mm.open(file)
            except (mm.Error, OSError):
                # Samples of what is not read, which other tests are about.
                continue


def tensors():
    for source in sources():
        for tensor in source.tensors():
            if tensor.unsupported is None:
                yield pytest.param(tensor, id=f"{source.path.removeprefix(str(DATA))}:{tensor.name}")


ALL = list(tensors())


def whole(tensor):
    return np.asarray(tensor)


def test_there_are_tensors_of_every_kind():
    found = [parameter.values[0] for parameter in ALL]
    assert len(found) > 100
    assert {tensor.dtype.kind for tensor in found} >= set("fiubO")
    assert any(tensor.shape == () for tensor in found)


@pytest.mark.parametrize("tensor", ALL)
def test_what_is_read_is_what_is_converted(tensor, tmp_path):
    try:
        array = mm.convert(tensor, tmp_path / "x.npy")
    except (mm.LossyError, mm.RequestError, mm.UnsupportedError):
        # Strings that NumPy's S would cut, ragged lists.
        pytest.skip("it needs an option to become an array")
    read = whole(tensor)
    if tensor.dtype == object:
        assert read.shape == array.shape
        assert read.reshape(-1).tolist() == array.reshape(-1).tolist()
    else:
        assert same_bytes(read, array)
        assert read.dtype == tensor.dtype
    assert mm.verify(tmp_path / "x.npy", tensor.name, against=tensor.source)


KEYS = [
    slice(None),
    slice(1, 3),
    slice(-2, None),
    slice(None, None, 2),
    slice(None, None, -1),
    slice(5, 1),
    0,
    -1,
    np.int64(0),
    np.array(0),
    [],
    [0],
    [0, 0, -1],
    np.array([[0, -1], [-1, 0]]),
    np.array([0], np.uint8),
    ...,
    (..., 0),
    (0, ...),
    (0, 0),
    (slice(None), 0),
    (slice(0, 2), [0, -1]),
    ([0, -1], [0, 0]),
    ([0, -1], slice(None)),
    ([[0], [-1]], [0, 0]),
    (0, [0]),
    (None, 0),
    (),
    (0, slice(None), [0, 0]),
    ([0, 0], None, 0),
    True,
    10**9,
    [10**9],
    -(10**9),
    (0,) * 9,
    1.5,
    "x",
    [0.5],
]


@pytest.mark.parametrize("tensor", [parameter for parameter in ALL if parameter.values[0].nbytes < 1 << 16][::7])
def test_indexing_is_numpys(tensor):
    expected = whole(tensor)
    for key in [*KEYS, np.arange(len(expected)) % 2 == 0 if expected.ndim else [True], expected != expected]:
        try:
            wanted = expected[key]
        except (IndexError, ValueError) as error:
            with pytest.raises(type(error)):
                tensor[key]
            continue
        found = tensor[key]
        assert np.shape(found) == np.shape(wanted), key
        assert np.asarray(found).dtype == np.asarray(wanted).dtype, key
        assert np.asarray(found).tolist() == np.asarray(wanted).tolist() or np.isnan(np.asarray(wanted, float)).any(), key


def test_iteration_and_length(checkpoint):
    kernel = mm.open(checkpoint)["dnn/hiddenlayer_1/kernel"]
    assert len(kernel) == 100 and kernel.ndim == 2 and kernel.size == 7000
    assert np.array_equal(np.stack(list(kernel)), whole(kernel))
    assert np.array_equal(np.asarray(kernel, np.float64), whole(kernel).astype(np.float64))
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(kernel, copy=False)
    with pytest.raises(TypeError):
        len(mm.open(checkpoint)["global_step"])


def test_checkpoints_equal_tensorflow(checkpoint):
    tf = framework("tensorflow")
    reader = tf.train.load_checkpoint(checkpoint)
    source = mm.open(checkpoint)
    assert sorted(source) == sorted(reader.get_variable_to_shape_map())
    for name, tensor in source.items():
        assert same_bytes(whole(tensor), reader.get_tensor(name)), name


def test_a_source_is_a_mapping(checkpoint):
    source = mm.open(checkpoint)
    assert len(source) == len(list(source)) == len(source.items()) == len(source.values())
    assert "dnn/hiddenlayer_1/kernel" in source and "nope" not in source and 3 not in source
    assert source.get("nope") is None
    assert [tensor.name for tensor in source.select("dnn/*_1/kernel")] == ["dnn/hiddenlayer_1/kernel"]
    with pytest.raises(KeyError, match="did you mean") as caught:
        source["dnn/hiddenlayer_1/kernal"]
    assert isinstance(caught.value, mm.NoSuchTensorError)
    assert caught.value.nearest[0] == "dnn/hiddenlayer_1/kernel" and caught.value.name == "dnn/hiddenlayer_1/kernal"


def test_tables(checkpoint):
    source = mm.open(checkpoint)
    for text in (repr(source), source._repr_html_(), repr(mm.ls(checkpoint)), mm.ls(source)._repr_html_()):
        assert "dnn/hiddenlayer_1/kernel" in text and "[100, 70]" in text and "27.34 KiB" in text
    assert "[100, 70]" in repr(source["dnn/hiddenlayer_1/kernel"])
    assert "serving_default" in repr(mm.open(DATA / "savedmodel" / "half_plus_two"))


def test_info_tells_what_the_program_tells(checkpoint):
    facts = mm.info(checkpoint, "dnn/hiddenlayer_1/kernel")
    assert facts["dtype"] == "float32" and facts["shape"] == [100, 70] and facts["nbytes"] == 28000
    assert facts["conversion"]["write_bytes"] == 28000 and facts["view_in_place"] == "yes"
    assert mm.info(checkpoint)["convertible"] == len(mm.open(checkpoint))


def test_maps_are_the_bytes_in_the_file(checkpoint, tmp_path):
    kernel = mm.open(checkpoint)["dnn/hiddenlayer_1/kernel"]
    mapped = kernel.map()
    assert isinstance(mapped, np.memmap) and same_bytes(mapped, whole(kernel))
    with pytest.raises(ValueError, match="read-only"):
        mapped[0, 0] = 1
    with pytest.raises(ValueError, match="mode"):
        kernel.map("r+")
    private = kernel.map("c")
    private[0, 0] = 7
    assert private[0, 0] == 7 and kernel[0, 0] != 7
    np.save(tmp_path / "f.npy", np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    assert same_bytes(next(iter(mm.open(tmp_path / "f.npy").values())).map(), np.arange(6.0).reshape(2, 3))
    np.save(tmp_path / "big.npy", np.arange(6, dtype=">i4"))
    with pytest.raises(mm.UnsupportedError, match="big-endian"):
        next(iter(mm.open(tmp_path / "big.npy").values())).map()


def test_types_that_numpy_lacks(tmp_path):
    ml_dtypes = framework("ml_dtypes")
    for name in ("bfloat16", "float8_e5m2", "float8_e4m3fn", "int4", "uint4"):
        values = np.arange(-4, 4).astype(getattr(ml_dtypes, name))
        array = mm.convert(values, tmp_path / f"{name}.npy")
        assert same_bytes(array, values) and array.report.dtype == name
        assert same_bytes(mm.load(tmp_path / f"{name}.npy", dtype=name), values)


def test_tensors_and_sources_are_pickled_as_their_paths(checkpoint, tmp_path):
    kernel = mm.open(checkpoint)["dnn/hiddenlayer_1/kernel"]
    text = pickle.dumps(kernel)
    assert len(text) < 1000
    first, second = pickle.loads(text), pickle.loads(text)
    assert same_bytes(whole(first), whole(kernel)) and first.source is second.source
    assert list(pickle.loads(pickle.dumps(kernel.source))) == list(kernel.source)
    np.save(tmp_path / "x.npy", np.arange(5))
    text = pickle.dumps(mm.open(tmp_path / "x.npy"))
    np.save(tmp_path / "x.npy", np.arange(50))
    with pytest.raises(mm.Error, match="open it again"):
        pickle.loads(text)


def test_the_identity_is_that_of_the_files(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(5))
    before = mm.open(tmp_path / "x.npy").identity
    assert mm.open(tmp_path / "x.npy").identity == before
    np.save(tmp_path / "x.npy", np.arange(6))
    assert mm.open(tmp_path / "x.npy").identity != before


def test_several_sources_are_one(tmp_path):
    for number in range(3):
        np.save(tmp_path / f"part-{number}.npy", np.full((2, 2), number))
    paths = [tmp_path / f"part-{number}.npy" for number in range(3)]
    joined = mm.open(paths, concat=True)
    assert len(joined) == 1 and joined.values()[0][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert len(mm.open(paths)) == 3
    with pytest.raises(mm.RequestError):
        mm.open([])


def test_dask_reads_chunk_by_chunk(checkpoint):
    framework("dask.array")
    import dask

    kernel = mm.open(checkpoint)["dnn/hiddenlayer_1/kernel"]
    lazy = kernel.to_dask(chunks=(30, 70))
    assert lazy.shape == kernel.shape and lazy.dtype == kernel.dtype and lazy.chunks[0] == (30, 30, 30, 10)
    for scheduler in ("threads", "processes", "sync"):
        assert np.array_equal(lazy.compute(scheduler=scheduler), whole(kernel))
    assert np.array_equal(lazy[7:9, 3].compute(scheduler="sync"), kernel[7:9, 3])
    assert dask.base.tokenize(kernel) == dask.base.tokenize(mm.open(checkpoint)["dnn/hiddenlayer_1/kernel"])
    assert dask.base.tokenize(kernel) != dask.base.tokenize(mm.open(checkpoint)["dnn/hiddenlayer_0/kernel"])
    assert kernel.to_dask().sum().compute() == pytest.approx(whole(kernel).sum(), rel=1e-4)
