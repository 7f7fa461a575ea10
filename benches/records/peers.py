"""The tf.data side of the benchmark of records, and the inputs of both sides.

    python peers.py KIND FILE OUT     KIND: examples, images or save
    python peers.py make KIND DIR     KIND: floats64, floats10k, gzip, jpeg, png or save4g

The first prints `ready` when the dataset is built. For every line on standard input it then writes all records of FILE to OUT
as `.npy`, until they are on the disk, and prints the seconds. In the environment, RECORDS and VALUES are the number of records
and of the values in each, COMPRESSION is that of the file, and FEATURE the name of the feature. Inputs that are there are not
made again.
"""

import os
import shutil
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

SEED = 20
NAMES = {"gzip": "gzip.tfrecord.gz", "save4g": "save4g"}
HEIGHT, WIDTH = 480, 640
SAVED_SHAPE = (256, 1024)
SHORT = 1024  # values; longer records make smaller batches
PICTURES = 36
READ_BYTES = 8 << 20


def number(name):
    return int(os.environ[name])


def records(path):
    return tf.data.TFRecordDataset(path, compression_type=os.environ.get("COMPRESSION", ""), buffer_size=READ_BYTES)


def examples(path):
    """Batches of float lists."""
    length, name = number("VALUES"), os.environ.get("FEATURE", "x")
    spec = {name: tf.io.FixedLenFeature([length], tf.float32)}
    batches = records(path).batch(1024 if length <= SHORT else 64)
    batches = batches.map(lambda batch: tf.io.parse_example(batch, spec)[name], num_parallel_calls=tf.data.AUTOTUNE)
    return batches.prefetch(tf.data.AUTOTUNE), (length,), np.float32


def images(path):
    """Batches of decoded images."""
    name = os.environ.get("FEATURE", "image/encoded")
    spec = {name: tf.io.FixedLenFeature([], tf.string)}
    first = tf.io.parse_single_example(next(iter(records(path))), spec)[name]
    decode = tf.io.decode_jpeg if first.numpy()[:2] == b"\xff\xd8" else tf.io.decode_png
    shape = tuple(decode(first, channels=3).shape)

    def decoded(record):
        return decode(tf.io.parse_single_example(record, spec)[name], channels=3)

    return records(path).map(decoded, num_parallel_calls=tf.data.AUTOTUNE).batch(32).prefetch(tf.data.AUTOTUNE), shape, np.uint8


def save(path):
    """Batches of the elements of a saved dataset."""
    dataset = tf.data.Dataset.load(path, compression=os.environ.get("COMPRESSION") or None)
    spec = dataset.element_spec
    return dataset.batch(16).prefetch(tf.data.AUTOTUNE), tuple(spec.shape), spec.dtype.as_numpy_dtype


def write(batches, out, count, shape, dtype):
    """One round; the seconds of it."""
    start = time.perf_counter()
    array = np.lib.format.open_memmap(out, mode="w+", dtype=dtype, shape=(count, *shape))
    at = 0
    for batch in batches:
        array[at : at + len(batch)] = batch.numpy()
        at += len(batch)
    array.flush()
    with open(out, "r+b") as f:
        os.fsync(f.fileno())
    seconds = time.perf_counter() - start
    assert at == count, f"{at} records, expected {count}"
    return seconds


def serve(kind, path, out):
    count = number("RECORDS")
    batches, shape, dtype = {"examples": examples, "images": images, "save": save}[kind](path)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(write(batches, out, count, shape, dtype), flush=True)


def example(**features):
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def make_floats(path, count, length, compression="", rounded=False):
    """Examples with lists of random floats. TensorFlow makes one; the others have other values behind the same bytes."""
    rng = np.random.default_rng(SEED)
    values = np.arange(length, dtype="<f4")
    whole = example(x=tf.train.Feature(float_list=tf.train.FloatList(value=values)))
    assert whole.endswith(values.tobytes())
    head = whole[: -values.nbytes]
    step = max(1, (64 << 20) // values.nbytes)
    with tf.io.TFRecordWriter(path, tf.io.TFRecordOptions(compression_type=compression)) as writer:
        for start in range(0, count, step):
            rows = rng.standard_normal((min(step, count - start), length), dtype=np.float32)
            rows = np.round(rows * 3, 1).astype("<f4") if rounded else rows.astype("<f4")
            for row in rows:
                writer.write(head + row.tobytes())


def picture(rng):
    """Gradients, noise at several scales, discs with edges and a little grain: roughly like a photograph."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    across, down, light = rng.uniform(-1, 1, (3, 3)).astype(np.float32)
    image = 120 + 70 * (across * (x / WIDTH)[..., None] + down * (y / HEIGHT)[..., None]) + 20 * light
    for cells, strength in [(8, 50), (24, 30), (64, 16), (160, 8)]:
        noise = rng.standard_normal((max(2, HEIGHT * cells // WIDTH), cells, 3)).astype(np.float32) * strength
        image += tf.image.resize(noise, (HEIGHT, WIDTH), method="bicubic").numpy()
    for _ in range(12):
        column, row, radius = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT), rng.uniform(10, 90)
        image[(x - column) ** 2 + (y - row) ** 2 < radius**2] += rng.uniform(-60, 60, 3).astype(np.float32)
    image += rng.standard_normal((HEIGHT, WIDTH, 1)).astype(np.float32) * 1.5
    return np.clip(image, 0, 255).astype(np.uint8)


def make_images(path, count, encode):
    rng = np.random.default_rng(SEED)
    encoded = [encode(picture(rng)).numpy() for _ in range(PICTURES)]
    sides = {"image/height": HEIGHT, "image/width": WIDTH}
    sides = {name: tf.train.Feature(int64_list=tf.train.Int64List(value=[side])) for name, side in sides.items()}
    made = [example(**{"image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))}, **sides) for image in encoded]
    with tf.io.TFRecordWriter(path) as writer:
        for i in rng.integers(0, PICTURES, count):
            writer.write(made[i])


def make_save(path, count):
    base = tf.random.stateless_normal((8, *SAVED_SHAPE), seed=(SEED, 1))
    dataset = tf.data.Dataset.range(count).map(lambda i: base[i % 8] + tf.cast(i, tf.float32), num_parallel_calls=tf.data.AUTOTUNE)
    dataset.prefetch(4).save(path)


def make(kind, folder):
    """Writes an input, unless it is there."""
    path = os.path.join(folder, NAMES.get(kind, kind + ".tfrecord"))
    count = number("RECORDS")
    if not os.path.exists(path):
        os.makedirs(folder, exist_ok=True)
        # Under another name until it is complete.
        part = path + ".part"
        shutil.rmtree(part, ignore_errors=True)
        {
            "floats64": lambda: make_floats(part, count, 64),
            "floats10k": lambda: make_floats(part, count, 10_000),
            "gzip": lambda: make_floats(part, count, 64, "GZIP", rounded=True),
            "jpeg": lambda: make_images(part, count, lambda image: tf.io.encode_jpeg(image, quality=90)),
            "png": lambda: make_images(part, count, tf.io.encode_png),
            "save4g": lambda: make_save(part, count),
        }[kind]()
        os.rename(part, path)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(*sys.argv[2:])
    else:
        serve(*sys.argv[1:])
