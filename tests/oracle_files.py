"""h5py, Keras, NumPy and the safetensors package as judges, on files that are new at every run.

    python tests/oracle_files.py MMCONVERT [SEED]

Every dataset of HDF5 files of random shapes, chunks, filters and types, every array of archives, every variable of a Keras model and
every tensor of a safetensors file has to be what its own library reads, whole and in rows.
"""

import io
import json
import os
import sys
import tempfile
import unittest
import zipfile

import h5py
import ml_dtypes
import numpy as np
from oracle_support import RNG, SEED, below, one_of, run  # before TensorFlow, which is to be quiet

import keras  # isort: skip
import safetensors.numpy  # isort: skip

TYPES = ["<f4", ">f4", "<f8", ">f8", "<f2", ">f2", "|i1", "|u1", "<i2", ">i2", "<i4", "<i8", ">u4", "<u8", "|b1", "<c8", "<c16", "|S5"]


def numbers(dtype, shape):
    """Random values of a dtype that NumPy has."""
    dtype = np.dtype(dtype)
    if dtype == bool:
        return RNG.integers(0, 2, shape).astype(bool)
    if dtype.kind == "S":
        return RNG.integers(97, 123, (*shape, dtype.itemsize), dtype=np.uint8).view(dtype).reshape(shape)
    # Few different bytes, so that filters find something to do.
    return RNG.integers(0, 7, (*shape, dtype.itemsize), dtype=np.uint8).view(dtype).reshape(shape)


def exported(folder, source, *args):
    """The arrays that mmconvert makes of a source, by name."""
    out = os.path.join(folder, "out")
    run("convert", source, *args, "-o", f"{out}/", "-f", "-q")
    with open(os.path.join(out, "manifest.json")) as file:
        return {entry["name"]: np.load(os.path.join(out, entry["file"])) for entry in json.load(file)["tensors"]}


def same(found, expected):
    little = expected.dtype.newbyteorder("<")
    return found.shape == expected.shape and found.tobytes() == expected.astype(little).tobytes()


class Files(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def test_datasets_of_hdf5(self):
        for round in range(12):
            path = self.path(f"{round}.h5")
            with h5py.File(path, "w", libver=one_of(["earliest", "v108", "latest"]), userblock_size=one_of([0, 0, 512, 2048])) as file:
                for i in range(below(12, 1)):
                    shape = tuple(below(40) for _ in range(below(4)))
                    dtype = one_of(TYPES)
                    options = {}
                    if shape and 0 not in shape and below(3):
                        options["chunks"] = tuple(below(length, 1) for length in shape)
                        options["compression"] = one_of([None, "gzip", "lzf"])
                        options["shuffle"] = bool(below(1))
                        options["fletcher32"] = bool(below(1))
                        if dtype not in ("|S5", "|b1", "<c8", "<c16"):
                            options["fillvalue"] = one_of([0, 3])
                    group = file.require_group(one_of(["a", "a/b", "c"]))
                    dataset = group.create_dataset(f"d{i}", shape, dtype, **options)
                    if below(4):
                        rows = below(shape[0]) if shape else 0
                        part, size = (slice(rows), (rows, *shape[1:])) if shape else ((), ())
                        dataset[part] = numbers(dtype, size)
            expected = {}
            with h5py.File(path) as file:

                def visit(name, item):
                    if isinstance(item, h5py.Dataset):
                        expected[f"/{name}"] = np.asarray(item[()], item.dtype)

                file.visititems(visit)
            found = exported(self.folder.name, path)
            self.assertEqual(set(found), set(expected))
            for name, array in expected.items():
                self.assertTrue(same(found[name], np.asarray(array)), (round, name))
            sliced = [name for name, array in expected.items() if np.ndim(array) and len(array) > 2]
            if sliced:
                for name, array in exported(self.folder.name, path, *sliced, "--rows", "1:-1").items():
                    self.assertTrue(same(array, expected[name][1:-1]), (round, name))

    def test_arrays_of_archives(self):
        for round, save in enumerate([np.savez, np.savez_compressed] * 3):
            arrays = {f"a{i}": numbers(one_of(TYPES), tuple(below(30) for _ in range(below(4)))) for i in range(below(9, 1))}
            arrays = {name: np.asfortranarray(a) if below(1) and a.dtype.kind != "S" else a for name, a in arrays.items()}
            path = self.path(f"{round}.npz")
            save(path, **arrays)
            found = exported(self.folder.name, path)
            self.assertEqual(set(found), set(arrays))
            for name, array in arrays.items():
                self.assertTrue(same(found[name], array), (round, name, array.dtype))

    def test_text_dates_and_links_of_hdf5(self):
        path = self.path("kinds.h5")
        texts = ["".join(chr(below(0x24F, 1)) for _ in range(below(9))) + "x" for _ in range(below(40, 2))]
        dates = np.array(RNG.integers(-(2**60), 2**60, below(30, 1)), "<M8[s]")
        numbers = np.arange(below(20, 1), dtype="<i4")
        with h5py.File(path, "w", libver=one_of(["earliest", "latest"])) as file:
            for name, options in [("plain", {}), ("gzip", {"compression": "gzip"}), ("both", {"compression": "gzip", "shuffle": True})]:
                chunks = {"chunks": (below(len(texts), 1),)} if options else {}
                file.create_dataset(f"text/{name}", data=texts, dtype=h5py.string_dtype(), **chunks, **options)
            file.create_dataset("date", data=dates.astype(h5py.opaque_dtype(dates.dtype)))
            file["group/inner/x"] = numbers
            file["soft"] = h5py.SoftLink("/group")
            file["softer"] = h5py.SoftLink("soft/inner")
            file["hard"] = file["group/inner"]
            expected = file["date"][()]
        found = exported(self.folder.name, path)
        for name in ["plain", "gzip", "both"]:
            self.assertEqual([text.decode() for text in found[f"/text/{name}"]], texts)
        self.assertEqual(found["/date"].dtype, expected.dtype)
        self.assertEqual(found["/date"].tobytes(), expected.tobytes())
        # As h5py does, and without the first slash too.
        for name in ["group/inner/x", "/soft/inner/x", "soft/inner/x", "softer/x", "hard/x", "group/*", "*/inner/?"]:
            out = self.path("linked.npy")
            run("convert", path, name, "-fo", out)
            self.assertEqual(np.load(out).tobytes(), numbers.tobytes(), name)

    def test_members_that_cannot_be_read_do_not_hide_others(self):
        arrays = {name: numbers("<f8", (below(9, 1), below(9, 1))) for name in ["a", "b"]}
        path = self.path("mixed.npz")
        with zipfile.ZipFile(path, "w") as archive:
            for name, array in arrays.items():
                content = io.BytesIO()
                np.save(content, array)
                archive.writestr(f"{name}.npy", content.getvalue(), zipfile.ZIP_BZIP2 if name == "b" else zipfile.ZIP_DEFLATED)
        out = self.path("a.npy")
        run("convert", path, "a", "-o", out)
        self.assertEqual(np.load(out).tobytes(), arrays["a"].tobytes())
        said = run("convert", path, "-o", self.path("out") + "/", expect=6)
        self.assertIn("skipped b", said)
        # A header that says less than is there: the checksum of the archive tells that it was changed.
        stored = self.path("stored.npz")
        np.savez(stored, x=np.zeros((9, 4)), y=arrays["a"])
        with open(stored, "rb") as file:
            content = file.read()
        with open(stored, "wb") as file:
            file.write(content.replace(b"(9, 4)", b"(8, 4)", 1))
        for more in [[], ["--skip-unsupported"]]:
            self.assertIn("CRC-32", run("convert", stored, "-o", self.path("no") + "/", *more, expect=3))

    def test_members_of_like_names(self):
        # As `numpy.load` calls them where that is one name, else each by its own.
        arrays = {"x.npy": numbers("<f4", (3,)), "x": numbers("<i8", (4,)), "y.npy": numbers("<u2", (5,))}
        path = self.path("like.npz")
        with zipfile.ZipFile(path, "w") as archive:
            for name, array in arrays.items():
                content = io.BytesIO()
                np.save(content, array)
                archive.writestr(name, content.getvalue())
        found = exported(self.folder.name, path)
        self.assertEqual(set(found), {"x.npy", "x", "y"})
        for name, array in arrays.items():
            self.assertTrue(same(found["y" if name == "y.npy" else name], array), name)

    def test_joined_arrays(self):
        tail = tuple(below(9, 1) for _ in range(below(2)))
        parts = [numbers("<f4", (below(50), *tail)) for _ in range(12)]
        for i, part in enumerate(parts):
            np.save(self.path(f"part-{i}.npy"), part)
        run("convert", self.path("part-*.npy"), "--concat", "-o", self.path("all.npy"), "-q")
        self.assertTrue(same(np.load(self.path("all.npy")), np.concatenate(parts)))

    def test_variables_of_keras(self):
        for policy in ["float32", "bfloat16", "float16"]:
            model = keras.Sequential([keras.Input((below(9, 1),)), keras.layers.Dense(below(9, 1), dtype=policy), keras.layers.Dense(3, dtype=policy)])
            variables = [np.asarray(keras.ops.convert_to_numpy(v)).tobytes() for layer in model.layers for v in layer.weights]
            sharded = lambda path: model.save_weights(path, max_shard_size=4e-7)  # noqa: E731
            for name, save in [("m.keras", model.save), ("m.weights.h5", model.save_weights), ("m.weights.json", sharded)]:
                save(self.path(name))
                found = exported(self.folder.name, self.path(name), "*/vars/*")
                stored = [array.tobytes() for path, array in sorted(found.items()) if path.startswith("/layers/")]
                self.assertEqual(sorted(stored), sorted(variables), (policy, name))

    def test_safetensors_both_ways(self):
        # The package for NumPy writes float8 and does not read it.
        types = [t for t in TYPES if not t.startswith(">") and t not in ("|S5", "<c16")] + [ml_dtypes.bfloat16]
        arrays = {f"layer/{i}": numbers(one_of(types), tuple(below(20) for _ in range(below(4)))) for i in range(20)}
        safetensors.numpy.save_file(arrays, self.path("a.safetensors"))
        found = exported(self.folder.name, self.path("a.safetensors"))
        run("convert", self.path("a.safetensors"), "-o", self.path("b.safetensors"), "-q")
        again = safetensors.numpy.load_file(self.path("b.safetensors"))
        self.assertEqual(set(found), set(arrays))
        self.assertEqual(set(again), set(arrays))
        for name, array in arrays.items():
            self.assertTrue(same(found[name], array), (name, array.dtype))
            self.assertEqual((again[name].dtype, again[name].shape, again[name].tobytes()), (array.dtype, array.shape, array.tobytes()), name)


if __name__ == "__main__":
    print(f"seed {SEED}")
    unittest.main(argv=sys.argv[:1], verbosity=2)
