"""What a user would do in Python.

    python peers.py WAY PREFIX OUT ROWS COLUMNS     WAY: open_memmap, tf_get_tensor or tf_slices; prints seconds

The tensor `t` is float32 [ROWS, COLUMNS] and lies at the start of the only shard.
"""

import os
import sys
import time

way, prefix, out, rows, columns = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np

if way.startswith("tf"):
    import tensorflow as tf

SLICE_ROWS = 65536


def sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def open_memmap():
    """Knows where the bytes lie, as only someone who has read the index does."""
    array = np.lib.format.open_memmap(out, mode="w+", dtype="<f4", shape=(rows, columns))
    with open(prefix + ".data-00000-of-00001", "rb") as shard:
        for start in range(0, rows, SLICE_ROWS):
            array[start : start + SLICE_ROWS] = np.fromfile(shard, "<f4", min(SLICE_ROWS, rows - start) * columns).reshape(-1, columns)
    array.flush()
    sync(out)


def tf_get_tensor():
    with open(out, "wb") as file:  # np.save would add a suffix to a name
        np.save(file, tf.train.load_checkpoint(prefix).get_tensor("t"))
    sync(out)


def tf_slices():
    """A few slices stand for all: TensorFlow reads the whole tensor for each of them."""
    count = 2
    slices = -(-rows // SLICE_ROWS)
    array = np.lib.format.open_memmap(out, mode="w+", dtype="<f4", shape=(rows, columns))
    started = time.perf_counter()
    for start in range(0, min(count, slices) * SLICE_ROWS, SLICE_ROWS):
        length = min(SLICE_ROWS, rows - start)
        spec = f"{rows} {columns} {start},{length}:0,{columns}"
        array[start : start + length] = tf.raw_ops.RestoreV2(prefix=prefix, tensor_names=["t"], shape_and_slices=[spec], dtypes=[tf.float32])[0]
    return (time.perf_counter() - started) / min(count, slices) * slices


started = time.perf_counter()
seconds = {"open_memmap": open_memmap, "tf_get_tensor": tf_get_tensor, "tf_slices": tf_slices}[way]()
print(time.perf_counter() - started if seconds is None else seconds)
