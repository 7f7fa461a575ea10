"""What the scripts that have TensorFlow as a judge share: the program, the seed, random values of any dtype."""

import os
import random
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

MMCONVERT = sys.argv[1]
# The one argument that is a number, or a new one.
SEED = next((int(word) for word in sys.argv[2:] if word.isdecimal()), random.randrange(2**32))
RNG = np.random.default_rng(SEED)

NUMBERS = [
    tf.float32, tf.float64, tf.int32, tf.uint8, tf.int16, tf.int8, tf.complex64, tf.int64, tf.bool, tf.bfloat16,
    tf.uint16, tf.complex128, tf.float16, tf.uint32, tf.uint64, tf.dtypes.experimental.float8_e5m2,
    tf.dtypes.experimental.float8_e4m3fn, tf.dtypes.experimental.int4, tf.dtypes.experimental.uint4,
]  # fmt: skip


def values(dtype, shape):
    """An array of random bit patterns, or of random values where not every pattern is one."""
    np_dtype = np.dtype(dtype.as_numpy_dtype)
    if dtype == tf.bool:
        return RNG.integers(0, 2, shape).astype(bool)
    if dtype in (tf.dtypes.experimental.int4, tf.dtypes.experimental.uint4):
        low = -8 if dtype == tf.dtypes.experimental.int4 else 0
        return RNG.integers(low, low + 16, shape).astype(np_dtype)
    raw = RNG.integers(0, 256, (*shape, np_dtype.itemsize), dtype=np.uint8)
    return raw.view(np_dtype).reshape(shape)
