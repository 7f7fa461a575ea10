"""What a user would write instead, in Python.

    python peers.py write WAY SHARD OUT ROWS COLUMNS     prints seconds, user seconds, system seconds and context switches
    python peers.py check WAY SHARD OUT ROWS COLUMNS     fails if an element differs

The tensor is float32 [ROWS, COLUMNS] and lies at the start of the shard. Every way maps the shard, as only someone can who has read the
index, and syncs what it wrote before the clock stops. Imports are not timed. Chunks are slices of 16 MiB, uncompressed.
"""

import os
import resource
import sys
import time

verb, way, shard, out, rows, columns = sys.argv[1:5] + [int(number) for number in sys.argv[5:7]]
import numpy as np

SLICE_ROWS = 65536
shape, chunks = (rows, columns), (min(SLICE_ROWS, rows), columns)

if way == "h5py":
    import h5py
elif way == "safetensors":
    from safetensors import safe_open
    from safetensors.numpy import save_file
elif way == "dask":
    import dask.array
elif way == "zarr":
    import zarr
elif way == "tensorstore":
    import tensorstore


def source():
    return np.memmap(shard, "<f4", "r", shape=shape)


def slices():
    return [slice(start, min(start + SLICE_ROWS, rows)) for start in range(0, rows, SLICE_ROWS)]


def sync(path):
    """The file, or everything below the directory."""
    if os.path.isdir(path):
        for name in os.listdir(path):
            sync(os.path.join(path, name))
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


class NpSave:
    def write(self):
        with open(out, "wb") as file:  # np.save would add a suffix to a name
            np.save(file, source())

    def read(self):
        return np.load(out, mmap_mode="r")


class H5py:
    def write(self):
        array = source()
        with h5py.File(out, "w") as file:
            dataset = file.create_dataset("t", shape, "<f4")
            for part in slices():
                dataset[part] = array[part]

    def read(self):
        return h5py.File(out, "r")["t"]


class Safetensors:
    def write(self):
        save_file({"t": source()}, out)

    def read(self):
        return safe_open(out, "numpy").get_slice("t")


class Dask:
    def write(self):
        dask.array.to_npy_stack(out, dask.array.from_array(source(), chunks=chunks))

    def read(self):
        # Its names are numbers. dask itself would read the tensor as many small tasks.
        names = sorted((name for name in os.listdir(out) if name.endswith(".npy")), key=lambda name: int(name[:-4]))
        parts = [np.load(os.path.join(out, name), mmap_mode="r") for name in names]
        return Parts(parts)


class Parts:
    def __init__(self, parts):
        self.parts = parts
        self.shape = (sum(len(part) for part in parts), *parts[0].shape[1:])

    def __getitem__(self, part):
        return self.parts[part.start // SLICE_ROWS]


class Zarr:
    def write(self):
        array = source()
        stored = zarr.create_array(out, shape=shape, chunks=chunks, dtype="float32", compressors=None)
        for part in slices():
            stored[part] = array[part]

    def read(self):
        return zarr.open_array(out, mode="r")


class Tensorstore:
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": out},
        "metadata": {"shape": shape, "chunks": chunks, "dtype": "<f4", "compressor": None},
    }

    def write(self):
        array = source()
        stored = tensorstore.open(self.spec, create=True, delete_existing=True).result()
        under_way = []
        for part in slices():
            # A few at a time: all of them at once would be held in memory.
            if len(under_way) == 4:
                under_way.pop(0).result()
            under_way.append(stored[part].write(array[part]))
        for future in under_way:
            future.result()

    def read(self):
        stored = tensorstore.open(self.spec, open=True).result()
        return Stored(stored)


class Stored:
    def __init__(self, stored):
        self.stored = stored
        self.shape = stored.shape

    def __getitem__(self, part):
        return self.stored[part].read().result()


def usage():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return np.array([time.perf_counter(), used.ru_utime, used.ru_stime, used.ru_nvcsw + used.ru_nivcsw])


ways = {"np-save": NpSave, "h5py": H5py, "safetensors": Safetensors, "dask": Dask, "zarr": Zarr, "tensorstore": Tensorstore}
peer = ways[way]()
if verb == "write":
    before = usage()
    peer.write()
    sync(out)
    print(*(usage() - before))
else:
    expected, array = source(), peer.read()
    shape_of = array.get_shape() if way == "safetensors" else array.shape
    assert tuple(shape_of) == shape, f"{way}: shape {shape_of}"
    for part in slices():
        # Bytes, so that not-a-numbers are compared too.
        assert np.asarray(array[part]).tobytes() == expected[part].tobytes(), f"{way}: rows {part.start} to {part.stop} differ"
