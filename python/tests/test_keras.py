"""Keras models: all weights by their paths."""

import mmconvert as mm
import numpy as np
import pytest
from conftest import framework, left_behind, same_bytes

framework("tensorflow")
keras = framework("keras")
layers = keras.layers


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.rest = layers.Dense(3), [layers.Dense(2, name="inner"), layers.BatchNormalization()]

    def call(self, x):
        x = self.first(x)
        for layer in self.rest:
            x = layer(x)
        return x


def functional():
    inputs = keras.Input((4,))
    nested = keras.Sequential([layers.Dense(3), layers.Dense(2)], name="nested")
    return keras.Model(inputs, [nested(inputs), layers.Dense(1, dtype="bfloat16", name="half")(inputs)])


def subclassed():
    model = Subclassed()
    model(np.ones((1, 4), "f4"))
    return model


MODELS = {
    "sequential": lambda: keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(2, 3), layers.BatchNormalization(), layers.Flatten()]),
    "functional": functional,
    "subclassed": subclassed,
    "layer": lambda: (lambda layer: (layer.build((None, 3)), layer)[1])(layers.Dense(2)),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_all_weights_are_written(make, tmp_path):
    model = make()
    done = mm.convert(model, tmp_path / "d")
    assert len(done) == len(model.weights) > 0
    for weight in model.weights:
        assert same_bytes(done[weight.path], np.asarray(weight.value)), weight.path
    cast = mm.convert({"model": model}, tmp_path / "cast", dtype="float64")
    for weight in model.weights:
        assert same_bytes(cast[f"model/{weight.path}"], np.asarray(weight.value).astype("f8"))


def test_weights_of_the_same_path_are_numbered(tmp_path):
    class Twice(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = layers.Dense(1, name="same"), layers.Dense(1, name="same")

        def call(self, x):
            return self.b(self.a(x))

    model = Twice()
    model(np.ones((1, 3), "f4"))
    done = mm.convert(model, tmp_path / "d")
    assert len(done) == 4 and sorted(array.shape for array in done.values()) == sorted(tuple(weight.shape) for weight in model.weights)


def test_optimizers_and_variables(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    model.compile("adam", "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
    optimizer = model.optimizer
    done = mm.convert(optimizer, tmp_path / "o")
    assert len(done) == len(optimizer.variables) > 3
    for variable in optimizer.variables:
        assert same_bytes(done[variable.path], np.asarray(variable.value))
    variable = keras.Variable(np.arange(6, dtype="f4").reshape(2, 3))
    assert same_bytes(mm.convert(variable, tmp_path / "v.npy"), variable.numpy())
    both = mm.convert({"kernel": model.weights[0], "list": model.get_weights()}, tmp_path / "b")
    assert same_bytes(both["kernel"], both["list/0"]) and set(both) == {"kernel", "list/0", "list/1"}


def test_what_has_no_weights_says_so(tmp_path):
    with pytest.raises(mm.RequestError, match="built"):
        mm.convert(keras.Sequential([layers.Dense(2)]), tmp_path / "d")
    with pytest.raises(mm.UnsupportedError, match="not known yet"):
        mm.convert(keras.Input((3,)), tmp_path / "x.npy")
    assert left_behind(tmp_path) == []
