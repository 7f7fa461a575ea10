"""torch's objects: what is written is what torch gives as NumPy, or the same bits where NumPy lacks the type."""

import sys

import mmconvert as mm
import numpy as np
import pytest
from conftest import framework, left_behind, same_bytes

# Optimizers load triton where they find it. It and TensorFlow each bring an LLVM, and two of them in one process abort.
sys.modules.setdefault("triton", None)
torch = framework("torch")
# What torch says of types that are tried here.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse", "ignore:torch.quantize", "ignore:ComplexHalf", "ignore:The PyTorch API of nested")

NAMES = "bool uint8 int8 int16 int32 int64 uint16 uint32 uint64 float16 float32 float64 complex64 complex128".split()
BITS = {"bfloat16": np.int16, "float8_e5m2": np.uint8, "float8_e4m3fn": np.uint8, "float8_e4m3fnuz": np.uint8, "float8_e5m2fnuz": np.uint8}
SHAPES = [(), (5,), (4, 3, 2), (0, 3), (3, 0)]


def tensor(name, shape):
    count = int(np.prod(shape))
    if name.startswith(("uint16", "uint32", "uint64")):
        return torch.from_numpy(np.arange(count, dtype=name).reshape(shape))
    return (torch.arange(count) % 7).reshape(shape).to(getattr(torch, name))


def own(value):
    value = value.detach().resolve_conj().resolve_neg()
    name = str(value.dtype).removeprefix("torch.")
    if name not in BITS:
        return value.numpy()
    ml_dtypes = framework("ml_dtypes")
    return value.contiguous().view(torch.int16 if name == "bfloat16" else torch.uint8).numpy().view(getattr(ml_dtypes, name))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", [*NAMES, *BITS])
def test_tensors(name, shape, tmp_path):
    value = tensor(name, shape)
    made = mm.convert(value, tmp_path / "x.npy")
    assert same_bytes(made, own(value)) and made.report.dtype == name
    if len(shape) == 3:
        for number, view in enumerate([value.transpose(0, 1), value.permute(2, 0, 1), value[::2, :, 1:], value[1:2].expand(5, 3, 2)]):
            for options, expected in [({}, own(view)), ({"rows": (1, 3)}, own(view)[1:3]), ({"layout": "F"}, own(view))]:
                assert same_bytes(mm.convert(view, tmp_path / f"{number}.npy", overwrite=True, **options), expected)


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.conj(),
        lambda t: t.conj().T,
        lambda t: t.conj().imag,
        lambda t: t.conj()[:0],
        lambda t: torch._neg_view(t.real),
        lambda t: t.requires_grad_() * 1,
        lambda t: torch.nn.Parameter(t),
        lambda t: torch.view_as_real(t),
    ],
    ids=["conj", "adjoint", "imag", "none", "neg", "grad", "parameter", "real"],
)
def test_lazy_views(view, tmp_path):
    value = view(torch.randn(700, 500, dtype=torch.complex64))
    for options, expected in [({}, own(value)), ({"rows": (3, 5)}, own(value)[3:5]), ({"memory": "16MiB", "layout": "F"}, own(value))]:
        assert same_bytes(mm.convert(value, tmp_path / "x.npy", overwrite=True, **options), expected)
    assert same_bytes(mm.convert([value, value], tmp_path / "list.npy"), np.stack([own(value)] * 2))


def test_sparse_tensors(tmp_path):
    value = torch.sparse_coo_tensor([[1, 0, 1], [2, 0, 2]], [3.0, 4.0, 5.0], (2, 3))
    done = mm.convert(value, tmp_path / "d")
    dense = np.zeros(tuple(done["dense_shape"]), "f4")
    dense[tuple(np.asarray(done["indices"]).T)] = done["values"]
    assert same_bytes(dense, value.to_dense().numpy()) and done["indices"].shape == (2, 2)
    hybrid = torch.ones(2, 3, 4).to_sparse(2)
    done = mm.convert({"h": hybrid}, tmp_path / "h")
    assert same_bytes(done["h/values"], hybrid.values().numpy()) and same_bytes(done["h/indices"], hybrid.indices().numpy().T)
    with pytest.raises(mm.RequestError, match="to_dense"):
        mm.convert(value, tmp_path / "cut", rows=(0, 1))


def test_what_has_no_array_says_why(tmp_path):
    cases = {
        "to_dense": torch.eye(2).to_sparse_csr(),
        "dequantize": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8),
        "meta": torch.empty(3, device="meta"),
        "nested": torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]),
        "complex32": torch.zeros(2, dtype=torch.complex32),
        "float8_e8m0fnu": torch.zeros(2, dtype=torch.uint8).view(torch.float8_e8m0fnu),
    }
    for text, obj in cases.items():
        with pytest.raises(mm.UnsupportedError, match=text):
            mm.convert(obj, tmp_path / "x.npy")
        with pytest.warns(mm.SkippedWarning, match=f"odd: .*{text}"):
            mm.convert({"odd": obj, "fine": torch.ones(2)}, f"{tmp_path}/d/", overwrite=True)
    assert left_behind(tmp_path) == ["d", "d/fine.npy", "d/manifest.json"]


def test_modules_and_states(tmp_path):
    half = torch.nn.Linear(8, 2, dtype=torch.bfloat16)
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten(), half)
    state = module.state_dict()
    for number, obj in enumerate([module, state]):
        done = mm.convert(obj, tmp_path / str(number))
        assert set(done) == set(state) and all(same_bytes(done[name], own(value)) for name, value in state.items())
    nested = mm.convert({"net": module, "head": module[3]}, tmp_path / "nested")
    assert set(nested) == {f"net/{name}" for name in state} | {"head/weight", "head/bias"}


def test_states_of_optimizers(tmp_path):
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(module.parameters())
    with pytest.warns(mm.SkippedWarning):
        done = mm.convert(optimizer.state_dict(), tmp_path / "before")
    assert "state" in done.skipped and done["param_groups/0/lr"][()] == 1e-3
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    with pytest.warns(mm.SkippedWarning, match="param_groups/0"):
        done = mm.convert({"model": module.state_dict(), "optimizer": state, "epoch": 3}, tmp_path / "after")
    for number, values in state["state"].items():
        for name, value in values.items():
            assert same_bytes(done[f"optimizer/state/{number}/{name}"], own(value))
    group = state["param_groups"][0]
    assert set(done.skipped) == {f"optimizer/param_groups/0/{name}" for name, value in group.items() if value is None}
    assert done["optimizer/param_groups/0/betas"].tolist() == list(group["betas"]) and done["epoch"][()] == 3
    assert done["optimizer/param_groups/0/params"].tolist() == group["params"]


def test_loaders_and_their_data_sets(tmp_path):
    x, y = torch.randn(25, 4), torch.arange(25)
    pairs = torch.utils.data.TensorDataset(x, y)

    class Records(torch.utils.data.Dataset):
        def __len__(self):
            return 25

        def __getitem__(self, number):
            return {"x": x[number], "y": int(y[number]), "name": f"r{number}"}

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(x.to(torch.bfloat16))

    loader = torch.utils.data.DataLoader
    for number, obj in enumerate([pairs, loader(pairs, batch_size=4), loader(pairs, batch_size=None)]):
        done = mm.convert(obj, tmp_path / str(number))
        assert same_bytes(done["0"], x.numpy()) and same_bytes(done["1"], y.numpy())
    dropped = mm.convert(loader(pairs, batch_size=4, drop_last=True), tmp_path / "dropped")
    assert same_bytes(dropped["1"], y.numpy()[:24])
    for number, obj in enumerate([Records(), loader(Records(), batch_size=6)]):
        done = mm.convert(obj, tmp_path / f"r{number}")
        assert same_bytes(done["x"], x.numpy()) and same_bytes(done["y"], y.numpy())
        assert done["name"].tolist() == [f"r{n}".encode() for n in range(25)]
    expected = own(x.to(torch.bfloat16))
    assert same_bytes(mm.convert(Stream(), tmp_path / "s.npy"), expected)
    assert same_bytes(mm.convert(loader(Stream(), batch_size=4), tmp_path / "l.npy"), expected)
    assert same_bytes(mm.convert(list(x), tmp_path / "list.npy"), x.numpy())


def test_a_device_tensor_is_fetched_slice_by_slice(tmp_path, monkeypatch):
    """The device is emulated: a tensor whose elements can be had only by `cpu()`."""
    from mmconvert import objects

    value = torch.randn(1500, 4096).to(torch.bfloat16)
    fetched = []

    class OnDevice:
        def __init__(self, inner):
            self.inner, self.dtype, self.shape, self.ndim = inner, inner.dtype, inner.shape, inner.ndim
            self.device = type("device", (), {"type": "cuda"})()

        def numel(self):
            return self.inner.numel()

        def resolve_conj(self):
            return self

        resolve_neg = resolve_conj

        def view(self, dtype):
            return OnDevice(self.inner.view(dtype))

        def cpu(self):
            fetched.append(self.inner.numel() * self.inner.element_size())
            return self.inner

        def __getitem__(self, key):
            return OnDevice(self.inner[key])

    stream = objects._torch_tensor(torch, OnDevice(value), 1 << 20)
    assert same_bytes(mm.convert(stream, tmp_path / "x.npy", memory="16MiB"), own(value))
    assert max(fetched) <= 1 << 20 and sum(fetched) == value.numel() * 2
