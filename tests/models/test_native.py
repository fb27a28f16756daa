"""Building, loading and sharing the compiled Bi-LSTM."""

import logging
import threading

import numpy as np
import pytest
import tensorflow as tf

from tfkfin.models.bilstm import native
from tfkfin.models.bilstm.buffers import Buffers
from tfkfin.models.bilstm.layer import BiLSTM, engine


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache folder and nothing loaded, before and after."""
    monkeypatch.setenv("TFKFIN_CACHE", str(tmp_path))
    native.reset()
    yield tmp_path
    native.reset()


def data(*shape, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype("float32")


def layer_for(shape, units=8, num_layers=2):
    layer = BiLSTM(units, num_layers)
    layer.build(shape)
    return layer


def gradients(layer, x, function):
    """Output, and gradients of a random projection of it wrt input and weights."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
        loss = tf.reduce_sum(y * data(*y.shape, seed=9))
    return [v.numpy() for v in (y, *tape.gradient(loss, [x, *[w.value for w in layer.weights]]))]


def assert_identical(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_a_compiler_auto_uses_keras(fresh, monkeypatch, caplog):
    monkeypatch.setattr(native, "compilers", lambda: [])
    layer = layer_for((2, 5, 1))
    with caplog.at_level(logging.INFO, logger="tfkfin"):
        assert layer(data(2, 5, 1)).shape == (2, 16)
        layer(data(2, 5, 1))
    assert sum("no C compiler" in r.message for r in caplog.records) == 1
    with engine("native"), pytest.raises(ValueError, match="`engine` must be .* no C compiler .* Received"):
        layer(data(2, 5, 1))


def test_failing_compiler_is_reported(fresh, monkeypatch):
    monkeypatch.setattr(native, "compilers", lambda: [["false"]])
    with pytest.raises(native.NativeUnavailable, match="compiler failed: false"):
        native.load()


@pytest.mark.kernel
def test_corrupted_library_is_rebuilt(fresh):
    path = native.library_path()
    assert path.parent == fresh
    path.write_bytes(b"not a library")
    path.with_suffix(".sha256").write_text("0" * 64)
    assert native.load().lanes >= 4
    assert path.stat().st_size > 10_000


@pytest.mark.kernel
def test_two_threads_at_once():
    layers_, x = [layer_for((70, 30, 1)), layer_for((3, 30, 1), 32)], [data(70, 30, 1), data(3, 30, 1)]
    alone = [gradients(m, v, m) for m, v in zip(layers_, x)]
    together = [[], []]

    def run(i):
        for _ in range(3):
            together[i].append(gradients(layers_[i], x[i], layers_[i]))

    threads = [threading.Thread(target=run, args=(i,)) for i in (0, 1)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i in (0, 1):
        for result in together[i]:
            assert_identical(result, alone[i])


@pytest.mark.kernel
def test_two_runs_are_identical():
    layer, x = layer_for((50, 20, 1), 32, 3), data(50, 20, 1)
    runs = [gradients(layer, x, lambda v, k=k: layer(v, training=k)) for k in (False, True, True)]
    for other in runs[1:]:
        assert_identical(runs[0][1:], other[1:])
    np.testing.assert_array_equal(layer(x), layer(x))


def test_buffers_are_reused_and_together_stay_below_their_limit():
    buffers = Buffers(limit=10_000)
    first = buffers.take(1000)
    buffers.give(first)
    assert buffers.take(900) is first  # fits, and is not twice as large
    others = [buffers.take(1000) for _ in range(3)]
    assert first.ctypes.data % 64 == others[0].ctypes.data % 64 == 0
    for buffer in (first, *others):
        buffers.give(buffer)
    assert 1 <= len(buffers._free) and sum(b.nbytes for b in buffers._free) <= 10_000
    assert buffers._taken == 0


@pytest.mark.kernel
def test_kept_states_are_bounded_and_optional():
    kernel = native.load()
    layer, x = layer_for((20, 15, 1)), data(20, 15, 1)
    expected = gradients(layer, x, layer)
    for _ in range(3):
        layer(x, training=True)  # no gradient ever asks for these
    with kernel.kept._lock:
        limit, kernel.kept._limit = kernel.kept._limit, 1
    try:
        assert_identical(gradients(layer, x, lambda v: layer(v, training=True))[1:], expected[1:])
    finally:
        kernel.kept._limit = limit
