"""Speed and memory of the Python package, beside what people do without it.

    python benches/python/objects.py [DIRECTORY]

Writes into DIRECTORY (default: the current one), several times SIZE=4 GiB. Every line is a ratio against a way that was measured in the
same run; what is compared alternates, ROUNDS=3 times, and medians are shown. Memory is what the process takes beyond what it had before,
at most (VmHWM).
"""

import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

SIZE = float(os.environ.get("SIZE", 4))
ROUNDS = int(os.environ.get("ROUNDS", 3))
BUDGET = os.environ.get("BUDGET", "256MiB")
MIB = 1 << 20


def peak_beyond(work):
    """Runs it; bytes of resident memory beyond those at the start, at most."""
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    return seconds, status("VmHWM") - before


def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))


def synced(path):
    """As an output of ours is: on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def remove(*paths):
    for path in paths:
        if os.path.exists(path):
            os.unlink(path)
    os.sync()


def compare(title, ways, paths):
    """Alternates between ways; the first is ours."""
    seconds = {name: [] for name in ways}
    peaks = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            remove(*paths)
            took, peak = peak_beyond(way)
            seconds[name].append(took)
            peaks[name].append(peak)
    remove(*paths)
    ours = statistics.median(next(iter(seconds.values())))
    for name in ways:
        median = statistics.median(seconds[name])
        print(f"{title:34}  {name:34}  {median:7.2f} s  {median / ours:5.2f} x  {max(peaks[name]) / MIB:7.0f} MiB beyond", flush=True)


def objects(directory):
    import mmconvert as mm
    import numpy as np
    import tensorflow as tf

    rows = int(SIZE * 1024)
    ours, theirs = f"{directory}/ours.npy", f"{directory}/theirs.npy"

    def saved(array):
        np.save(theirs, array)
        synced(theirs)

    def looped(blocks, shape, dtype):
        out = np.lib.format.open_memmap(theirs, "w+", dtype, shape)
        at = 0
        for block in blocks:
            out[at : at + len(block)] = block
            at += len(block)
        out.flush()

    tensor = tf.random.uniform((rows, 512, 512), seed=0)
    variable = None
    for title in ("EagerTensor", "Variable"):
        if title == "Variable":
            variable, tensor = tf.Variable(tensor), None
        held = variable if tensor is None else tensor
        ways = {
            f"mmconvert, {BUDGET}": lambda held=held: mm.convert(held, ours, memory=BUDGET),
            "np.save(t.numpy())": lambda held=held: saved(held.numpy()),
            "open_memmap, slice by slice": lambda held=held: looped((held[at : at + 8].numpy() for at in range(0, rows, 8)), held.shape, "f4"),
        }
        compare(f"{title} of {SIZE:g} GiB", ways, (ours, theirs))
    del held, tensor, variable, ways
    gc.collect()

    count = int(SIZE * 2 * 1024**3) // (128 * 128 * 3)
    frames = np.random.default_rng(0).integers(0, 256, (64, 128, 128, 3), np.uint8)

    def decode(image):
        return tf.ensure_shape(tf.io.decode_jpeg(image, channels=3), (128, 128, 3))

    def generator():
        for number in range(count):
            yield frames[number % 64]

    ways = {
        f"mmconvert, {BUDGET}": lambda: mm.convert(generator(), ours, shape=(count, 128, 128, 3), memory=BUDGET),
        "open_memmap, row by row": lambda: looped((frame[np.newaxis] for frame in generator()), (count, 128, 128, 3), "u1"),
    }
    compare(f"generator of {SIZE * 2:g} GiB", ways, (ours, theirs))

    in_memory = tf.data.Dataset.from_tensor_slices(frames)
    encoded = tf.data.Dataset.from_tensor_slices([tf.io.encode_jpeg(frame).numpy() for frame in frames])
    decoded = encoded.repeat(count // 64 + 1).take(count // 4).map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    for title, rows, dataset in [
        (f"tf.data of {SIZE * 2:g} GiB in memory", count, in_memory.repeat(count // 64 + 1).take(count)),
        (f"tf.data of {SIZE / 2:g} GiB of JPEG", count // 4, decoded),
    ]:

        def only_iterated(dataset=dataset):
            for _ in dataset.batch(64).prefetch(2):
                pass

        def written(dataset=dataset, rows=rows):
            looped((batch.numpy() for batch in dataset.batch(64).prefetch(2)), (rows, 128, 128, 3), "u1")

        ways = {
            f"mmconvert, {BUDGET}": lambda dataset=dataset: mm.convert(dataset, ours, memory=BUDGET),
            "the iterator alone, batch(64)": only_iterated,
            "open_memmap, batch by batch": written,
        }
        compare(title, ways, (ours, theirs))


def reading(directory):
    import mmconvert as mm
    import numpy as np

    path = f"{directory}/table.npy"
    with mm.ArrayWriter(path, "float32", (None, 1 << 18)) as writer:
        for number in range(512):
            writer.append(np.full(1 << 18, number, np.float32))
    source = mm.open(path)
    tensor, mapped = source.values()[0], np.load(path, mmap_mode="r")
    name = tensor.name
    np.asarray(mapped).max()

    def best(work, times=20):
        took = []
        for _ in range(times):
            started = time.perf_counter()
            work()
            took.append(time.perf_counter() - started)
        return statistics.median(took)

    copies = best(lambda: np.array(mapped[100:164]))
    print(f"rows of 64 MiB: {best(lambda: source[name][100:164]) * 1e3:.2f} ms, {best(lambda: source[name][100:164]) / copies:.2f} x a copy of a memmap ({copies * 1e3:.2f} ms)")
    print(f"a row of 1 MiB: {best(lambda: tensor[7], 200) * 1e6:.0f} us, a copy of a memmap {best(lambda: np.array(mapped[7]), 200) * 1e6:.0f} us")
    print(f"source[name]: {best(lambda: [source[name] for _ in range(1000)]) * 1e3:.2f} us")
    remove(path)
    code = "import numpy, time; s = time.perf_counter(); import mmconvert; print(time.perf_counter() - s)"
    imports = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) for _ in range(7)]
    print(f"import after NumPy: {statistics.median(imports) * 1e3:.1f} ms")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else ".") as scratch:
        reading(scratch)
        objects(scratch)
