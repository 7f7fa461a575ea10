"""jax arrays: what is written is what NumPy makes of them."""

import os
import subprocess
import sys

import mmconvert as mm
import numpy as np
import pytest
from conftest import framework, left_behind, same_bytes

jax = framework("jax")
jnp = jax.numpy

NAMES = "bool int8 uint8 int16 uint16 int32 uint32 float16 float32 complex64 bfloat16 float8_e5m2 float8_e4m3fn int4 uint4".split()


@pytest.mark.parametrize("shape", [(), (5,), (4, 3, 2), (0, 3), (3, 0)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_arrays(name, shape, tmp_path):
    array = (jnp.arange(int(np.prod(shape))) % 7).reshape(shape).astype(name)
    expected = np.asarray(array)
    assert same_bytes(mm.convert(array, tmp_path / "x.npy"), expected)
    if shape and shape[0]:
        assert same_bytes(mm.convert(array.T, tmp_path / "t.npy"), expected.T)
        assert same_bytes(mm.convert(array, tmp_path / "r.npy", rows=(1, 3)), expected[1:3])
        assert same_bytes(mm.convert(list(array), tmp_path / "l.npy"), expected)
        assert same_bytes(mm.convert({"a": [array, (array[0],)]}, tmp_path / "d")["a/1/0"], expected[0])


def test_what_has_no_array_says_why(tmp_path):
    traced = []
    jax.jit(lambda x: traced.append(x) or x)(jnp.ones(3))
    for obj, text in [(jax.random.key(0), "key_data"), (jax.random.split(jax.random.key(0), 3), "key_data"), (traced[0], "traced")]:
        with pytest.raises(mm.UnsupportedError, match=text):
            mm.convert(obj, tmp_path / "x.npy")
    assert left_behind(tmp_path) == []
    key = jax.random.key_data(jax.random.key(7))
    assert same_bytes(mm.convert(key, tmp_path / "x.npy"), np.asarray(key))


def test_arrays_over_several_devices():
    code = """
import os, tempfile
import jax, numpy as np, mmconvert as mm
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
assert len(jax.devices()) == 4
mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("a", "b"))
out = tempfile.mkdtemp()
array = np.random.default_rng(0).normal(size=(800, 1000)).astype("f4")
for n, spec in enumerate([P("a"), P("a", "b"), P(None, "b"), P()]):
    for dtype in ["float32", "bfloat16"]:
        sharded = jax.device_put(jax.numpy.asarray(array, dtype), NamedSharding(mesh, spec))
        made = mm.convert(sharded, f"{out}/{n}{dtype}.npy", memory="16MiB")
        assert made.dtype == np.asarray(sharded).dtype and made.tobytes() == np.asarray(sharded).tobytes()
        made = mm.convert(sharded, f"{out}/{n}{dtype}r.npy", rows=(-3, None))
        assert made.tobytes() == np.asarray(sharded)[-3:].tobytes()
"""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
