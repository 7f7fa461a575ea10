"""What a user would do in Python, and the inputs for it.

    python peers.py make DIR MIB     writes gzip.h5, contiguous.h5, stored.npz, deflated.npz and array.npy
    python peers.py h5 FILE OUT      reads a dataset in slices into open_memmap; prints seconds
    python peers.py npz FILE OUT     np.load and np.save; prints seconds
    python peers.py view FILE        maps an array and sums the row in its middle; prints seconds
"""

import os
import sys
import time
import zipfile

import numpy as np

COLUMNS = 1024


def blocks(rows):
    """Blocks of numbers that compress about as well as rounded measurements do."""
    base = np.round(np.random.default_rng(1).standard_normal((4096, COLUMNS)) * 8) / 8
    for i in range(rows // 4096):
        yield i * 4096, np.roll((base + i % 7).astype("<f4"), i % COLUMNS, axis=1)


def make(folder, mib):
    import h5py

    rows = (mib << 20) // (4 * COLUMNS)
    with h5py.File(f"{folder}/gzip.h5", "w") as packed, h5py.File(f"{folder}/contiguous.h5", "w") as plain:
        packed = packed.create_dataset("x", (rows, COLUMNS), "<f4", chunks=(256, COLUMNS), compression="gzip", compression_opts=4)
        plain = plain.create_dataset("x", (rows, COLUMNS), "<f4")
        for at, block in blocks(rows):
            packed[at : at + len(block)] = block
            plain[at : at + len(block)] = block
    for name, how in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(f"{folder}/{name}.npz", "w", how) as archive, archive.open("x.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": (rows // 2, COLUMNS)}
            np.lib.format.write_array_header_1_0(member, header)
            for _, block in blocks(rows // 2):
                member.write(block.tobytes())
    # The last one, under another name until it is complete: where it is there, all are.
    array = np.lib.format.open_memmap(f"{folder}/array.npy.part", "w+", "<f4", (rows, COLUMNS))
    for at, block in blocks(rows):
        array[at : at + len(block)] = block
    array.flush()
    os.rename(f"{folder}/array.npy.part", f"{folder}/array.npy")


def sync(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def h5(path, out):
    import h5py

    started = time.perf_counter()
    with h5py.File(path) as file:
        dataset = file["x"]
        array = np.lib.format.open_memmap(out, "w+", dataset.dtype, dataset.shape)
        step = max(1, (16 << 20) // (4 * COLUMNS))
        for at in range(0, len(dataset), step):
            array[at : at + step] = dataset[at : at + step]
        array.flush()
        del array
    sync(out)
    print(time.perf_counter() - started)


def npz(path, out):
    started = time.perf_counter()
    np.save(out, np.load(path)["x"])
    sync(out)
    print(time.perf_counter() - started)


def view(path):
    started = time.perf_counter()
    array = np.load(path, mmap_mode="r")
    array[len(array) // 2].sum()
    print(time.perf_counter() - started)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], int(sys.argv[3]))
    else:
        {"h5": h5, "npz": npz, "view": view}[sys.argv[1]](*sys.argv[2:])
