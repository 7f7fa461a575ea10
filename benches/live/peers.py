"""What a user would do in Python, and the inputs for it.

    python peers.py make DIR MIB                    models `dense`, `conv` and `table`, the graph `computed.pb`, inputs of MIB
    python peers.py infer MODEL ARRAY OUTPUT OUT    a loop over batches of 64 into `open_memmap`; prints seconds
    python peers.py variable MODEL OUT              a variable of the model, with `np.save`; prints seconds
    python peers.py compute GRAPH TENSOR            computes a tensor and leaves it where it is; prints seconds

Outputs are on the disk at the end. The seconds leave imports out.
"""

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

BATCH = 64


class Dense(tf.Module):
    shape = (1024,)

    def __init__(self):
        self.first = tf.Variable(tf.random.stateless_normal((1024, 256), (1, 2)) / 32)
        self.second = tf.Variable(tf.random.stateless_normal((256, 16), (3, 4)) / 16)

    @tf.function(input_signature=[tf.TensorSpec((None, 1024), tf.float32, name="input")])
    def serve(self, input):
        hidden = tf.nn.relu(tf.matmul(input, self.first))
        return {"logits": tf.matmul(hidden, self.second), "hidden": hidden}


class Convolution(tf.Module):
    shape = (128, 128, 3)

    def __init__(self):
        self.kernel = tf.Variable(tf.random.stateless_normal((3, 3, 3, 8), (5, 6)) / 9)

    @tf.function(input_signature=[tf.TensorSpec((None, 128, 128, 3), tf.float32, name="input")])
    def serve(self, input):
        return {"logits": tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(input, self.kernel, 2, "SAME")), (1, 2))}


class Table(tf.Module):
    def __init__(self, mib):
        self.table = tf.Variable(tf.random.stateless_uniform((mib << 11, 64), (7, 8)))

    @tf.function(input_signature=[])
    def serve(self):
        return {"table": self.table.read_value()}


def make(directory, mib):
    mib = int(mib)
    for name, kind in (("dense", Dense), ("conv", Convolution), ("table", lambda: Table(mib))):
        path = os.path.join(directory, name)
        if not os.path.exists(path):
            model = kind()
            tf.saved_model.save(model, path, signatures=model.serve)
            del model
    for name, kind in (("dense", Dense), ("conv", Convolution)):
        path = os.path.join(directory, name + ".npy")
        if not os.path.exists(path):
            row = int(np.prod(kind.shape)) * 4
            array = np.lib.format.open_memmap(path + ".part", "w+", np.float32, ((mib << 20) // row, *kind.shape))
            block = np.random.default_rng(0).random((BATCH, *kind.shape), np.float32)
            for start in range(0, len(array), BATCH):
                array[start : start + BATCH] = block[: len(array) - start]
            array.flush()
            os.rename(path + ".part", path)
    with tf.Graph().as_default() as graph:
        tf.random.stateless_uniform((mib << 12, 64), (1, 2), name="uniform")
        tf.broadcast_to(tf.range(mib << 15)[:, None], (mib << 15, 8), name="broadcast")
        with open(os.path.join(directory, "computed.pb"), "wb") as file:
            file.write(graph.as_graph_def().SerializeToString())


def infer(model, array, output, out):
    loaded = tf.saved_model.load(model)
    function = loaded.signatures["serving_default"]
    rows = np.load(array, mmap_mode="r")
    found = None
    for start in range(0, len(rows), BATCH):
        part = function(input=tf.constant(rows[start : start + BATCH]))[output].numpy()
        if found is None:
            found = np.lib.format.open_memmap(out, "w+", part.dtype, (len(rows), *part.shape[1:]))
        found[start : start + BATCH] = part
    found.flush()


def variable(model, out):
    np.save(out, tf.saved_model.load(model).table.numpy())
    with open(out, "rb") as file:
        os.fsync(file.fileno())


def compute(graph, tensor):
    definition = tf.compat.v1.GraphDef()
    with open(graph, "rb") as file:
        definition.ParseFromString(file.read())
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        (found,) = tf.import_graph_def(definition, return_elements=[tensor])
        session.run(tf.raw_ops.GetSessionHandle(value=found).op)


if __name__ == "__main__":
    started = time.perf_counter()
    {"make": make, "infer": infer, "variable": variable, "compute": compute}[sys.argv[1]](*sys.argv[2:])
    print(time.perf_counter() - started)
