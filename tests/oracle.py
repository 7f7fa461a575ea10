"""Real TensorFlow and NumPy as judges, on files that are new at every run.

    python tests/oracle.py MMCONVERT MAKE_BUNDLE [SEED]

`CAST_VALUES` is the number of values that are cast for each pair of dtypes.

TensorFlow writes checkpoints and SavedModels, mmconvert converts them, and every array has to be what
`numpy.save(f, tensor.numpy())` writes, but for the padding of the header. The other way round, TensorFlow has to read
what the project's own bundle writer writes.
"""

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import warnings

import ml_dtypes
import numpy as np
from oracle_support import MMCONVERT, NUMBERS, RNG, SEED, values  # before TensorFlow, which is to be quiet

import tensorflow as tf  # isort: skip

MAKE_BUNDLE = sys.argv[2]

SMALL = [t for name in ["int2", "uint2", "float4_e2m1fn"] if (t := getattr(tf.dtypes.experimental, name, None))] + [
    tf.as_dtype(t) for t in (ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e4m3b11fnuz, ml_dtypes.float8_e5m2fnuz)
]
QUANTISED = [tf.qint8, tf.quint8, tf.qint16, tf.quint16, tf.qint32]
SHAPES = [(), (0,), (1,), (7,), (3, 0, 2), (5, 4), (2, 3, 4), (1, 1, 1, 9), (300, 41)]


def cast_values(dtype, count=int(os.environ.get("CAST_VALUES", 1_000_003))):
    """Values that casts treat differently: random bits, and numbers of every size, whole and not."""
    if dtype == bool:
        return RNG.integers(0, 2, count).astype(bool)
    bits = {"int4": 4, "uint4": 4, "float4_e2m1fn": 4, "int2": 2, "uint2": 2}.get(dtype.name, 8)
    raw = RNG.integers(0, 2**bits, (count, dtype.itemsize), dtype=np.uint8)
    array = raw.view(dtype).reshape(count).copy()
    if dtype.kind in "fc":
        half = count // 2
        moderate = RNG.standard_normal(half) * 10.0 ** RNG.integers(-8, 12, half)
        moderate[::5] = np.trunc(moderate[::5])
        with np.errstate(over="ignore"):
            array[:half] = moderate
    return array


def run(*args, expect=0):
    done = subprocess.run([MMCONVERT, *map(str, args)], capture_output=True, text=True)
    assert done.returncode == expect, f"{args}: exit code {done.returncode}\n{done.stderr}"
    return done.stdout


def header(f):
    """The version and the text of a .npy header, without its padding; `f` is left at the data."""
    version = np.lib.format.read_magic(f)
    length = struct.unpack("<H", f.read(2))[0]
    text = f.read(length).decode("latin-1")
    assert version == (1, 0) and text.endswith("\n") and text == text.rstrip() + " " * (length - len(text.rstrip()) - 1) + "\n"
    return text.rstrip()


def check(case, path, wanted):
    """`path` holds what `np.save` writes for `wanted`."""
    saved = io.BytesIO()
    np.save(saved, wanted)
    saved.seek(0)
    with open(path, "rb") as f:
        if wanted.dtype == ml_dtypes.float8_e5m2:  # NumPy writes a header here that it cannot read itself
            case.assertEqual(header(f), header(saved).replace("<f1", "|V1"))
            case.assertEqual(np.load(path).dtype, np.dtype("V1"))
            case.assertEqual(np.load(path).tobytes(), wanted.tobytes())
            return
        case.assertEqual(header(f), header(saved))
        case.assertEqual(f.read(), saved.read())
    for mode in [None, "r", "r+", "c"]:
        loaded = np.load(path, mmap_mode=mode)
        case.assertEqual((loaded.shape, loaded.flags.c_contiguous), (wanted.shape, True))
        case.assertEqual(loaded.tobytes(), wanted.tobytes())
        case.assertTrue(loaded.flags.aligned)


class Oracle(unittest.TestCase):
    def setUp(self):
        self.dir = self.enterContext(tempfile.TemporaryDirectory())

    def path(self, name):
        return os.path.join(self.dir, name)

    def convert_all(self, src, arrays, *flags, expect=0):
        """Converts everything and compares; arrays by the name that TensorFlow lists."""
        out = self.path(f"out{len(os.listdir(self.dir))}")
        run("convert", src, "-o", out + "/", "-q", *flags, expect=expect)
        with open(os.path.join(out, "manifest.json")) as f:
            manifest = json.load(f)
        files = {entry["name"]: entry for entry in manifest["tensors"]}
        self.assertEqual(sorted(files), sorted(arrays))
        for name, array in arrays.items():
            with self.subTest(name=name, seed=SEED):
                check(self, os.path.join(out, files[name]["file"]), array)
                self.assertEqual(files[name]["shape"], list(array.shape))
        run("verify", out, "--against", src, "-q")

    def test_every_dtype_and_shape_of_a_checkpoint(self):
        arrays = {f"{t.name}/{i}": (t, values(t, shape)) for t in NUMBERS for i, shape in enumerate(SHAPES)}
        order = list(arrays)
        RNG.shuffle(order)
        tensors = [tf.constant(arrays[name][1], arrays[name][0]) for name in order]
        # Strings of odd lengths between the numbers leave them at odd offsets.
        names = order + ["aaa/text"]
        tensors.append(tf.constant([b"x" * int(n) for n in RNG.integers(0, 50, 9)]))
        tf.raw_ops.SaveV2(prefix=self.path("c"), tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors)
        listed = json.loads(run("ls", self.path("c"), "--json"))["tensors"]
        wanted = dict(tf.train.list_variables(self.path("c")))
        self.assertEqual({t["name"]: t["shape"] for t in listed}, wanted)
        strings = {"aaa/text": tensors[-1].numpy().astype("S")}
        self.convert_all(self.path("c"), {name: t.numpy() for name, t in zip(order, tensors)} | strings)

    def test_quantised_tensors_are_their_integers(self):
        plain = {tf.qint8: np.int8, tf.quint8: np.uint8, tf.qint16: np.int16, tf.quint16: np.uint16, tf.qint32: np.int32}
        arrays = {t.name: RNG.integers(0, 100, (3, 5)).astype(plain[t]) for t in QUANTISED}
        tensors = [tf.bitcast(tf.constant(arrays[t.name]), t) for t in QUANTISED]
        names = [t.name for t in QUANTISED]
        tf.raw_ops.SaveV2(prefix=self.path("q"), tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors)
        self.convert_all(self.path("q"), arrays)

    def test_partitioned_tensors_of_several_shards(self):
        whole = values(tf.float32, (40, 6, 9))
        cuts = [sorted(RNG.choice(np.arange(1, dim), int(n), replace=False).tolist()) for dim, n in [(40, 3), (6, 1), (9, 2)]]
        edges = [list(zip([0, *cut], [*cut, dim])) for cut, dim in zip(cuts, whole.shape)]
        parts = []
        for i, (a, b) in enumerate(edges[0]):
            names, slices, tensors = [], [], []
            for c, d in edges[1]:
                for e, f in edges[2]:
                    names.append("grid")
                    slices.append(f"40 6 9 {a},{b - a}:{c},{d - c}:{e},{f - e}")
                    tensors.append(tf.constant(whole[a:b, c:d, e:f]))
            parts.append(self.path(f"part{i}"))
            tf.raw_ops.SaveV2(prefix=parts[-1], tensor_names=names, shape_and_slices=slices, tensors=tensors)
        prefix = self.path("merged")
        tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=prefix)
        self.convert_all(prefix, {"grid": whole})
        run("convert", prefix, "grid", "--rows", "-33:21", "-o", self.path("rows.npy"), "-q")
        check(self, self.path("rows.npy"), whole[-33:21])

    def test_size_limited_shards_of_an_object_checkpoint(self):
        root = tf.Module()
        arrays = {"a": values(tf.float32, (2, 4000)), "b": values(tf.int64, (300, 7)), "c": values(tf.bfloat16, (999,))}
        root.layers = [tf.Module() for _ in arrays]
        for layer, array in zip(root.layers, arrays.values()):
            layer.w = tf.Variable(array)
        policy = tf.train.experimental.MaxShardSizePolicy(max_shard_size=8192)
        options = tf.train.CheckpointOptions(experimental_sharding_callback=policy)
        prefix = tf.train.Checkpoint(model=root).save(self.path("ckpt"), options=options)
        key = "model/layers/{}/w/.ATTRIBUTES/VARIABLE_VALUE"
        wanted = {key.format(i): array for i, array in enumerate(arrays.values())}
        self.convert_all(self.dir, wanted)  # by the `checkpoint` state file
        # What TensorFlow keeps for itself only on request.
        wanted["save_counter/.ATTRIBUTES/VARIABLE_VALUE"] = np.array(1, np.int64)
        graph = tf.train.load_checkpoint(prefix).get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")
        self.assertFalse(graph.endswith(b"\0"))
        wanted["_CHECKPOINTABLE_OBJECT_GRAPH"] = np.array(graph)
        self.convert_all(prefix, wanted, "--all")
        for i, array in enumerate(arrays.values()):
            run("convert", prefix, f"model/layers/{i}/w", "-o", self.path(f"{i}.npy"), "-q")
            check(self, self.path(f"{i}.npy"), array)

    def test_every_cast_of_every_dtype(self):
        dtypes = {t.name: np.dtype(t.as_numpy_dtype) for t in NUMBERS + SMALL}
        arrays = {name: cast_values(dtype) for name, dtype in dtypes.items()}
        names = sorted(arrays)
        tensors = [tf.constant(arrays[name]) for name in names]
        tf.raw_ops.SaveV2(prefix=self.path("all"), tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors)
        compared = 0
        for target, dtype in dtypes.items():
            out = self.path(target)
            run("convert", self.path("all"), "-o", out, "--dtype", target, "-q", "--skip-unsupported")
            with open(os.path.join(out, "manifest.json")) as f:
                files = {entry["name"]: entry["file"] for entry in json.load(f)["tensors"]}
            for name, array in arrays.items():
                with self.subTest(source=name, target=target, seed=SEED):
                    try:
                        with warnings.catch_warnings():
                            warnings.simplefilter("ignore")
                            wanted = array.astype(dtype)
                    except TypeError:  # a pair that NumPy does not have
                        self.assertNotIn(name, files)
                        continue
                    found = np.load(os.path.join(out, files[name]))
                    same = found.view(np.uint8).reshape(len(array), -1) == wanted.view(np.uint8).reshape(len(array), -1)
                    if dtype == np.uint32 and array.dtype.kind in "fcV" and not name.startswith(("int", "uint")):
                        # Out of range NumPy has two answers, depending on the place in the array.
                        with np.errstate(invalid="ignore"):
                            value = (array.real if array.dtype.kind == "c" else array).astype(np.float64)
                        same |= ~((value > -(2**31) - 1) & (value < 2**32))[:, None]
                    self.assertTrue(same.all(), f"first at {np.argmin(same.all(1))}")
                    compared += 1
            run("verify", out, "--against", self.path("all"), "-q")
            shutil.rmtree(out)
        self.assertGreater(compared, len(dtypes) ** 2 - 20)

    def test_byte_orders_and_fortran_order(self):
        prefix = self.path("f")
        arrays = {str(i): values(t, shape) for i, (t, shape) in enumerate((t, s) for t in NUMBERS for s in [(7, 5), (3, 1, 4, 2), (6,)])}
        tensors = [tf.constant(array) for array in arrays.values()]
        tf.raw_ops.SaveV2(prefix=prefix, tensor_names=list(arrays), shape_and_slices=[""] * len(arrays), tensors=tensors)
        for order in ["little", "big"]:
            for layout in "CF":
                out = self.path(order + layout)
                run("convert", prefix, "-o", out, "--byte-order", order, "--layout", layout, "-q", "--skip-unsupported")
                with open(os.path.join(out, "manifest.json")) as f:
                    files = {entry["name"]: entry["file"] for entry in json.load(f)["tensors"]}
                for name, array in arrays.items():
                    if order == "big" and array.dtype == ml_dtypes.bfloat16:
                        self.assertNotIn(name, files)  # V2 has no byte order
                        continue
                    if array.dtype == ml_dtypes.float8_e5m2:
                        continue
                    wanted = array if array.dtype.kind == "V" or order == "little" else array.astype(array.dtype.newbyteorder(">"))
                    with self.subTest(name=name, dtype=array.dtype, order=order, layout=layout, seed=SEED):
                        saved = io.BytesIO()
                        np.save(saved, np.asfortranarray(wanted) if layout == "F" else wanted)
                        saved.seek(0)
                        with open(os.path.join(out, files[name]), "rb") as f:
                            self.assertEqual(header(f), header(saved))
                            self.assertEqual(f.read(), saved.read())
                run("verify", out, "--against", prefix, "-q")

    def test_strings(self):
        texts = ["", "a", "längste Zeichenkette 字 😀", "x" * 5000, "end"] * 9
        array = np.array([text.encode() for text in texts], object).reshape(5, 9)
        odd = np.array([b"\xff\xfe", b"ends in \0", b""], object)
        tensors = [tf.constant(array), tf.constant(odd), tf.constant(b"one")]
        names = ["texts", "odd", "scalar"]
        tf.raw_ops.SaveV2(prefix=self.path("s"), tensor_names=names, shape_and_slices=[""] * 3, tensors=tensors)
        wanted = {"pad": array.astype("S"), "utf8": np.array(texts).reshape(5, 9)}
        for how, array in wanted.items():
            run("convert", self.path("s"), "texts", "--strings", how, "-o", self.path(how + ".npy"), "-q")
            check(self, self.path(how + ".npy"), array)
            run("convert", self.path("s"), "odd", "--strings", how, "-o", self.path("odd.npy"), "-q", expect=6)
        run("convert", self.path("s"), "scalar", "-o", self.path("scalar.npy"), "-q")
        check(self, self.path("scalar.npy"), np.array(b"one"))
        run("convert", self.path("s"), "-o", self.path("parts"), "--strings", "offsets", "-q")
        for name, tensor in zip(names, tensors):
            found = [np.load(self.path(f"parts/{name}.{part}.npy")) for part in ["values", "offsets"]]
            elements = [bytes(found[0][a:b]) for a, b in zip(found[1], found[1][1:])]
            self.assertEqual(elements, [element.numpy() for element in tf.reshape(tensor, [-1])])

    def test_variables_of_a_saved_model(self):
        model = tf.Module()
        model.table = tf.Variable(values(tf.float32, (1000, 24)))
        model.parts = {"x/y": tf.Variable(values(tf.int16, (3, 3)))}
        tf.saved_model.save(model, self.path("model"))
        run("convert", self.path("model"), "table", "-o", self.path("t.npy"), "-q")
        check(self, self.path("t.npy"), model.table.numpy())
        run("convert", self.path("model"), "parts/x/y", "-o", self.path("p.npy"), "-q")
        check(self, self.path("p.npy"), model.parts["x/y"].numpy())

    def test_tensorflow_reads_what_the_bundle_writer_writes(self):
        words = np.arange(2**17, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        for i, flags in enumerate(
            [[], ["--align", 64], ["--snappy"], ["--pieces", 13, "--shards", 5], ["--pieces", 3, "--shards", 2, "--snappy", "--align", 8]]
        ):
            with self.subTest(flags=flags):
                prefix = self.path(f"b{i}")
                subprocess.run([MAKE_BUNDLE, prefix, "some/name", "float32", "1000,33", *map(str, flags)], check=True)
                wanted = words.view(np.float32)[:33000].reshape(1000, 33)
                read = tf.train.load_checkpoint(prefix).get_tensor("some/name")
                self.assertEqual(read.tobytes(), wanted.tobytes())
                run("convert", prefix, "-o", self.path(f"b{i}.npy"), "-q")
                check(self, self.path(f"b{i}.npy"), wanted)
        subprocess.run([MAKE_BUNDLE, self.path("be"), "n", "float64", "100", "--big-endian"], check=True)
        read = tf.train.load_checkpoint(self.path("be")).get_tensor("n")
        run("convert", self.path("be"), "-o", self.path("be.npy"), "-q")
        check(self, self.path("be.npy"), read)

    def test_every_method_on_every_file_system_at_hand(self):
        places = [self.dir] + [place for place in ["/dev/shm"] if os.path.isdir(place)]
        names = ["a/odd", "b/table", "c/bytes"]
        arrays = [values(tf.float32, (3, 5)), values(tf.float32, (70_000, 24)), values(tf.uint8, (5_000_011,))]
        for place in places:
            with tempfile.TemporaryDirectory(dir=place) as here:
                prefix = os.path.join(here, "m")
                tensors = [tf.constant(array) for array in arrays]
                tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names, shape_and_slices=[""] * 3, tensors=tensors)
                for method in [None, "clone", "direct", "uncached", "map", "portable"]:
                    for name, array in zip(names, arrays):
                        with self.subTest(place=place, method=method, name=name):
                            out = os.path.join(here, "out.npy")
                            words = ["convert", prefix, name, "-o", out, "-f", "--json", "--memory", "20MiB"]
                            words += ["--method", method] if method else []
                            done = subprocess.run([MMCONVERT, *words], capture_output=True, text=True)
                            if done.returncode == 6 and method in ("clone", "direct", "uncached"):
                                continue  # not every file system can do everything
                            self.assertEqual(done.returncode, 0, done.stderr)
                            check(self, out, array)
                            used = json.loads(done.stdout)["outputs"][0]["method"]
                            self.assertIn(used, [method] if method else ["clone", "direct", "uncached", "map", "portable"])

    def test_sparse_tensors_as_tensorflow_reads_them(self):
        prefix = self.path("sparse")
        subprocess.run([MAKE_BUNDLE, prefix, "t", "float32", "1048576,16", "--sparse", "7"], check=True)
        read = tf.train.load_checkpoint(prefix).get_tensor("t")  # which verifies the checksum
        run("convert", prefix, "-o", self.path("sparse.npy"), "-q", "--memory", "32MiB")
        check(self, self.path("sparse.npy"), read)
        if os.stat(prefix + ".data-00000-of-00001").st_blocks * 512 < 8 << 20:
            self.assertLess(os.stat(self.path("sparse.npy")).st_blocks * 512, 8 << 20)


if __name__ == "__main__":
    print("seed", SEED)
    unittest.main(argv=sys.argv[:1], verbosity=2)
