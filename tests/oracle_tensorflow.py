"""Real TensorFlow as judge of what a running TensorFlow computes for mmconvert, on graphs and models that are new at every run.

    python tests/oracle_tensorflow.py MMCONVERT [SEED]

Python's TensorFlow and mmconvert load the same library, compute the same graphs, signatures and data sets, and have to
give the same bytes.
"""

import json
import os
import signal
import sys
import tempfile
import unittest

import numpy as np
from oracle_support import MMCONVERT, RNG, SEED, below, one_of, run, unpadded, values, written  # before TensorFlow, which is to be quiet

import tensorflow as tf  # isort: skip
from tensorflow.core.framework.attr_value_pb2 import AttrValue  # isort: skip
from tensorflow.core.framework.graph_pb2 import GraphDef  # isort: skip
from tensorflow.core.framework.tensor_pb2 import TensorProto  # isort: skip
from tensorflow.core.framework.types_pb2 import DataType  # isort: skip

tf1 = tf.compat.v1
LIBRARY = ["--tensorflow", os.path.dirname(tf.__file__)]
DATA = os.path.join(os.path.dirname(__file__), "data")
# Those that have no values, and references.
DTYPES = [tf.as_dtype(code) for code in DataType.values() if 0 < code < 100 and code not in (DataType.DT_RESOURCE, DataType.DT_VARIANT)]
SMALL = {"int4": (-8, 8), "uint4": (0, 16), "int2": (-2, 2), "uint2": (0, 4), "float4_e2m1fn": (0, 16)}
SHAPES = [(), (0,), (3, 0), (7,), (5, 3), (2, 3, 4), (70, 129)]


def content(dtype, shape):
    """The bytes of random elements."""
    count = int(np.prod(shape, dtype=np.int64))
    if dtype == tf.bool:
        return RNG.integers(0, 2, count, dtype=np.uint8).tobytes()
    if dtype.name in SMALL:
        low, high = SMALL[dtype.name]
        return RNG.integers(low, high, count).astype(np.int8).tobytes()
    return RNG.bytes(count * np.dtype(dtype.as_numpy_dtype).itemsize)


def add_constant(graph, name, dtype, shape):
    """A node with random elements, of every dtype, also of those that Python makes no constants of."""
    proto = TensorProto(dtype=dtype.as_datatype_enum)
    for axis in shape:
        proto.tensor_shape.dim.add().size = axis
    if dtype == tf.string:
        for _ in range(int(np.prod(shape, dtype=np.int64))):
            proto.string_val.append(RNG.bytes(below(30)) + b".")
    else:
        proto.tensor_content = content(dtype, shape)
    attributes = {"value": AttrValue(tensor=proto), "dtype": AttrValue(type=dtype.as_datatype_enum)}
    graph.create_op("Const", [], [dtype], attrs=attributes, name=name)


def stored(array):
    """An array as `np.save` takes it: quantized numbers are plain ones, strings have one length."""
    array = np.asarray(array)
    if array.dtype == object:
        return np.array(array.tolist(), "S").reshape(array.shape)
    if array.dtype.names:
        return array.view(array.dtype[0])
    # NumPy cannot read what it would write for it.
    return array.view("V1") if array.dtype == tf.dtypes.experimental.float8_e5m2.as_numpy_dtype else array


def can_slice(dtype):
    graph = tf.Graph()
    add_constant(graph, "whole", dtype, (7,))
    with graph.as_default():
        part = tf.raw_ops.Slice(input=graph.get_tensor_by_name("whole:0"), begin=[2], size=[-1])
    try:
        with tf1.Session(graph=graph) as session:
            session.run(part)
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError, tf.errors.UnimplementedError):
        return False
    return True


class Computed(unittest.TestCase):
    def setUp(self):
        self.dir = self.enterContext(tempfile.TemporaryDirectory())

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as file:
            file.write(data)
        return self.path(name)

    def read(self, path):
        with open(path, "rb") as file:
            return file.read()

    def save(self, array):
        path = self.path(f"input{len(os.listdir(self.dir))}.npy")
        np.save(path, array)
        return path

    def check(self, path, array):
        found = self.read(path)
        array = stored(array)
        # Only the low bits of small integers are stored.
        if array.dtype.name in ("int4", "uint4", "int2", "uint2"):
            self.assertEqual(np.load(path).shape, array.shape)
            np.testing.assert_array_equal(np.load(path).view(array.dtype).astype(int), array.astype(int), f"seed {SEED}, {path}")
        else:
            self.assertTrue(unpadded(found) == written(array), f"seed {SEED}, {path}: {np.load(path).dtype} {array.dtype} {array.shape}")

    def convert(self, source, *args, wanted, library=LIBRARY):
        """Converts all of `wanted`, by name, into a directory, and one of them into a file."""
        out = self.path(f"out{len(os.listdir(self.dir))}")
        run("convert", source, *wanted, "-o", out + "/", "--progress=never", *library, *args)
        with open(os.path.join(out, "manifest.json")) as manifest:
            files = {entry["name"]: entry["file"] for entry in json.load(manifest)["tensors"]}
        self.assertEqual(len(files), len(wanted))
        for name, array in wanted.items():
            self.check(os.path.join(out, files[name]), array)
        name, array = one_of(sorted(wanted.items()))
        run("convert", source, name, "-o", out + ".npy", "--progress=never", *library, *args)
        self.check(out + ".npy", array)

    def refused(self, code, *args, says, library=LIBRARY):
        out = self.path("no.npy")
        before = sorted(os.listdir(self.dir))
        said = run("convert", *args, "-o", out, *library, expect=code)
        for text in [says] if isinstance(says, str) else says:
            self.assertIn(text, said)
        self.assertEqual(sorted(os.listdir(self.dir)), before)
        self.assertEqual(len(said.splitlines()), 1, said)

    def test_constants_of_every_dtype(self):
        graph, uncut = tf.Graph(), set()
        shapes = {}
        for dtype in DTYPES:
            for number, shape in enumerate(SHAPES):
                add_constant(graph, f"{dtype.name}_{number}", dtype, shape)
                shapes[f"{dtype.name}_{number}:0"] = shape
        path = self.write("graph.pb", graph.as_graph_def().SerializeToString())
        with tf1.Session(graph=graph) as session:
            wanted = {name: np.asarray(session.run(name)) for name in shapes}
        self.convert(path, wanted=wanted)
        # The same from the file, which takes no TensorFlow.
        self.convert(path, wanted={name.removesuffix(":0"): array for name, array in wanted.items()}, library=[])
        for dtype in DTYPES:
            if not can_slice(dtype):
                uncut.add(dtype.name)
            name = f"{dtype.name}_6:0"
            out = self.path(dtype.name + ".npy")
            low, high = sorted((below(70), below(70)))
            run("convert", path, name, "-o", out, "-q", "--rows", f"{low}:{high}", "--memory", "20MiB", "-j", below(5, 1), *LIBRARY)
            self.check(out, stored(wanted[name])[low:high] if dtype != tf.string else stored(wanted[name][low:high]))
        print("TensorFlow cannot slice:", ", ".join(sorted(uncut)))

    def test_other_forms(self):
        graph = tf.Graph()
        add_constant(graph, "x", tf.float32, (40, 3, 5))
        add_constant(graph, "s", tf.string, (9, 2))
        path = self.write("graph.pb", graph.as_graph_def().SerializeToString())
        with tf1.Session(graph=graph) as session:
            x, s = session.run(["x:0", "s:0"])
        out = self.path("f.npy")
        run("convert", path, "x:0", "-o", out, "--layout", "F", "--dtype", "float64", "--byte-order", "big", *LIBRARY)
        with np.errstate(invalid="ignore"):
            wanted = np.asfortranarray(x.astype(">f8"))
        np.testing.assert_array_equal(np.load(out), wanted)
        self.assertTrue(np.isfortran(np.load(out)))
        run("verify", out, "x:0", "--against", path, "--dtype", "float64", *LIBRARY)
        run("convert", path, "s:0", "-o", self.path("s.npy"), "--strings", "offsets", *LIBRARY)
        joined, offsets = np.load(self.path("s.values.npy")).tobytes(), np.load(self.path("s.offsets.npy"))
        self.assertEqual([joined[a:b] for a, b in zip(offsets, offsets[1:])], list(s.ravel()))

    def test_what_is_computed_once(self):
        # Any run of it gives other numbers.
        graph = tf.Graph()
        with graph.as_default():
            noise = tf.identity(tf.random.uniform([30000, 17]), name="noise")
            tf.stack([noise, noise], name="twice")
            tf.identity(noise * 2, name="double")
        path = self.write("graph.pb", graph.as_graph_def().SerializeToString())
        out = self.path("out")
        run("convert", path, "noise:0", "twice:0", "double:0", "-o", out, "--memory", "20MiB", *LIBRARY)
        noise, twice, double = (np.load(os.path.join(out, f"{name}%3a0.npy")) for name in ("noise", "twice", "double"))
        np.testing.assert_array_equal(twice, np.stack([noise, noise]))
        np.testing.assert_array_equal(double, noise * 2)

    def test_frozen_graphs_with_feeds(self):
        for _ in range(5):
            rows, columns = below(300), below(20, 1)
            graph = tf.Graph()
            with graph.as_default():
                x = tf1.placeholder(tf.float32, [None, columns], name="in/x")
                factor = tf1.placeholder(tf.float64, [], name="factor")
                offset = tf1.placeholder_with_default(np.float32(3), [], name="offset")
                y = tf.add(x * tf.cast(factor, tf.float32), offset, name="out/y")
                tf.argmax(y, 1, name="best")
                tf.split(y, [1, columns - 1], 1, name="parts")
                tf.strings.as_string(tf.cast(y, tf.int32), name="text")
                tf.cast(y, tf.dtypes.experimental.float8_e4m3fn, name="eighth")
            path = self.write("graph.pb", graph.as_graph_def().SerializeToString())
            array = RNG.normal(size=(rows, columns)).astype(np.float32)
            names = ["out/y:0", "best:0", "eighth:0", "parts:0", "parts:1"] + (["text:0"] if rows else [])
            fed = {"in/x:0": array, "factor:0": np.float64(2.5)}
            with tf1.Session(graph=graph) as session:
                wanted = dict(zip(names, session.run(names, fed)))
            feeds = [f"--feed=in/x={self.save(array)}", f"--feed=factor:0={self.save(np.float64(2.5))}"]
            self.convert(path, *feeds, wanted=wanted)
            # Rows do not depend on each other.
            if rows:
                self.convert(path, *feeds, "--batch", below(rows + 5, 1), wanted=wanted)

    def test_real_graphs(self):
        x, y = np.int32(below(99)), np.int32(below(99))
        graph = os.path.join(DATA, "graph/addition.pb")
        self.convert(graph, f"--feed=x={self.save(x)}", f"--feed=y={self.save(y)}", wanted={"z:0": x + y})
        graph = os.path.join(DATA, "graph/multi_add.pb")
        fed = {name: RNG.normal(size=(1, 8, 8, 3)).astype(np.float32) for name in "abcd"}
        definition = GraphDef.FromString(self.read(graph))
        with tf.Graph().as_default(), tf1.Session() as session:
            tf.import_graph_def(definition, name="")
            wanted = dict(zip(["x:0", "y:0"], session.run(["x:0", "y:0"], {f"{name}:0": array for name, array in fed.items()})))
        self.convert(graph, *(f"--feed={name}:0={self.save(array)}" for name, array in fed.items()), wanted=wanted)

    def test_inputs_of_every_dtype(self):
        dtypes = [dtype for dtype in DTYPES if dtype.as_datatype_enum < 24]
        graph, feeds, wanted = tf.Graph(), [], {}
        with graph.as_default():
            for dtype in dtypes:
                fed = tf1.placeholder(dtype, [None, 3], name=dtype.name)
                tf.identity(fed, name=dtype.name + "_out")
        for dtype in dtypes:
            if dtype == tf.string:
                array = np.array([[RNG.bytes(below(9)) + b"!" for _ in range(3)] for _ in range(11)], "S")
            elif dtype == tf.bool:
                array = values(dtype, (11, 3))
            else:
                plain = np.dtype(dtype.as_numpy_dtype)
                plain = plain[0] if plain.names else plain
                array = np.frombuffer(RNG.bytes(33 * plain.itemsize), plain).reshape(11, 3)
            feeds.append(f"--feed={dtype.name}={self.save(array)}")
            wanted[f"{dtype.name}_out:0"] = array
        path = self.write("graph.pb", graph.as_graph_def().SerializeToString())
        self.convert(path, *feeds, wanted=wanted)
        self.convert(path, *feeds, "--batch", below(12, 1), wanted=wanted)
        text = np.array([["größe", "", "字"]] * 11)
        feeds[dtypes.index(tf.string)] = f"--feed=string={self.save(text)}"
        self.convert(path, *feeds, "--batch", 4, wanted={"string_out:0": np.char.encode(text, "utf-8")})

    def test_saved_models(self):
        class Model(tf.Module):
            def __init__(self):
                self.weights = tf.Variable(RNG.normal(size=(4, 6)).astype(np.float32))

            @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="features")])
            def score(self, features):
                hidden = tf.nn.relu(features @ self.weights)
                label = tf.strings.as_string(tf.argmax(hidden, 1))
                return {"hidden": hidden, "score": tf.reduce_sum(hidden, 1), "label": label, "half": tf.cast(hidden, tf.bfloat16)}

            @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text"), tf.TensorSpec([], tf.int32, name="times")])
            def measure(self, text, times):
                return {"length": tf.strings.length(text) * times, "twice": tf.strings.join([text, text])}

            @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="features")])
            def positive(self, features):
                rows = tf.boolean_mask(features, features[:, 0] > 0)
                return {"rows": rows, "empty": rows[:0], "count": tf.shape(rows)[0]}

        model = Model()
        path = self.path("model")
        signatures = {"serving_default": model.score, "measure": model.measure, "positive": model.positive}
        tf.saved_model.save(model, path, signatures=signatures)
        count = below(200, 1)
        features = RNG.normal(size=(count, 4)).astype(np.float32)
        batch = ["--batch", below(count + 3, 1)]
        feed = f"--feed=features={self.save(features)}"
        wanted = {name: value.numpy() for name, value in model.score(features).items()}
        self.convert(path, feed, wanted=wanted)
        self.convert(path, feed, *batch, wanted=wanted)
        run("convert", path, "--output", "score", feed, *batch, "-o", self.path("score.npy"), *LIBRARY)
        self.check(self.path("score.npy"), wanted["score"])
        run("verify", self.path("score.npy"), "score", "--against", path, feed, *batch, *LIBRARY)
        text = np.array([RNG.bytes(below(20)) + b"." for _ in range(count)])
        feeds = [f"--feed=text={self.save(text)}", f"--feed=times={self.save(np.int32(3))}"]
        wanted = {name: value.numpy() for name, value in model.measure(text, 3).items()}
        self.convert(path, "--signature", "measure", *feeds, wanted=wanted)
        self.convert(path, "--signature", "measure", *feeds, *batch, wanted=wanted)
        # As many rows as the model makes of a batch.
        wanted = {name: value.numpy() for name, value in model.positive(features).items()}
        self.convert(path, "--signature", "positive", feed, *batch, wanted={"rows": wanted["rows"], "empty": wanted["empty"]})
        run("convert", path, "--signature", "positive", "count", feed, *batch, "-o", self.path("count.npy"), *LIBRARY)
        self.assertEqual(np.load(self.path("count.npy")).sum(), wanted["count"])
        # What is not computed is read without TensorFlow.
        nowhere = {**os.environ, "MMCONVERT_TENSORFLOW": "/nowhere"}
        run("convert", path, "weights", "-o", self.path("weights.npy"), env=nowhere)
        self.refused(2, path, "weights", "--tensorflow", "/nowhere", says="nothing of it is computed", library=[])
        self.check(self.path("weights.npy"), model.weights.numpy())
        listed = json.loads(run("ls", path, "--json", output=True))
        self.assertEqual([signature["name"] for signature in listed["signatures"]], ["measure", "positive", "serving_default"])
        self.assertEqual(
            listed["signatures"][0]["inputs"],
            [
                {"name": "text", "tensor": "measure_text:0", "dtype": "string", "shape": [None]},
                {"name": "times", "tensor": "measure_times:0", "dtype": "int32", "shape": []},
            ],
        )

    def test_models_that_begin_and_remember(self):
        vocabulary = self.write("words.txt", b"zero\none\ntwo\n")

        class Model(tf.Module):
            def __init__(self):
                self.runs = tf.Variable(0)
                words = tf.lookup.TextFileInitializer(vocabulary, tf.string, 0, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER)
                self.table = tf.lookup.StaticHashTable(words, -1)

            @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="words")])
            def serve(self, words):
                found = self.table.lookup(words)
                small = tf.cast(tf.cast(found, tf.float32), tf.dtypes.experimental.float8_e4m3fn)
                runs = self.runs.assign_add(1)
                return {"found": found, "small": small, "runs": tf.fill(tf.shape(found), runs), "text": tf.strings.as_string(found * 10)}

        model, path = Model(), self.path("model")
        tf.saved_model.save(model, path, signatures=model.serve)
        os.remove(vocabulary)
        words = RNG.choice(np.array([b"zero", b"one", b"two", b"three"]), below(100, 20))
        found = np.array([{b"zero": 0, b"one": 1, b"two": 2}.get(word, -1) for word in words])
        feed, batch = f"--feed=words={self.save(words)}", below(30, 1)
        wanted = {
            "found": found,
            "small": found.astype(tf.dtypes.experimental.float8_e4m3fn.as_numpy_dtype),
            "text": np.array([str(number * 10) for number in found], "S"),
        }
        self.convert(path, feed, wanted={**wanted, "runs": np.ones(len(words), np.int32)})
        # Every batch once, also where strings have to be looked at before they are converted.
        self.convert(path, feed, "--batch", batch, wanted={**wanted, "runs": (np.arange(len(words)) // batch + 1).astype(np.int32)})
        self.refused(2, path, "--output", "found", says="the input words (string) is missing")
        self.refused(2, path, "--output", "found", feed, feed, says="fed twice")

    def test_no_rows(self):
        graph = tf.Graph()
        with graph.as_default():
            tf.identity(tf1.placeholder(tf.float32, [None, 3], name="x"), name="same")
        path = self.write("graph.pb", graph.as_graph_def().SerializeToString())
        nothing = np.zeros((0, 3), np.float32)
        self.convert(path, f"--feed=x={self.save(nothing)}", "--batch", 5, wanted={"same:0": nothing})
        dataset = tf.data.Dataset.range(9).filter(lambda number: number < 0).map(lambda number: (number, tf.fill([3, 2], 1.5))).batch(4)
        path = self.write("dataset.pb", tf.raw_ops.DatasetToGraphV2(input_dataset=dataset._variant_tensor).numpy())
        self.convert(path, wanted={"0": np.zeros(0, np.int64), "1": np.zeros((0, 3, 2), np.float32)})

    def test_real_models(self):
        self.refused(1, os.path.join(DATA, "savedmodel/two_shards"), "--signature", "serving_default", says="TRTEngineOp")
        for name in ["half_plus_two", "half_plus_two_tf2", "regression"]:
            path = os.path.join(DATA, "savedmodel", name)
            loaded = tf.saved_model.load(path)
            for signature, function in loaded.signatures.items():
                inputs = function.structured_input_signature[1]
                # Training changes what is computed next, and these take serialized examples.
                if signature == "train" or any(spec.dtype == tf.string for spec in inputs.values()):
                    continue
                fed = {key: values(spec.dtype, [axis or 1 for axis in spec.shape]) for key, spec in inputs.items()}
                wanted = {key: value.numpy() for key, value in function(**{k: tf.constant(v) for k, v in fed.items()}).items()}
                feeds = [f"--feed={key}={self.save(array)}" for key, array in fed.items()]
                if wanted:
                    self.convert(path, "--signature", signature, *feeds, wanted=wanted)

    def test_data_sets(self):
        count = below(300, 1)
        plain = tf.data.Dataset.range(count)

        def records():
            # Each shuffles anew.
            return plain.shuffle(50, seed=below(99, 1)).map(lambda i: (tf.cast(i, tf.float32) * [1.0, 2.0], i, tf.strings.as_string(i)))

        nested = plain.map(lambda i: {"b": tf.fill([2, 3], i), "a": {"x": tf.cast(i, tf.bfloat16), "y": i % 2 == 0}})
        filtered = plain.filter(lambda number: number % 3 == 0)
        ragged = tf.data.Dataset.range(9).map(lambda number: tf.range(number)).padded_batch(3)
        cases = [
            (plain, np.stack),
            (records().batch(32), np.concatenate),
            (records().batch(32, drop_remainder=count >= 32), np.concatenate),
            # What is done to batches leaves them batches.
            (plain.batch(7, drop_remainder=count >= 7).map(lambda i: tf.cast(i, tf.float64) / 3).prefetch(1), np.concatenate),
            (nested.prefetch(2), np.stack),
            (filtered.repeat(2).interleave(lambda i: tf.data.Dataset.from_tensors(i).repeat(2)), np.stack),
            (ragged, None),
        ]
        for number, (dataset, together) in enumerate(cases):
            # The recipe of the README.
            graph = tf.raw_ops.DatasetToGraphV2(input_dataset=dataset._variant_tensor)
            path = self.path(f"dataset{number}.pb")
            with open(path, "wb") as file:
                file.write(graph.numpy())
            elements = [tf.nest.flatten(element) for element in dataset]
            if together is None:
                self.refused(6, path, "0", says="expected as in the first")
                out = self.path("padded.npy")
                run("convert", path, "0", "-o", out, "--as", "0=tensor", *LIBRARY, expect=2)
                continue
            wanted = {str(part): together([np.asarray(element[part].numpy()) for element in elements]) for part in range(len(elements[0]))}
            self.convert(path, wanted=wanted)

    def test_elements_of_any_length(self):
        # Nobody joins what is no batch without being told to.
        dataset = tf.data.Dataset.range(1, 20).map(lambda number: (tf.range(number), number))
        path = self.write("dataset.pb", tf.raw_ops.DatasetToGraphV2(input_dataset=dataset._variant_tensor).numpy())
        rows = [np.arange(number) for number in range(1, 20)]
        self.refused(6, path, "0", says="expected as in the first")
        out = self.path("flat.npy")
        run("convert", path, "0", "-o", out, "--flatten", *LIBRARY)
        self.check(out, np.concatenate(rows))
        out = self.path("o.npy")
        run("convert", path, "0", "-o", out, "--ragged", "offsets", *LIBRARY)
        self.check(self.path("o.values.npy"), np.concatenate(rows))
        self.check(self.path("o.offsets.npy"), np.cumsum([0] + [len(row) for row in rows]))
        # Windows of one length are rows; what was a batch and is taken apart is none.
        windows = tf.data.Dataset.range(20).window(5).flat_map(lambda window: window.batch(5))
        path = self.write("windows.pb", tf.raw_ops.DatasetToGraphV2(input_dataset=windows._variant_tensor).numpy())
        self.convert(path, wanted={"0": np.arange(20).reshape(4, 5)})
        single = tf.data.Dataset.range(20).batch(7).unbatch().map(lambda number: tf.fill([tf.cast(2 + 0 * number, tf.int32)], number))
        path = self.write("single.pb", tf.raw_ops.DatasetToGraphV2(input_dataset=single._variant_tensor).numpy())
        self.convert(path, wanted={"0": np.arange(20).repeat(2).reshape(20, 2)})

    def test_data_sets_of_variants(self):
        dataset = tf.data.Dataset.range(9).map(lambda i: (i, tf.RaggedTensor.from_row_lengths(tf.range(i), [i])))
        path = self.write("dataset.pb", tf.raw_ops.DatasetToGraphV2(input_dataset=dataset._variant_tensor).numpy())
        out = self.path("out")
        said = run("convert", path, "-o", out, *LIBRARY, expect=6)
        self.assertIn("r.nested_row_splits", said)
        np.testing.assert_array_equal(np.load(os.path.join(out, "0.npy")), np.arange(9))

    def dataset(self, name, dataset):
        return self.write(name, tf.raw_ops.DatasetToGraphV2(input_dataset=dataset._variant_tensor).numpy())

    def test_rows_of_data_sets(self):
        count = below(500, 60)
        plain = tf.data.Dataset.range(count).map(lambda i: {"n": i, "x": tf.cast(i, tf.float32) * [1.0, 2.0]})
        whole = [np.arange(count), np.arange(count, dtype=np.float32)[:, None] * np.float32([1, 2])]
        for number, dataset in enumerate([plain, plain.batch(below(40, 1)), plain.batch(8, drop_remainder=True)]):
            path = self.dataset(f"{number}.pb", dataset)
            for _ in range(4):
                low, high = sorted(below(count // 8 * 8) for _ in range(2))
                self.convert(path, "--rows", f"{low}:{high}", wanted={"0": whole[0][low:high], "1": whole[1][low:high]})

        # Nothing behind the last row is computed: the element there fails.
        def failing(i):
            return tf.debugging.check_numerics(1.0 / tf.cast(i - 20, tf.float32), "beyond")

        for number, dataset in enumerate([plain.map(lambda e: failing(e["n"])), plain.batch(5).map(lambda e: failing(e["n"]))]):
            path = self.dataset(f"failing{number}.pb", dataset)
            self.convert(path, "--rows", "3:20", wanted={"0": np.float32(1) / (np.arange(3, 20) - 20).astype(np.float32)})
            self.refused(1, path, "--rows", "3:21", says="beyond")

        # Those without an end take rows with one.
        for number, dataset in enumerate([plain.repeat(), plain.repeat().filter(lambda e: e["n"] % 2 >= 0).batch(9), tf.data.Dataset.range(2**62).repeat()]):
            path = self.dataset(f"endless{number}.pb", dataset)
            name = "0"
            for args in [[], ["--rows", "5:"], ["--dry-run"]]:
                self.refused(2, path, name, *args, says=["has no end", "--rows"])
            self.convert(path, "--rows", "2:40", wanted={"0": np.arange(2, 40)})
            run("ls", path, *LIBRARY)
            run("info", path, *LIBRARY)

    def test_the_graph_is_that_with_exactly_the_tags(self):
        model = os.path.join(DATA, "savedmodel/tags")
        x = RNG.random((6, 2), np.float32)
        feed = f"--feed=x={self.save(x)}"
        for tags, args in [(["serve"], []), (["serve"], ["--tag-set", "serve"]), (["serve", "gpu"], ["--tag-set", "gpu,serve"])]:
            with tf.Graph().as_default(), tf1.Session() as session:
                tf1.saved_model.load(session, tags, model)
                wanted = session.run("y:0", {"x:0": x})
            self.convert(model, feed, *args, wanted={"y": wanted})
        ambiguous = os.path.join(DATA, "savedmodel/tags_ambiguous")
        self.refused(2, ambiguous, feed, says=['"train", "serve,gpu"', "--tag-set"])
        self.refused(2, ambiguous, feed, "--tag-set", "serve", says='"train", "serve,gpu"')
        self.assertIn("--tag-set", run("convert", ambiguous, feed, "--tag-set", "train", "-o", self.path("y.npy"), *LIBRARY) + "--tag-set")

    def test_strings_are_fed_as_they_are(self):
        class Model(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
            def lengths(self, text):
                return {"length": tf.strings.length(text), "same": text}

        model = self.path("model")
        tf.saved_model.save(Model(), model, signatures=Model().lengths)
        strings = [RNG.bytes(below(9)) + bytes(below(3)) for _ in range(below(200, 20))] + [b"", b"\0\0"]
        wanted = {"length": np.int32([len(string) for string in strings])}
        records = self.path("strings.tfrecord")
        compression = one_of([None, "GZIP"])
        with tf.io.TFRecordWriter(records, compression) as writer:
            for string in strings:
                writer.write(string)
        pair = self.path("pair.npy")
        run("convert", records, "records", "--format", "tfrecord", "--strings", "offsets", "-o", pair)
        for number in range(2):
            with tf.io.TFRecordWriter(self.path(f"s-{number:05}-of-00002")) as writer:
                for string in strings[number * 9 :] if number else strings[:9]:
                    writer.write(string)
        for feed in [records, pair, self.path("pair.values.npy"), self.path("pair.offsets.npy"), self.path("s-*-of-00002"), self.path("s@2")]:
            for batch in [[], ["--batch", below(50, 1)]]:
                self.convert(model, "--feed", f"text={feed}", *batch, wanted=wanted)
        # Nothing is left of them.
        out = self.path("same.npy")
        run("convert", model, "same", "--feed", f"text={records}", "--strings", "offsets", "-o", out, *LIBRARY)
        self.assertEqual(np.load(self.path("same.values.npy")).tobytes(), b"".join(strings))

        # A NumPy array cannot tell padding from NULs: what can be known is said.
        ends = self.save(np.array([b"ab\0", b"c\0\0"]))
        self.refused(2, model, "--feed", f"text={ends}", says=["ended in NUL", "offsets"])
        mixed = self.save(np.array([b"abcd", b"ab\0\0"]))
        said = run("convert", model, "length", "--feed", f"text={mixed}", "-o", self.path("n.npy"), *LIBRARY)
        self.assertIn("note", said)
        words = self.save(np.array(["\u00e4b", "c"]))
        self.convert(model, "--feed", f"text={words}", wanted={"length": np.int32([3, 1])})
        for number, damage in enumerate([lambda o: o + 1, lambda o: o[::-1].copy(), lambda o: o[:-1]]):
            np.save(self.path(f"bad{number}.values.npy"), np.load(self.path("pair.values.npy")))
            np.save(self.path(f"bad{number}.offsets.npy"), damage(np.load(self.path("pair.offsets.npy"))))
            self.refused(3, model, "--feed", f"text={self.path(f'bad{number}.npy')}", says="offsets")
        self.refused(6, model, "--feed", f"text={os.path.join(DATA, 'savedmodel/half_plus_two')}", says="records")

        # What is whole before a damage goes in where that is asked for, and what is lost is told.
        with open(records, "rb") as file:
            content = file.read()
        cut = self.write("cut.tfrecord", content[: len(content) - below(8, 1)])
        self.refused(3, model, "--feed", f"text={cut}", says="--salvage")
        for batch in [[], ["--batch", below(50, 1)]]:
            out = self.path("salvaged.npy")
            said = run("convert", model, "length", "--feed", f"text={cut}", "--salvage", *batch, "-fo", out, *LIBRARY)
            self.assertIn("cut.tfrecord", said)
            found = np.load(out)
            # Of a gzip stream only the checksum at its end may be cut.
            self.assertLess(len(found), len(strings) + (compression == "GZIP"))
            np.testing.assert_array_equal(found, wanted["length"][: len(found)])

    def test_joined_outputs_have_the_rows_of_all(self):
        class Model(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
            def rows(self, x):
                return {"y": x * 2}

            @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, "x")])
            def any(self, x):
                return {"y": x * 3}

        model = Model()
        paths = [self.path("one"), self.path("two")]
        for path in paths:
            tf.saved_model.save(model, path, signatures={"serving_default": model.rows, "any": model.any})
        x = RNG.standard_normal((below(20, 1), 3), np.float32)
        feed = f"--feed=x={self.save(x)}"
        out = self.path("y.npy")
        for more, wanted in [([], x * 2), (["--batch", "4"], x * 2), (["--signature", "any"], x * 3)]:
            run("convert", *paths, "--output", "y", "--concat", feed, *more, "-fo", out, *LIBRARY)
            self.check(out, np.concatenate([wanted, wanted]))
            said = json.loads(run("convert", *paths, "--output", "y", "--concat", feed, *more, "-n", "--json", "-fo", out, *LIBRARY, output=True))
            self.assertIsNone(said["write_bytes"])

    def test_parts_of_ragged_outputs_are_not_cut_one_by_one(self):
        class Model(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "n")])
            def f(self, n):
                return {"r": tf.ragged.range(n), "n": n}

        model = self.path("model")
        tf.saved_model.save(Model(), model, signatures=Model().f)
        lengths = np.int64(RNG.integers(0, 5, below(9, 2)))
        feed = f"--feed=n={self.save(lengths)}"
        ragged = tf.ragged.range(lengths)
        self.convert(model, feed, wanted={"r/flat_values": ragged.flat_values.numpy(), "r/row_splits": ragged.row_splits.numpy()})
        for name in ["r/flat_values", "r/row_splits"]:
            self.refused(2, model, feed, "--output", name, "--rows", "0:1", says=["--rows", "ragged"])
            self.refused(6, model, model, feed, "--output", name, "--concat", says="ragged")
        out = self.path("n.npy")
        run("convert", model, "n", feed, "--rows", "1:", "-o", out, *LIBRARY)
        self.check(out, lengths[1:])

    def test_ragged_inputs_are_told_where_batches_cut_them(self):
        class Model(tf.Module):
            @tf.function(input_signature=[tf.RaggedTensorSpec([None, None], tf.int64)])
            def f(self, r):
                return {"sum": tf.reduce_sum(r, axis=1)}

        model = self.path("model")
        tf.saved_model.save(Model(), model, signatures=Model().f)
        ragged = tf.RaggedTensor.from_row_splits(np.int64([1, 2, 3, 4]), np.int64([0, 2, 2, 4]))
        listed = json.loads(run("ls", model, "--json", *LIBRARY, output=True))
        inputs = [one["name"] for one in next(one for one in listed["signatures"] if one["name"] == "serving_default")["inputs"]]
        feeds = [f"--feed={name}={self.save(part.numpy())}" for name, part in zip(inputs, [ragged.flat_values, ragged.row_splits], strict=True)]
        self.convert(model, *feeds, wanted={"sum": tf.reduce_sum(ragged, axis=1).numpy()})
        said = run("convert", model, "sum", *feeds, "--batch", "2", "-o", self.path("cut.npy"), *LIBRARY)
        self.assertIn("row splits", said)

    def test_what_is_only_looked_at_is_not_computed(self):
        ran = self.path("ran")

        class Model(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, "x")])
            def f(self, x):
                with tf.control_dependencies([tf.io.write_file(ran, "f")]):
                    return {"y": tf.identity(x)}

        def told(number):
            with tf.control_dependencies([tf.io.write_file(ran, tf.strings.as_string(number))]):
                return tf.identity(number)

        model = self.path("model")
        tf.saved_model.save(Model(), model, signatures=Model().f)
        unknown = tf.data.Dataset.range(5).map(lambda number: tf.io.parse_tensor(tf.io.serialize_tensor(told(number)), tf.int64))
        sources = []
        for name, dataset in [("known.pb", tf.data.Dataset.range(5).map(told)), ("unknown.pb", unknown)]:
            graph = tf.raw_ops.DatasetToGraphV2(input_dataset=dataset._variant_tensor)
            sources.append((self.write(name, graph.numpy()), []))
        feed = f"--feed=x={self.save(np.float32([[1, 2]]))}"
        sources += [(model, ["--signature", "serving_default", feed]), (model, ["--signature", "serving_default", feed, "--batch", "1"])]
        for source, args in sources:
            if os.path.exists(ran):
                os.remove(ran)
            run("convert", source, *args, "-n", "-o", self.path("no") + "/", *LIBRARY)
            run("ls", source, *[arg for arg in args if "feed" in arg or "signature" in arg or "serving" in arg], *LIBRARY)
            run("info", source, *args, *LIBRARY)
            self.assertFalse(os.path.exists(ran), f"{source} {args}")
            run("convert", source, *args, "-fo", self.path("out") + "/", *LIBRARY)
            self.assertTrue(os.path.exists(ran), f"{source} {args}")

    def test_outputs_that_are_not_of_rows_are_told(self):
        class Model(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
            def f(self, x):
                return {"rows": x * 2, "sum": tf.reduce_sum(x), "table": tf.range(4)}

        model = self.path("model")
        tf.saved_model.save(Model(), model, signatures=Model().f)
        x = np.float32(RNG.integers(0, 99, below(40, 11)))
        feed = f"--feed=x={self.save(x)}"
        batches = [x[at : at + 10] for at in range(0, len(x), 10)]
        out = self.path("out")
        said = run("convert", model, feed, "--batch", 10, "-o", out + "/", *LIBRARY)
        for name, array in [("rows", x * 2), ("sum", np.float32([b.sum() for b in batches])), ("table", np.tile(np.int32(range(4)), len(batches)))]:
            self.check(os.path.join(out, name + ".npy"), array)
            self.assertEqual(f"note: {name} " in said, name != "rows", said)
        # One that is computed, and others, in any order.
        other = self.save(np.arange(5))
        for sources in [[model, other], [other, model]]:
            out = self.path(f"several{len(os.listdir(self.dir))}")
            run("convert", *sources, feed, "-o", out + "/", *LIBRARY)
            self.check(os.path.join(out, "rows.npy"), x * 2)
            self.check(os.path.join(out, os.path.basename(other)), np.arange(5))

    def test_ragged_and_sparse_outputs_are_their_parts(self):
        class Model(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "n")])
            def make(self, n):
                return {"ragged": tf.ragged.range(n), "sparse": tf.sparse.from_dense(tf.cast(n[:, None] > [2, 5], tf.float32)), "n": n}

        model = self.path("model")
        tf.saved_model.save(Model(), model, signatures=Model().make)
        n = RNG.integers(0, 9, below(30, 5))
        ragged, sparse = tf.ragged.range(n), tf.sparse.from_dense(tf.cast(n[:, None] > [2, 5], tf.float32))
        wanted = {"ragged/flat_values": ragged.flat_values, "ragged/row_splits": ragged.row_splits, "n": n}
        wanted |= {"sparse/indices": sparse.indices, "sparse/values": sparse.values, "sparse/dense_shape": sparse.dense_shape}
        feed = f"--feed=n={self.save(n)}"
        self.convert(model, feed, wanted={name: np.asarray(array) for name, array in wanted.items()})
        # Those of batches do not come one behind the other.
        out = self.path("batches")
        said = run("convert", model, feed, "--batch", 3, "-o", out + "/", *LIBRARY, expect=6)
        self.assertIn("without --batch", said)
        self.assertEqual(sorted(os.listdir(out)), ["manifest.json", "n.npy"])

    def test_what_tensorflow_refuses_says_the_next_step(self):
        numbers = tf.data.Dataset.range(5)
        python = numbers.map(lambda i: tf.py_function(lambda i: np.float32(i), [i], tf.float32))
        self.refused(1, self.dataset("python.pb", python), says="Dataset.save")
        made = tf.data.Dataset.from_generator(lambda: iter(range(5)), output_signature=tf.TensorSpec([], tf.int32))
        self.refused(1, self.dataset("generator.pb", made), says="Dataset.save")
        graph = tf.Graph()
        with graph.as_default():
            tf.identity(tf1.get_variable("v", [2], use_resource=True), name="y")
        self.refused(1, self.write("variable.pb", graph.as_graph_def().SerializeToString()), "y:0", says="convert_variables_to_constants")
        graph = tf.Graph()
        add_constant(graph, "s", tf.string, (2,))
        with graph.as_default():
            tf.strings.lower(graph.get_tensor_by_name("s:0"), name="y")
        unknown = graph.as_graph_def().SerializeToString().replace(b"StringLower", b"UnknownOper")
        self.refused(1, self.write("unknown.pb", unknown), "y:0", says="--op-library")
        self.refused(1, self.write("unknown.pb", unknown), "y:0", "--op-library", self.path("none.so"), says="none.so")

    def test_what_does_not_fit_is_refused(self):
        graph = tf.Graph()
        with graph.as_default():
            x = tf1.placeholder(tf.float32, [None, 3], name="x")
            tf.debugging.check_numerics(x, "a NaN", name="checked")
            tf.reduce_sum(x, name="sum")
        path = self.write("graph.pb", graph.as_graph_def().SerializeToString())
        good = np.zeros((50, 3), np.float32)
        bad = good.copy()
        bad[33, 1] = np.nan
        feed = f"x={self.save(good)}"
        self.refused(1, path, "checked", "--feed", f"x={self.save(bad)}", says=["checked", "a NaN"])
        self.refused(1, path, "checked", "--feed", f"x={self.save(bad)}", "--batch", 10, says=["rows 30 to 40", "checked", "a NaN"])
        self.refused(1, path, "checked", says=["computing checked:0", "x"])
        # A batch of a fixed size fits the rows, or nothing is begun.
        fixed = tf.Graph()
        with fixed.as_default():
            tf.identity(tf1.placeholder(tf.float32, [8, 3], name="x"), name="same")
        fixed = self.write("fixed.pb", fixed.as_graph_def().SerializeToString())
        self.refused(2, fixed, "same", "--feed", f"x={self.save(good)}", "--batch", 8, says="8 rows at a time")
        self.refused(2, fixed, "same", "--feed", f"x={self.save(good[:48])}", "--batch", 16, says="16 rows at a time")
        run("convert", fixed, "same", "--feed", f"x={self.save(good[:48])}", "--batch", 8, "-o", self.path("same.npy"), *LIBRARY)
        self.check(self.path("same.npy"), good[:48])
        os.remove(self.path("same.npy"))
        self.refused(2, path, "checked", "--feed", f"y={self.save(good)}", says="no input \"y\"")
        self.refused(2, path, "nothing", "--feed", feed, says="no tensor \"nothing\"")
        self.refused(2, path, "checked", "--feed", f"x={self.save(good.astype(np.float64))}", says=["<f8", "float32"])
        self.refused(2, path, "checked", "--feed", f"x={self.save(good.astype('>f4'))}", says="byte order")
        self.refused(2, path, "checked", "--feed", f"x={self.save(np.asfortranarray(good))}", says="Fortran")
        self.refused(2, path, "checked", "--feed", f"x={self.save(good[:, :2])}", says=["[50, 2]", "[?, 3]"])
        self.refused(4, path, "checked", "--feed", f"x={self.save(np.zeros((1 << 20, 3), np.float32))}", "--memory", "20MiB", says="--batch")
        with open(self.path("short.npy"), "wb") as short:
            short.write(self.read(feed[2:])[:-1])
        self.refused(3, path, "checked", "--feed", f"x={short.name}", says="short.npy")
        model = os.path.join(DATA, "savedmodel/half_plus_two")
        self.refused(2, model, "--signature", "nothing", says=["no signature", "serving_default"])
        self.refused(2, model, "--feed", f"z={self.save(good)}", says="it has x")

    def test_names_that_are_tensors_of_others(self):
        # A signature may call one tensor by another's name; names win.
        path = self.path("model")
        with tf.Graph().as_default(), tf1.Session() as session:
            a, b = (tf1.placeholder(tf.float32, [None], name=name) for name in "ab")
            c, d = tf.add(a, 10.0, name="c"), tf.add(b, 20.0, name="d")
            signature = tf1.saved_model.predict_signature_def({"a": b, "b": a}, {"c": d, "d": c})
            builder = tf1.saved_model.Builder(path)
            builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
            builder.save()
        one, two = np.float32([1, 2, 3]), np.float32([4, 5, 6])
        feeds = [f"--feed=a={self.save(one)}", f"--feed=b={self.save(two)}"]
        self.convert(path, *feeds, wanted={"c": one + 20, "d": two + 10})
        self.convert(path, *feeds, "--batch", 2, wanted={"c": one + 20, "d": two + 10})

    def test_hostile_graphs(self):
        graph = tf.Graph()
        add_constant(graph, "c", tf.float32, (4,))
        definition = graph.as_graph_def()
        tensor = definition.node[0].attr["value"].tensor
        # As a file with constants, and as what is to be computed.
        for how in [[], ["c:0"]]:
            tensor.tensor_shape.dim[0].size = -3
            self.refused(3, self.write("negative.pb", definition.SerializeToString()), *how, says=["negative.pb", "-3"])
            tensor.tensor_shape.dim[0].size = 5
            self.refused(3, self.write("short.pb", definition.SerializeToString()), *how, says=["short.pb", "16 bytes"])
        tensor.tensor_content = b""
        tensor.float_val.append(1)
        tensor.tensor_shape.dim[0].size = 1 << 40
        self.refused(4, self.write("splat.pb", definition.SerializeToString()), "c:0", says="constants")
        endless = tf.Graph()
        with endless.as_default():

            @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
            def function(x):
                return x + 1

            function(tf.constant(1.0))
        definition = endless.as_graph_def()
        call = definition.library.function[0].node_def.add(name="again", op=definition.library.function[0].signature.name)
        call.input.append("x")
        self.refused(3, self.write("endless.pb", definition.SerializeToString()), "Const:0", says="calls itself")
        definition = graph.as_graph_def()
        tensor = definition.node[0].attr["value"].tensor
        tensor.dtype = 77
        for how in [[], ["c:0"]]:
            self.refused(3, self.write("dtype.pb", definition.SerializeToString()), *how, says="dtype 77")

    def test_damaged_graphs(self):
        graph = os.path.join(DATA, "graph/multi_add.pb")
        whole = self.read(graph)
        for _ in range(20):
            damaged = bytearray(whole)
            for _ in range(below(3, 1)):
                damaged[below(len(damaged) - 1)] = below(255)
            path = self.write("damaged.pb", bytes(damaged[: one_of([len(damaged), below(len(damaged))])]))
            code = run("convert", path, "x:0", "y:0", "-o", self.path("damaged"), *LIBRARY, expect=None)
            self.assertIn(code, [0, 1, 2, 3, 4, 6], f"seed {SEED}")
            if code not in (0, 6):
                self.assertFalse(os.path.exists(self.path("damaged")))

    def test_where_the_library_is_found(self):
        graph = os.path.join(DATA, "graph/addition.pb")
        x = self.save(np.int32(1))
        args = ["convert", graph, f"--feed=x={x}", f"--feed=y={x}", "-f", "-o", self.path("z.npy")]
        bare = {"PATH": "/nowhere", "HOME": self.dir}
        said = run(*args, expect=6, env=bare)
        self.assertEqual(len(said.splitlines()), 1)
        self.assertIn("pip install tensorflow", said)
        run(*args, expect=6, env={"PATH": os.environ["PATH"], "HOME": self.dir}, prefix=["--tensorflow", "/nowhere"])
        with_python = {"PATH": os.path.dirname(sys.executable), "HOME": self.dir}
        self.assertEqual(len(run(*args, env=with_python).splitlines()), 1)
        run(*args, env={**bare, "TENSORFLOW_DIR": os.path.dirname(tf.__file__)})
        run(*args, env={**bare, "LD_LIBRARY_PATH": os.path.dirname(tf.__file__)})
        run(*args, env=bare, prefix=["--tensorflow", os.path.dirname(os.path.dirname(tf.__file__))])
        # What can be told without it.
        listed = json.loads(run("ls", graph, "--json", output=True, env=bare))
        self.assertEqual([signature["inputs"] for signature in listed["signatures"]][0][0]["dtype"], "int32")

    def test_interrupted(self):
        graph = tf.Graph()
        with graph.as_default():
            x = tf1.placeholder(tf.float32, [None, 100], name="x")
            tf.linalg.matmul(x, tf.random.normal([100, 30000]), name="y")
        path = self.write("graph.pb", graph.as_graph_def().SerializeToString())
        feed = f"--feed=x={self.save(np.zeros((20000, 100), np.float32))}"
        # A run of TensorFlow's that never ends is not waited for.
        dataset = tf.data.Dataset.range(10**12).filter(lambda number: number < 0)
        endless = self.write("endless.pb", tf.raw_ops.DatasetToGraphV2(input_dataset=dataset._variant_tensor).numpy())
        before = sorted(os.listdir(self.dir))
        code = run("convert", endless, "-o", self.path("y/"), *LIBRARY, kill=(1.5, signal.SIGTERM), expect=None)
        self.assertEqual(code, 143)
        self.assertEqual(sorted(os.listdir(self.dir)), before)
        for number in [signal.SIGINT, signal.SIGKILL]:
            before = sorted(os.listdir(self.dir))
            run("convert", path, "y", feed, "--batch", 100, "-o", self.path("y.npy"), *LIBRARY, kill=(1, number), expect=None)
            self.assertEqual(sorted(os.listdir(self.dir)), before)


if __name__ == "__main__":
    print("seed", SEED)
    unittest.main(argv=sys.argv[:1], verbosity=2)
