"""Writes HDF5 files of every kind that h5py can be made to write, and what it reads from them.

    python make.py [FOLDER] [SCALE]

The files here were written with a scale of 1. A larger one makes more links, chunks and levels of trees.
"""

import ctypes
import glob
import hashlib
import json
import os
import sys

import h5py
import numpy as np
from h5py import h5d, h5f, h5p, h5s, h5t

FOLDER = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
SCALE = int(sys.argv[2]) if len(sys.argv) > 2 else 1
# The library that h5py has loaded, for what h5py does not offer.
LIBRARY = ctypes.CDLL(glob.glob(os.path.join(os.path.dirname(h5py.__file__), "..", "h5py.libs", "libhdf5-*"))[0])
TYPES = ["<f4", ">f4", "<f8", ">f8", "<f2", ">f2", "|i1", "|u1", "<i2", ">i2", "<i4", ">i4", "<i8", ">i8", "<u2", ">u4", "<u8"]


def call(name, *args):
    args = [ctypes.c_int64(arg.id) if hasattr(arg, "id") else arg for arg in args]
    assert getattr(LIBRARY, name)(*args) >= 0, name


def values(shape, dtype="<i4", start=0):
    """Numbers that are all different, as far as they fit."""
    count = int(np.prod(shape))
    return (np.arange(start, start + count) % 251).astype(dtype).reshape(shape)


def create(file, name, shape, maxshape=None, chunks=None, dtype="<i4", fill=None, early=False, plain_edges=False, gzip=None):
    """A dataset with properties that h5py itself has no names for."""
    plist = h5p.create(h5p.DATASET_CREATE)
    if chunks:
        plist.set_chunk(chunks)
    if early:
        plist.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    if gzip:
        plist.set_shuffle()
        plist.set_deflate(gzip)
    if fill is not None:
        plist.set_fill_value(np.array(fill, dtype))
    if plain_edges:
        call("H5Pset_chunk_opts", plist, ctypes.c_uint(2))
    limits = tuple(h5s.UNLIMITED if limit is None else limit for limit in maxshape) if maxshape else None
    space = h5s.create_simple(shape, limits)
    return h5py.Dataset(h5d.create(file.id, name.encode(), h5t.py_create(np.dtype(dtype), logical=True), space, plist))


def types(file):
    for dtype in TYPES:
        file.create_dataset(f"plain/{dtype[1:]}{'be' if dtype[0] == '>' else ''}", data=values((3, 5), dtype))
    file["scalar"] = np.float64(1.5)
    file["empty"] = np.zeros((0, 3), "<f4")
    file.create_dataset("null", data=h5py.Empty("f"))
    file["bool"] = np.array([True, False, True])
    file["enum"] = np.array([1, 7, 1], h5py.enum_dtype({"ONE": 1, "SEVEN": 7}, "<i2"))
    file["complex64"] = values(6, "<c8") * (1 + 2j)
    file["complex128"] = (values(6, "<c16") * (1 - 2j)).astype(">c16")
    file["record"] = np.array([(1, 2.5, b"ab"), (3, -1, b"c")], [("x", "<i4"), ("y", ">f8"), ("z", "S3")])
    file["fixed text"] = np.array([b"abc", b"", b"abcdef"], "S6")
    file["opaque"] = values((4, 5), "u1").view("V5").reshape(4)
    file.create_dataset("array", (3,), np.dtype(("<i2", (2, 2))))[...] = values((3, 2, 2), "<i2")
    file["text"] = np.array(["one", "", "zwölf", "x" * 5000], h5py.string_dtype())
    file["date"] = np.array(["2020-01-02", "1999-12-31"], "<M8[D]").astype(h5py.opaque_dtype("<M8[D]"))
    bfloat16 = h5t.IEEE_F32LE.copy()
    bfloat16.set_fields(15, 7, 8, 0, 7)
    bfloat16.set_size(2)
    bfloat16.set_ebias(127)
    dataset = h5d.create(file.id, b"bfloat16", bfloat16, h5s.create_simple((4,)))
    dataset.write(h5s.ALL, h5s.ALL, np.array([0x3F80, 0x4000, 0xBF80, 0x7F80], "<u2"), bfloat16)
    bits = h5d.create(file.id, b"bits", h5t.STD_B16BE, h5s.create_simple((3,)))
    bits.write(h5s.ALL, h5s.ALL, np.array([1, 0x102, 0xFFFF], ">u2"), h5t.STD_B16BE)
    odd = h5t.STD_I32LE.copy()
    odd.set_precision(24)
    h5d.create(file.id, b"24 bits", odd, h5s.create_simple((3,)))


def named(file):
    """A named datatype that datasets and attributes share, and datasets with many attributes."""
    file["type"] = np.dtype("<i2")
    file.create_dataset("of named", (7,), file["type"])[...] = values(7, "<i2")
    keras = file.create_dataset("keras", data=values((6, 2), "u1").view("V2").reshape(6))
    for number in range(20):
        keras.attrs[f"a{number}"] = np.arange(number + 1)
    keras.attrs["dtype"] = "bfloat16"
    keras.attrs.create("of named", np.arange(3), dtype=file["type"])
    keras.attrs["long"] = "y" * 6000
    float8 = file.create_dataset("float8", data=values((6, 1), "u1").view("V1").reshape(6))
    float8.attrs["dtype"] = np.bytes_(b"float8_e4m3fn")
    for number in range(3):
        group = file.create_group(f"layers/dense_{number}/vars")
        group.attrs["name"] = f"layer {number}"
        group["0"] = values(3, "<f4", number)


def layouts(file):
    file.create_dataset("one run", data=values((4, 6)))
    file.create_dataset("never written", (4, 6), "<i4", fillvalue=7)
    compact = h5p.create(h5p.DATASET_CREATE)
    compact.set_layout(h5d.COMPACT)
    h5py.Dataset(h5d.create(file.id, b"compact", h5t.STD_I32BE, h5s.create_simple((5,)), compact))[...] = values(5)
    never = h5p.create(h5p.DATASET_CREATE)
    never.set_fill_value(np.array(9, "<i4"))
    never.set_fill_time(h5d.FILL_TIME_NEVER)
    never.set_chunk((3,))
    # What was never written would be whatever was in memory.
    h5py.Dataset(h5d.create(file.id, b"fill time never", h5t.STD_I32LE, h5s.create_simple((9,)), never))[...] = values(9)
    for name, options in {
        "gzip": {"compression": "gzip"},
        "lzf": {"compression": "lzf"},
        "shuffle": {"shuffle": True},
        "fletcher32": {"fletcher32": True},
        "all": {"compression": "gzip", "shuffle": True, "fletcher32": True},
        "none": {},
    }.items():
        file.create_dataset(f"chunks/{name}", data=values((13, 17), ">f8"), chunks=(4, 5), **options)
        file.create_dataset(f"one chunk/{name}", data=values((13, 17), "<i2"), chunks=(13, 17), **options)
    file.create_dataset("text", data=np.array([f"text {n}" for n in range(20)], h5py.string_dtype()), chunks=(3,), compression="gzip")
    partly = file.create_dataset("partly", (20, 20), "<i4", chunks=(3, 7), fillvalue=-5, compression="gzip")
    partly[4:9, 3:12] = values((5, 9))
    array = file.create_dataset("array", (6,), np.dtype(("<i2", (2, 3))), chunks=(4,))
    array[...] = values((6, 2, 3), "<i2")
    file.create_dataset("refused/scaleoffset", data=values(9), chunks=(3,), scaleoffset=0)


def indexes(file):
    """Every index of chunks: which it is depends on the limits, on when chunks are made, and on the version."""
    many = 3000 * SCALE
    create(file, "implicit", (5, 7), (5, 7), (2, 3), early=True)[...] = values((5, 7))
    create(file, "implicit, may grow", (5, 7), (9, 20), (2, 3), early=True)[...] = values((5, 7))
    for gzip in [None, 4]:
        name = "gzip " if gzip else ""
        create(file, f"{name}single", (5, 7), (5, 7), (5, 7), gzip=gzip)[...] = values((5, 7))
        create(file, f"{name}single, larger", (5, 7), (8, 8), (8, 8), gzip=gzip)[...] = values((5, 7))
        create(file, f"{name}fixed", (5, 7), (5, 7), (2, 3), gzip=gzip)[...] = values((5, 7))
        create(file, f"{name}fixed, may grow", (5, 7), (10, 30), (2, 3), gzip=gzip)[...] = values((5, 7))
        paged = create(file, f"{name}fixed, pages", (many,), (many,), (1,), "u1", 3, gzip=gzip)
        paged[1030:1040] = values(10)
        paged[many - 2 :] = values(2)
        extensible = create(file, f"{name}extensible", (60 * SCALE,), (None,), (2,), gzip=gzip)
        extensible[...] = values(60 * SCALE)
        create(file, f"{name}extensible, second axis", (5, 40, 3), (7, None, 3), (2, 3, 2), gzip=gzip)[...] = values((5, 40, 3))
        sparse = create(file, f"{name}extensible, pages", (300_000,), (None,), (1,), "u1", 3, gzip=gzip)
        for at in [0, 3, 4, 19, 20, 100, 700, 1300, 5000, 30_000, 140_000, 299_999]:
            sparse[at] = at % 200 + 10
        create(file, f"{name}tree", (20, 15 * SCALE), (None, None), (2, 3), gzip=gzip)[...] = values((20, 15 * SCALE))
        create(file, f"{name}tree, three axes", (5, 4, 9), (None, 4, None), (2, 3, 2), "<i2", 8, gzip=gzip)[2:4] = values((2, 4, 9))
        shrunk = create(file, f"{name}shrunk", (40, 9), (None, 9), (3, 4), gzip=gzip)
        shrunk[...] = values((40, 9))
        shrunk.resize((17, 9))
        shrunk.resize((23, 9))
        wide = create(file, f"{name}grown", (3, 3), (None, None), (2, 2), fill=5, gzip=gzip)
        wide[...] = values((3, 3))
        wide.resize((7, 9))
        wide[6, 8] = 77
    for name, limits in {"fixed": (7, 8), "extensible": (None, 8), "tree": (None, None), "single": None}.items():
        chunks = (3, 5) if limits else (9, 9)
        create(file, f"plain edges {name}", (7, 8), limits or (9, 9), chunks, gzip=4, plain_edges=True)[...] = values((7, 8))


def links(file):
    file["a"] = values(4)
    file["soft"] = h5py.SoftLink("/a")
    file["dangling"] = h5py.SoftLink("/nothing")
    file["external"] = h5py.ExternalLink("other.h5", "/x")
    file["hard"] = file["a"]
    group = file
    for level in range(50):
        group = group.create_group(f"g{level}")
    group["deep"] = values(3)
    group["up"] = h5py.SoftLink("../a")
    file["to group"] = h5py.SoftLink("/g0/g1")
    many = file.create_group("many")
    for number in range(300 * SCALE):
        if number % 3:
            many[f"link {number}"] = h5py.SoftLink(f"/g0/nothing {number}" if number % 7 == 1 else "/a")
        else:
            many[f"link {number}"] = file["a"]
    many["long"] = h5py.SoftLink("/." * 3000 + "/a")
    many["own"] = values(2)
    ordered = file.create_group("ordered", track_order=True)
    for number in [3, 1, 2, *range(10, 30)]:
        ordered[f"{number}"] = values(2, start=number)


def empty(file):
    pass


def with_header(path, change, fill):
    """A file with a superblock of its own kind."""
    plist, access = h5p.create(h5p.FILE_CREATE), h5p.create(h5p.FILE_ACCESS)
    change(plist, access)
    with h5py.File(h5f.create(path.encode(), h5f.ACC_TRUNC, plist, access)) as file:
        fill(file)


def sizes(width):
    return lambda plist, access: plist.set_sizes(width, width)


def shared(plist, access):
    """Messages that objects have in common are stored once."""
    access.set_libver_bounds(h5f.LIBVER_V18, h5f.LIBVER_LATEST)
    call("H5Pset_shared_mesg_nindexes", plist, ctypes.c_uint(2))
    call("H5Pset_shared_mesg_index", plist, ctypes.c_uint(0), ctypes.c_uint(0x01 | 0x02), ctypes.c_uint(8))
    call("H5Pset_shared_mesg_index", plist, ctypes.c_uint(1), ctypes.c_uint(0x04 | 0x08 | 0x10), ctypes.c_uint(8))


def small_nodes(plist, access):
    """Trees of version 1 have more levels."""
    call("H5Pset_sym_k", plist, ctypes.c_uint(2), ctypes.c_uint(2))
    call("H5Pset_istore_k", plist, ctypes.c_uint(2))


def alike(file):
    for number in range(12):
        dataset = file.create_dataset(f"d{number}", data=values((6, 4), "<i4", number), chunks=(2, 3), compression="gzip", fillvalue=7)
        dataset.attrs["dtype"] = "int32"
    file.create_dataset("partly", (6, 4), "<i4", chunks=(2, 3), compression="gzip", fillvalue=7)[2:4] = 1


def packed_links(file):
    """A group whose heap of links went through a filter."""
    plist = h5p.create(h5p.GROUP_CREATE)
    call("H5Pset_deflate", plist, ctypes.c_uint(6))
    h5py.h5g.create(file.id, b"packed", gcpl=plist)
    for number in range(200):
        file[f"packed/{number}"] = h5py.SoftLink("/a")
    file["a"] = values(3)
    file["packed/own"] = values(4)


def write():
    kinds = {"types": types, "named": named, "layouts": layouts, "indexes": indexes, "links": links}
    for libver in ["earliest", "v108", "v110", "latest"]:
        for kind, fill in kinds.items():
            # Those in between hardly differ: they are made with a larger scale.
            if SCALE == 1 and libver in {"v108", "v110"}:
                continue
            with h5py.File(f"{FOLDER}/{kind}-{libver}.h5", "w", libver=(libver, "latest")) as file:
                fill(file)
    for libver, size in [("earliest", 512), ("latest", 1024)]:
        with h5py.File(f"{FOLDER}/userblock-{libver}.h5", "w", libver=libver, userblock_size=size) as file:
            layouts(file)
    for width in [2, 4]:
        with_header(f"{FOLDER}/sizes-{width}.h5", sizes(width), named)
    with_header(f"{FOLDER}/shared.h5", shared, alike)
    with_header(f"{FOLDER}/packed-links.h5", lambda plist, access: access.set_libver_bounds(h5f.LIBVER_LATEST, h5f.LIBVER_LATEST), packed_links)
    with_header(f"{FOLDER}/small-nodes.h5", small_nodes, indexes if SCALE > 1 else links)
    with h5py.File(f"{FOLDER}/swmr.h5", "w", libver="latest") as file:
        dataset = file.create_dataset("rows", (0, 3), "<f4", maxshape=(None, 3), chunks=(4, 3))
        file.swmr_mode = True
        for number in range(9):
            dataset.resize((number + 1, 3))
            dataset[number] = values(3, "<f4", number)
            dataset.flush()
    with h5py.File(f"{FOLDER}/empty.h5", "w") as file:
        empty(file)


def expected(path):
    """Every dataset by its path, with the SHA-256 of its little-endian bytes, or of its texts as in the README."""
    found = []
    with h5py.File(path) as file:

        def visit(name, item):
            if not isinstance(item, h5py.Dataset):
                return
            entry = {"name": f"/{name}", "shape": list(item.shape or ())}
            kind = item.id.get_type()
            if h5py.check_string_dtype(item.dtype) and h5py.check_string_dtype(item.dtype).length is None:
                texts = [bytes(text) for text in np.asarray(item[()]).reshape(-1)]
                raw = b"".join(len(text).to_bytes(8, "little") + text for text in texts)
                entry["sha256_strings"] = hashlib.sha256(raw).hexdigest()
            elif item.shape is None or "24 bits" in name or "refused" in name:
                entry["refused"] = True
            else:
                # As they are stored, without a conversion of the library's.
                raw = np.empty((*item.shape, kind.get_size()), "u1")
                if raw.size:
                    item.id.read(h5s.ALL, h5s.ALL, raw, kind)
                if kind.get_class() in (h5t.INTEGER, h5t.FLOAT, h5t.BITFIELD) and kind.get_order() == h5t.ORDER_BE:
                    raw = raw[..., ::-1]
                if item.dtype == ">c16":
                    raw = raw.reshape(*item.shape, 2, 8)[..., ::-1]
                entry["sha256"] = hashlib.sha256(raw.tobytes()).hexdigest()
            found.append(entry)

        file.visititems(visit)
    return found


if __name__ == "__main__":
    os.makedirs(FOLDER, exist_ok=True)
    write()
    names = sorted(os.path.basename(path) for path in glob.glob(f"{FOLDER}/*.h5"))
    with open(f"{FOLDER}/expected.json", "w") as out:
        json.dump({name: expected(f"{FOLDER}/{name}") for name in names}, out, indent=0)
        out.write("\n")
