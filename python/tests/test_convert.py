"""Conversions of sources: the program's own results, in Python's words."""

import json
import os
import subprocess
import sys
import sysconfig
import warnings
from pathlib import Path

import mmconvert as mm
import numpy as np
import pytest
from conftest import DATA, framework, left_behind, same_bytes

PROGRAM = Path(sysconfig.get_path("scripts")) / "mmconvert"


def npy(path, array):
    np.save(path, array)
    return path


def program(*arguments):
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("source", "names", "flags", "options"),
    [
        ("checkpoint/chicago_taxi/model.ckpt-1000", ["dnn/hiddenlayer_1/kernel"], [], {}),
        ("checkpoint/chicago_taxi/model.ckpt-1000", ["dnn/hiddenlayer_1/kernel"], ["--dtype", "float16", "--rows", "3:-7"], {"dtype": "float16", "rows": "3:-7"}),
        ("checkpoint/chicago_taxi/model.ckpt-1000", ["dnn/hiddenlayer_1/kernel"], ["--layout", "F", "--byte-order", "big"], {"layout": "F", "byte_order": "big"}),
        ("savedmodel/half_plus_two", [], [], {}),
        ("savedmodel/half_plus_two", [], ["--all"], {"all": True}),
        ("savedmodel/half_plus_two", ["conv2d*/kernel"], ["--memory", "16MiB"], {"memory": "16MiB"}),
        ("keras/dk_model.keras", [], ["--dtype", "float64"], {"dtype": np.float64}),
        ("records/penguin_eval.gz", [], [], {}),
        ("records/penguin_eval.gz", ["species"], ["--rows", "5:9"], {"rows": slice(5, 9)}),
        ("records/mixed_plain.tfrecord", ["scalar", "ragged"], ["--ragged", "ragged=pad:-1"], {"ragged": {"ragged": "pad:-1"}}),
        ("records/mixed_plain.tfrecord", ["raw_u16"], ["--raw", "uint16", "--shape", "raw_u16=4,3"], {"raw": "uint16", "shape": {"raw_u16": (4, 3)}}),
        ("tfds/labels", ["train/*"], ["--ragged", "offsets"], {"ragged": "offsets"}),
    ],
)
def test_conversions_are_the_programs(source, names, flags, options, tmp_path):
    path = DATA / source
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mm.SkippedWarning)
        done = mm.convert(path, *([names] if names else []), f"{tmp_path}/python/", **options)
    program("convert", path, *names, "-o", f"{tmp_path}/program/", "--skip-unsupported", *flags)
    made, expected = (json.loads((tmp_path / side / "manifest.json").read_text()) for side in ("python", "program"))
    assert made["tensors"] == expected["tensors"] and made["choices"] == expected["choices"] and len(made["tensors"]) == len(done) > 0
    for entry in expected["tensors"]:
        ours, theirs = ((tmp_path / side / entry["file"]).read_bytes() for side in ("python", "program"))
        assert ours == theirs, entry
    assert mm.verify(tmp_path / "python") and program("verify", tmp_path / "python", "-q") == ""


def test_one_tensor_is_a_memmap_with_its_report(checkpoint, tmp_path):
    tf = framework("tensorflow")
    expected = tf.train.load_checkpoint(checkpoint).get_tensor("dnn/hiddenlayer_1/kernel")
    array = mm.convert(checkpoint, "dnn/hiddenlayer_1/kernel", tmp_path / "x.npy", memory="64MiB", threads=2)
    assert isinstance(array, np.memmap) and same_bytes(array, expected)
    report = array.report
    assert report.verified == "full" and report.shape == (100, 70) and report.nbytes == 28000 and report.path == str(tmp_path / "x.npy")
    assert not array.flags.writeable
    writable = mm.convert(checkpoint, "dnn/hiddenlayer_1/kernel", tmp_path / "w.npy", mode="r+")
    writable[0, 0] = 5
    writable.flush()
    assert np.load(tmp_path / "w.npy")[0, 0] == 5


def test_arithmetic_gives_plain_arrays(checkpoint, tmp_path):
    array = mm.convert(checkpoint, "dnn/hiddenlayer_1/kernel", tmp_path / "x.npy")
    assert type(array + 1) is np.ndarray and isinstance(array.sum(), np.float32) and type(array[[0, 1]]) is np.ndarray
    assert isinstance(array[0:3], np.memmap) and array[0:3].report is None


def test_tensors_sources_names_and_paths_are_all_taken(checkpoint, tmp_path):
    source = mm.open(checkpoint)
    name = "dnn/hiddenlayer_1/kernel"
    ways = [(source, name), (source, [name]), (source[name],), (source, source[name]), (checkpoint, name), (Path(checkpoint), "dnn/*_1/kernel")]
    arrays = [mm.convert(*way, tmp_path / f"{number}.npy") for number, way in enumerate(ways)]
    assert all(same_bytes(array, arrays[0]) for array in arrays)


def test_outputs_are_what_their_names_say(checkpoint, tmp_path):
    source = mm.open(checkpoint)
    one, two = source.select("dnn/hiddenlayer_1/kernel"), source.select("dnn/hiddenlayer_1/*")
    assert isinstance(mm.convert(source, one, tmp_path / "plain"), np.memmap)
    assert (tmp_path / "plain").is_file()
    assert sorted(mm.convert(source, two, tmp_path / "several")) == ["dnn/hiddenlayer_1/bias", "dnn/hiddenlayer_1/kernel"]
    assert sorted(mm.convert(source, one, f"{tmp_path}/slash/")) == ["dnn/hiddenlayer_1/kernel"]
    with pytest.raises(mm.RequestError, match="2 arrays do not fit"):
        mm.convert(source, two, tmp_path / "x.npy")
    with pytest.raises(mm.RequestError, match="cannot write .h5"):
        mm.convert(source, one, tmp_path / "x.h5")
    packed = mm.convert(source, two, tmp_path / "x.safetensors")
    for name, array in packed.items():
        assert isinstance(array, np.memmap) and same_bytes(array, source[name][...])
    assert mm.verify(tmp_path / "x.safetensors", against=source)
    writable = mm.convert(source, two, tmp_path / "w.safetensors", mode="r+")["dnn/hiddenlayer_1/kernel"]
    writable[0, 0] = 5
    writable.flush()
    assert mm.open(tmp_path / "w.safetensors")["dnn/hiddenlayer_1/kernel"][0, 0] == 5


def test_strings_become_what_was_asked_for(tmp_path):
    words = [b"a", b"", b"longer", b"\xc3\xa9"]
    source = mm.convert(np.array(words, object), tmp_path / "s.npy")
    assert source.tolist() == words
    parts = mm.convert(np.array(words, object), tmp_path / "o.npy", strings="offsets")
    assert list(parts) == ["array.values", "array.offsets"]
    values, offsets = (np.asarray(part) for part in parts.values())
    assert [values[start:stop].tobytes() for start, stop in zip(offsets, offsets[1:])] == words
    assert mm.convert(np.array(words, object), tmp_path / "u.npy", strings="utf8").tolist() == ["a", "", "longer", "é"]
    with pytest.raises(mm.LossyError):
        mm.convert(np.array([b"ends\0"], object), tmp_path / "nul.npy")


def test_what_exists_is_kept_unless_it_may_be_replaced(checkpoint, tmp_path):
    (tmp_path / "x.npy").write_text("mine")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "mine").write_text("mine")
    for out in ("x.npy", "dir"):
        with pytest.raises(FileExistsError, match="overwrite=True") as caught:
            mm.convert(checkpoint, "dnn/hiddenlayer_1/kernel", tmp_path / out)
        assert caught.value.filename == str(tmp_path / out)
    assert left_behind(tmp_path) == ["dir", "dir/mine", "x.npy"] and (tmp_path / "x.npy").read_text() == "mine"
    mm.convert(checkpoint, "dnn/hiddenlayer_1/kernel", tmp_path / "x.npy", overwrite=True)
    mm.convert(checkpoint, "dnn/hiddenlayer_1/*", tmp_path / "dir", overwrite=True)
    assert (tmp_path / "dir" / "mine").read_text() == "mine" and (tmp_path / "dir" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"dtype": "float33"}, TypeError, "float33"),
        ({"memory": "1 parsec"}, ValueError, "memory"),
        ({"memory": 10}, mm.LimitError, "memory"),
        ({"memory": 1.5}, TypeError, "memory"),
        ({"threads": 0}, ValueError, "threads"),
        ({"layout": "X"}, ValueError, "layout"),
        ({"strings": "offsets"}, mm.RequestError, "strings"),
        ({"ragged": "pad"}, mm.RequestError, "ragged"),
        ({"missing": "skip"}, mm.RequestError, "missing"),
        ({"channels": 3}, mm.RequestError, "channels"),
        ({"strict": True}, mm.RequestError, "strict"),
        ({"dtype": "int8", "strict": True}, mm.LossyError, "element"),
        ({"rows": "1:2:3"}, ValueError, "rows"),
        ({"rows": slice(0, 5, 2)}, mm.RequestError, "step"),
        ({"method": "magic"}, ValueError, "method"),
        ({"method": "clone", "dtype": "float64"}, mm.UnsupportedError, "clone"),
        ({"mode": "w"}, ValueError, "mode"),
        ({"progress": 3}, TypeError, "progress"),
        ({"session": object()}, mm.RequestError, "session"),
        ({"batched": True}, mm.RequestError, "batched"),
        ({"nonsense": 1}, TypeError, "nonsense"),
    ],
)
def test_choices_that_are_wrong_or_without_effect_are_refused(options, error, text, checkpoint, tmp_path):
    with pytest.raises(error, match=text):
        mm.convert(checkpoint, "dnn/hiddenlayer_1/kernel", tmp_path / "x.npy", **options)
    assert left_behind(tmp_path) == []


def test_errors_have_their_classes_and_their_facts(checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match="not found"):
        mm.open(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"a\\nb"):
        mm.open("a\nb")
    with pytest.raises(mm.NoSuchTensorError, match="did you mean"):
        mm.convert(checkpoint, "dnn/hiddenlayer_1/kernal", tmp_path / "x.npy")
    with pytest.raises(FileNotFoundError, match="create it first"):
        mm.convert(checkpoint, "dnn/hiddenlayer_1/kernel", tmp_path / "no" / "x.npy")
    whole = npy(tmp_path / "whole.npy", np.arange(1000))
    (tmp_path / "cut.npy").write_bytes(whole.read_bytes()[:-8])
    with pytest.raises(mm.CorruptError, match="cut.npy") as caught:
        mm.convert(tmp_path / "cut.npy", tmp_path / "y.npy")
    assert caught.value.code == "malformed" and os.fspath(caught.value.path) == str(tmp_path / "cut.npy")
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(mm.UnsupportedError):
        mm.open(tmp_path / "text.txt")
    with pytest.raises(mm.RequestError, match="source itself"):
        mm.convert(whole, whole, overwrite=True)
    with pytest.raises(mm.RequestError, match="no rows"):
        mm.convert(checkpoint, "global_step", tmp_path / "y.npy", rows=(0, 1))
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(PermissionError):
            mm.convert(whole, tmp_path / "closed" / "x.npy")
    assert not (tmp_path / "y.npy").exists()


def test_a_damaged_checkpoint_gives_no_array(checkpoint, tmp_path):
    for file in Path(checkpoint).parent.glob(Path(checkpoint).name + ".*"):
        content = bytearray(file.read_bytes())
        if ".data-" in file.name:
            content[len(content) // 2] ^= 1
        (tmp_path / file.name).write_bytes(content)
    source = mm.open(tmp_path / Path(checkpoint).name)
    failed = 0
    for tensor in source.tensors():
        try:
            np.asarray(tensor)
        except mm.CorruptError:
            failed += 1
            with pytest.raises(mm.CorruptError, match="CRC32C") as caught:
                mm.convert(tensor, tmp_path / "x.npy")
            assert caught.value.offset is not None and not (tmp_path / "x.npy").exists()
            mm.convert(tensor, tmp_path / "x.npy", verify=False)
    assert failed == 1


def test_verify_says_what_differs(checkpoint, tmp_path):
    name = "dnn/hiddenlayer_1/kernel"
    array = mm.convert(checkpoint, name, tmp_path / "x.npy", mode="r+")
    array[3, 4] += 1
    array.flush()
    with pytest.raises(mm.DifferentError, match=r"\[3, 4\]") as caught:
        mm.verify(tmp_path / "x.npy", name, against=checkpoint)
    assert list(caught.value.differences) == [str(tmp_path / "x.npy")]
    mm.convert(checkpoint, "dnn/hiddenlayer_1/*", tmp_path / "d")
    (tmp_path / "d" / "dnn+hiddenlayer_1+kernel.npy").unlink()
    with pytest.raises(mm.DifferentError, match="missing"):
        mm.verify(tmp_path / "d")
    assert len(mm.verify(tmp_path / "d", "dnn/hiddenlayer_1/bias")) == 1
    with pytest.raises(FileNotFoundError):
        mm.verify(tmp_path / "none.npy", against=checkpoint)
    with pytest.raises(mm.RequestError, match="against"):
        mm.verify(tmp_path / "x.npy", name)
    mm.convert(np.arange(3), tmp_path / "o.npy")
    mm.convert({"a": np.arange(3)}, tmp_path / "objects")
    with pytest.raises(mm.RequestError, match="against"):
        mm.verify(tmp_path / "objects")


def test_what_has_no_array_is_listed(tmp_path):
    records = DATA / "records" / "mixed_plain.tfrecord"
    with pytest.warns(mm.SkippedWarning, match="ragged"):
        done = mm.convert(records, ["scalar", "ragged"], tmp_path / "d", dtype="float32")
    assert "ragged" in done.skipped and "scalar" in done


def test_progress_counts_every_byte(tmp_path):
    values = np.zeros((64, 1 << 20), np.uint8)
    told = []
    mm.convert(values, tmp_path / "x.npy", progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (values.nbytes, values.nbytes) and told == sorted(told)
    told.clear()
    mm.convert(iter(values), tmp_path / "y.npy", shape=values.shape, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == values.nbytes
    told.clear()
    mm.convert({"a": values, "b": values[:1]}, tmp_path / "z", progress=lambda done, total: told.append(done))
    assert told[-1] == values.nbytes + values[:1].nbytes and told == sorted(told)
    for progress in (True, False, None):
        mm.convert(values, tmp_path / "p.npy", progress=progress, overwrite=True)


def test_an_exception_in_progress_cancels(tmp_path):
    values = np.zeros((256, 1 << 20), np.uint8)

    def stop(done, total):
        raise RuntimeError("enough")

    for number, source in enumerate([values, iter(values), {"a": values, "b": values}]):
        with pytest.raises(RuntimeError, match="enough"):
            mm.convert(source, tmp_path / f"{number}", progress=stop, memory="32MiB")
    assert left_behind(tmp_path) == []


def test_nothing_is_imported_that_the_caller_has_not_imported():
    code = """
import sys, tempfile
import numpy as np
before = set(sys.modules)
import mmconvert as mm
mm.convert(np.arange(3), tempfile.mkdtemp() + "/x.npy")
mm.convert((np.arange(3) for _ in range(3)), tempfile.mkdtemp() + "/x.npy")
frameworks = {"tensorflow", "torch", "jax", "dask", "keras", "h5py", "zarr", "tqdm", "ml_dtypes", "pandas"}
assert not frameworks & set(sys.modules), frameworks & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_program_is_installed_beside_the_package():
    assert program("--version").strip() == f"mmconvert {mm.__version__}"
