"""What the scripts that have TensorFlow as a judge share: the program, the seed, random values of any dtype."""

import io
import os
import random
import struct
import subprocess
import sys
import time

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


def below(most, least=0):
    """A random number from `least` to `most`."""
    return int(RNG.integers(least, most + 1))


def one_of(choices):
    return choices[below(len(choices) - 1)]


def cpu_seconds(process):
    """How long a process has worked, on all cores together."""
    with open(f"/proc/{process.pid}/stat") as stat:
        user, system = stat.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def run(*args, expect=0, prefix=(), output=False, kill=None, **more):
    """Runs mmconvert; gives what it says, what it writes (`output`), or its exit code where any is expected.

    With `kill`, seconds and a signal, it gets that once it has worked for so long, which it must not have ended before.
    """
    command = [MMCONVERT, *map(str, args), *prefix]
    if kill:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
        while process.poll() is None and cpu_seconds(process) < kill[0]:
            time.sleep(0.01)
        assert process.poll() is None, f"seed {SEED}, {args}: it ended before it was to be killed"
        process.send_signal(kill[1])
        return process.wait()
    done = subprocess.run(command, capture_output=True, **more)
    said = done.stderr.decode()
    if expect is None:
        return done.returncode
    assert done.returncode == expect, f"seed {SEED}, {args}: exit code {done.returncode}, not {expect}\n{said}"
    return done.stdout.decode() if output else said


def written(array):
    """What `np.save` writes, but for the padding of the header."""
    out = io.BytesIO()
    np.save(out, array)
    return unpadded(out.getvalue())


def unpadded(npy):
    length = struct.unpack("<H", npy[8:10])[0]
    return npy[:8] + npy[10 : 10 + length].rstrip() + npy[10 + length :]
