"""Signals, threads, forks, and processes that are started afresh."""

import concurrent.futures
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import mmconvert as mm
import numpy as np
import pytest
from conftest import left_behind, same_bytes

#: Converts something that takes seconds, interrupts that once it has begun, and prints how long after the signal it ended.
INTERRUPTED = """
import itertools, os, signal, sys, threading, time
import numpy as np
import mmconvert as mm
out, kind = sys.argv[1:]
sent = []
def interrupt():
    while not begun.is_set():
        time.sleep(0.01)
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)
begun = threading.Event()
threading.Thread(target=interrupt, daemon=True).start()
def progress(done, total):
    begun.set()
def rows():
    for number in itertools.count():
        yield np.full(1 << 20, number % 256, np.uint8)
try:
    if kind == "generator":
        mm.convert(rows(), out + "/x.npy", progress=progress, memory="64MiB")
    elif kind == "array":
        mm.convert(np.broadcast_to(np.zeros(1 << 20, np.uint8), (2 << 10, 1 << 20)), out + "/x.npy", progress=progress, memory="64MiB")
    elif kind == "source":
        with open(out + "/holes.bin", "wb") as file:
            file.truncate(1 << 28)
        # A cast leaves no holes.
        mm.convert(out + "/holes.bin", out + "/x.npy", raw="uint8", shape=(1 << 20,), dtype="float64", progress=progress, memory="64MiB")
except KeyboardInterrupt:
    late = time.monotonic() - sent[0]
    if os.path.exists(out + "/holes.bin"):
        os.unlink(out + "/holes.bin")
    print(late, os.listdir(out))
"""


@pytest.mark.parametrize("kind", ["generator", "array", "source"])
def test_ctrl_c_ends_it_and_leaves_nothing(kind, tmp_path):
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, tmp_path, kind], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.endswith("[]\n"), done


def test_eight_threads_read_one_source(checkpoint):
    source = mm.open(checkpoint)
    expected = {name: np.asarray(tensor) for name, tensor in source.items()}

    def read(number):
        return all(same_bytes(source[name][...], array) for name, array in expected.items() for _ in range(3))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(16)))


def test_eight_threads_convert_at_once(checkpoint, tmp_path):
    source = mm.open(checkpoint)
    expected = np.asarray(source["dnn/hiddenlayer_1/kernel"])

    def convert(number):
        return same_bytes(mm.convert(source, "dnn/hiddenlayer_1/kernel", tmp_path / f"{number}.npy"), expected)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(convert, range(32)))


def _read(tensor, queue):
    queue.put(np.asarray(tensor).tobytes())


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_other_processes_read_what_was_opened_here(method, checkpoint):
    kernel = mm.open(checkpoint)["dnn/hiddenlayer_1/kernel"]
    expected = kernel[...].tobytes()
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_read, args=(kernel, queue))
    process.start()
    assert queue.get(timeout=60) == expected
    process.join()
    assert process.exitcode == 0


def test_a_fork_during_a_conversion_is_safe(tmp_path):
    """The child reads and converts while threads of the parent do, and what it closes is not the parent's."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    code = """
import os, sys, threading
import numpy as np
import mmconvert as mm
out = sys.argv[1]
values = np.arange(32 << 20, dtype=np.uint8).reshape(-1, 1 << 20)
stop = threading.Event()
def work():
    number = 0
    while not stop.is_set():
        mm.convert(values, f"{out}/parent.npy", overwrite=True)
        number += 1
thread = threading.Thread(target=work)
thread.start()
writer = mm.ArrayWriter(out + "/writer.npy", "uint8", (None, 1 << 20))
writer.append(values[:3])
for number in range(10):
    child = os.fork()
    if child == 0:
        writer.discard()
        array = mm.convert(values[:2], f"{out}/child-{number}.npy")
        os._exit(0 if (array == values[:2]).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
thread.join()
writer.append(values[3:])
assert (writer.finish() == values).all() and (np.load(out + "/parent.npy") == values).all()
"""
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, tmp_path], check=True, timeout=120)
    assert left_behind(tmp_path) == sorted([*(f"child-{number}.npy" for number in range(10)), "parent.npy", "writer.npy"])


def test_signals_have_their_handlers(tmp_path):
    """A handler that does not raise does not end the work."""
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    try:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        values = np.ones((200, 1 << 20), np.uint8)
        array = mm.convert(values, tmp_path / "x.npy", dtype="float32")
        timer.join()
        time.sleep(0.01)
        assert seen and array.shape == values.shape and array[-1, -1] == 1
    finally:
        signal.signal(signal.SIGUSR1, before)
