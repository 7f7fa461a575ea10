"""What models make of inputs, batch by batch: the same as all at once."""

import mmconvert as mm
import numpy as np
import pytest
from conftest import framework, left_behind, same_bytes

X = np.random.default_rng(0).normal(size=(103, 4)).astype("f4")


def test_functions(tmp_path):
    sizes = []

    def double(x):
        sizes.append(len(x))
        return x * 2

    made = mm.predict(double, X, tmp_path / "x.npy", batch=25)
    assert same_bytes(made, X * 2) and sizes == [25, 25, 25, 25, 3] and made.report.shape == X.shape
    several = mm.predict(lambda x: {"sum": x.sum(1), "both": (x, [x > 0, x[:, 0]])}, X, tmp_path / "d", batch=10)
    assert set(several) == {"sum", "both/0", "both/1/0", "both/1/1"} and same_bytes(several["both/1/0"], X > 0)
    assert same_bytes(several["sum"], X.sum(1))
    words = mm.predict(lambda x: np.array([f"{row[0]:.1f}" for row in x]), X, tmp_path / "s.npy", batch=10)
    assert words.tolist() == [f"{row[0]:.1f}".encode() for row in X]
    named = mm.predict(lambda feeds: feeds["a"] + feeds["b"], {"a": X, "b": 2 * X}, tmp_path / "n.npy", batch=7)
    assert same_bytes(named, X + 2 * X)


def test_inputs(tmp_path):
    np.save(tmp_path / "in.npy", X)
    tensor = mm.open(tmp_path / "in.npy").select()[0]
    maps = [np.load(tmp_path / "in.npy", mmap_mode="r"), mm.load(tmp_path / "in.npy")]
    inputs = [X, X[::-1][::-1], *maps, tmp_path / "in.npy", str(tmp_path / "in.npy"), tensor, X.tolist()]
    for number, obj in enumerate(inputs):
        made = mm.predict(lambda x: np.float32(x) * 2, obj, tmp_path / f"{number}.npy", batch=50)
        assert same_bytes(made, X * 2)
    made = mm.predict(lambda feeds: feeds["a"] * feeds["b"], {"a": tmp_path / "in.npy", "b": tensor}, tmp_path / "both.npy")
    assert same_bytes(made, X * X)
    assert same_bytes(mm.predict(lambda x: x, X, tmp_path / "cast.npy", dtype="f2", memory="16MiB"), X.astype("f2"))
    assert same_bytes(mm.predict(lambda x: x, X[:1], tmp_path / "cast.npy", batch=1000, overwrite=True), X[:1])
    told = []
    mm.predict(lambda x: x, X, tmp_path / "p.npy", batch=10, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (X.nbytes, X.nbytes)


def broken(x):
    if x[0, 0] == X[50, 0]:
        raise RuntimeError("in the model")
    return x


@pytest.mark.parametrize(
    ("model", "inputs", "options", "error", "text"),
    [
        (lambda x: x[:-1], X, {}, mm.RequestError, r"shape \[9, 4\] for 10 rows"),
        (lambda x: {"y": x, "loss": x.sum()}, X, {}, mm.RequestError, r"'loss' has the shape \[\]"),
        (lambda x: x if len(x) == 10 else x[:1], X, {}, mm.RequestError, r"\[1, 4\] for 3 rows"),
        (lambda x: x, {"a": X, "b": X[1:]}, {}, mm.RequestError, "'a': 103, 'b': 102"),
        (lambda x: x, {}, {}, mm.RequestError, "no inputs"),
        (lambda x: x, X[:0], {}, mm.RequestError, "no rows"),
        (lambda x: x, "x.csv", {}, mm.RequestError, "mmconvert.open"),
        (lambda x: x, "none.npy", {}, FileNotFoundError, "none.npy"),
        (lambda x: x, iter(X), {}, TypeError, "input is an array"),
        (lambda x: x, np.float32(3), {}, TypeError, "len"),
        (lambda x: x, X, {"batch": 0}, ValueError, "batch"),
        (lambda x: x, X, {"strict": True}, mm.RequestError, "strict"),
        (lambda x: x, X * 1000, {"dtype": "i1", "strict": True}, mm.LossyError, "int8"),
        (lambda x: x[:, : 1 + len(x) % 3], X, {}, mm.RequestError, "row 100 has the shape"),
        (3, X, {}, TypeError, "no model"),
        (broken, X, {}, RuntimeError, "in the model"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_errors_leave_nothing(model, inputs, options, error, text, tmp_path):
    with pytest.raises(error, match=text):
        mm.predict(model, inputs, tmp_path / "x.npy", **{"batch": 10, **options})
    assert left_behind(tmp_path) == []


def test_keras(tmp_path):
    framework("tensorflow")
    keras = framework("keras")
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    joined = keras.layers.Concatenate()([keras.layers.Dropout(0.5)(keras.layers.Dense(3)(a)), b])
    y, z = keras.layers.Dense(2, name="y")(joined), keras.layers.Dense(1, name="z")(joined)
    feeds = {"a": X, "b": X[:, :2].copy()}
    simple = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, "relu"), keras.layers.BatchNormalization()])
    np.save(tmp_path / "in.npy", X)
    made = mm.predict(simple, tmp_path / "in.npy", tmp_path / "y.npy", batch=16)
    assert np.allclose(made, simple.predict(X, verbose=0), atol=1e-6) and made.dtype == "f4"
    for number, outputs in enumerate([[y, z], {"first": y, "second": z}]):
        model = keras.Model([a, b], outputs)
        done = mm.predict(model, feeds, tmp_path / str(number), batch=16)
        expected = model.predict(feeds, verbose=0)
        expected = expected if isinstance(expected, dict) else dict(zip("01", expected))
        assert set(done) == set(expected) and all(np.allclose(done[name], array, atol=1e-6) for name, array in expected.items())


def test_tensorflow(tmp_path):
    tf = framework("tensorflow")

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, "x")])
        def one(self, x):
            return {"y": x * 2, "half": tf.cast(x, tf.bfloat16), "word": tf.strings.as_string(x[:, 0] > 0)}

        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, "x"), tf.TensorSpec((None,), tf.int64, "n")])
        def two(self, x, n):
            return {"y": x * tf.cast(n, tf.float32)[:, None]}

    model = Model()
    tf.saved_model.save(model, str(tmp_path / "saved"), signatures={"one": model.one, "two": model.two})
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    done = mm.predict(loaded.signatures["one"], X, tmp_path / "one", batch=16)
    assert same_bytes(done["y"], X * 2) and same_bytes(done["half"], tf.cast(X, tf.bfloat16).numpy())
    assert done["word"].tolist() == [str(value > 0).lower().encode() for value in X[:, 0]]
    two = mm.predict(loaded.signatures["two"], {"x": X, "n": np.arange(103)}, tmp_path / "two", batch=16)
    assert same_bytes(two["y"] if isinstance(two, mm.Arrays) else two, X * np.arange(103, dtype="f4")[:, None])
    assert same_bytes(mm.predict(tf.function(lambda x: x + 1), X, tmp_path / "f.npy"), X + 1)
    assert same_bytes(mm.predict(lambda x: x, tf.constant(X), tmp_path / "t.npy"), X)
    with pytest.raises(mm.RequestError, match=r"\['n', 'x'\]|\['x', 'n'\]"):
        mm.predict(loaded.signatures["two"], X, tmp_path / "none")
    with pytest.raises(TypeError, match="signatures, .*one"):
        mm.predict(loaded, X, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_torch(tmp_path):
    torch = framework("torch")
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5), torch.nn.Linear(3, 2))
    model[2].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    made = mm.predict(model, X, tmp_path / "y.npy", batch=16)
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        assert np.allclose(made, model.eval()(torch.from_numpy(X)).numpy(), atol=1e-6)

    class Several(torch.nn.Module):
        def forward(self, a, b):
            return {"sum": a + b, "half": a.to(torch.bfloat16), "pair": (a, b[:, 0] > 0)}

    done = mm.predict(Several(), {"a": X, "b": torch.from_numpy(X)}, tmp_path / "d", batch=16)
    assert same_bytes(done["sum"], X + X) and same_bytes(done["pair/1"], X[:, 0] > 0)
    expected = torch.from_numpy(X).to(torch.bfloat16)
    assert np.asarray(done["half"]).tobytes() == expected.view(torch.int16).numpy().tobytes()
    half = mm.predict(torch.nn.Identity(), expected, tmp_path / "h.npy")
    assert same_bytes(half, done["half"])
    failing = torch.nn.Sequential(torch.nn.Linear(5, 1))
    with pytest.raises(RuntimeError, match="shapes"):
        mm.predict(failing, X, tmp_path / "none.npy")
    assert failing.training and not (tmp_path / "none.npy").exists()


def test_jax(tmp_path):
    jax = framework("jax")
    made = mm.predict(jax.jit(lambda x: {"y": x * 2}), X, tmp_path / "d", batch=16)
    assert same_bytes(made["y"] if isinstance(made, mm.Arrays) else made, X * 2)
