"""Times the Bi-LSTM of a FIN against its peers: PyTorch, stock Keras (graph and XLA), ONNX Runtime.

A peer runs four FINs one after the other; ours run as one graph. 12 channels, windows of 600 samples, 3 x 32 units.
Every comparison is written to the JSON file as it is done: the whole takes about an hour on two cores.

    python benchmarks/fin.py [--json FILE] [--batches 8,16,32,64] [--pairs 7] [--quick]
"""

import importlib.util
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from common import Report, parser  # noqa: E402

from tfkfin.nets.bilstm.layer import BiLSTM, engine  # noqa: E402

CHANNELS, LENGTH, UNITS, LAYERS, FINS = 12, 600, 32, 3, 4


def network() -> keras.Model:
    """One FIN's recurrent part and its linear output: (N, 600, 1) -> (N, 1)."""
    inputs = keras.Input((LENGTH, 1))
    return keras.Model(inputs, keras.layers.Dense(1)(BiLSTM(UNITS, LAYERS)(inputs)))


def keras_forward(nets, name: str, jit: bool = False):
    """Forward of all networks in one graph on the named engine."""
    @tf.function(jit_compile=jit)
    def run(x):
        with engine(name):
            return [net(x, training=False) for net in nets]

    return lambda x: [y.numpy() for y in run(tf.constant(x))]


def keras_step(nets, name: str):
    """Forward, squared error, gradients and an Adam step of all networks in one graph."""
    adams = [keras.optimizers.Adam(1e-4) for _ in nets]
    for net, adam in zip(nets, adams):
        adam.build(net.trainable_variables)

    @tf.function
    def run(x):
        losses = []
        with engine(name):
            for net, adam in zip(nets, adams):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean(net(x, training=True) ** 2)
                gradients = tape.gradient(loss, [v.value for v in net.trainable_variables])
                adam.apply_gradients(zip(gradients, net.trainable_variables))
                losses.append(loss)
        return losses

    return lambda x: [y.numpy() for y in run(tf.constant(x))]


def in_turn(functions):
    """Peers' networks one after the other."""
    return lambda x: [f(x) for f in functions]


def torch_pair():
    """(forward, training step) of one network in PyTorch."""
    import torch

    torch.set_flush_denormal(True)  # or vanishing gradients make its backward several times slower

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(1, UNITS, LAYERS, batch_first=True, bidirectional=True)
            self.linear = torch.nn.Linear(2 * UNITS, 1)

        def forward(self, x):
            _, (h, _) = self.lstm(x)
            return self.linear(torch.cat([h[-2], h[-1]], 1))

    net = Net()
    adam = torch.optim.Adam(net.parameters(), 1e-4)

    def forward(x):
        with torch.no_grad():
            return net(torch.from_numpy(x)).numpy()

    def step(x):
        adam.zero_grad()
        loss = (net(torch.from_numpy(x)) ** 2).mean()
        loss.backward()
        adam.step()
        return loss.item()

    return forward, step


def onnx_forward():
    """The recurrent part of one network in ONNX Runtime, random weights of the same sizes."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rng, nodes, weights, name = np.random.default_rng(0), [], [], "x"
    for i in range(LAYERS):
        size = 2 * UNITS if i else 1
        for key, shape in (("w", (2, 4 * UNITS, size)), ("r", (2, 4 * UNITS, UNITS)), ("b", (2, 8 * UNITS))):
            value = rng.uniform(-0.17, 0.17, shape).astype("float32")
            weights.append(numpy_helper.from_array(value, f"{key}{i}"))
        nodes.append(helper.make_node("LSTM", [name, f"w{i}", f"r{i}", f"b{i}"], [f"y{i}", f"h{i}"],
                                      direction="bidirectional", hidden_size=UNITS))
        nodes.append(helper.make_node("Transpose", [f"y{i}"], [f"t{i}"], perm=[0, 2, 1, 3]))
        nodes.append(helper.make_node("Reshape", [f"t{i}", "flat"], [f"z{i}"]))
        name = f"z{i}"
    weights.append(numpy_helper.from_array(np.array([0, 0, 2 * UNITS], np.int64), "flat"))
    nodes = nodes[:-2]  # the top layer is read by its final states
    graph = helper.make_graph(
        nodes, "fin", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [LENGTH, "n", 1])],
        [helper.make_tensor_value_info(f"h{LAYERS - 1}", TensorProto.FLOAT, [2, "n", UNITS])], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "fin.onnx")
        onnx.save(proto, path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": np.ascontiguousarray(x.transpose(1, 0, 2))})


def peers(fins: int, nets) -> dict:
    """{(peer, kind): function of x} for `fins` networks."""
    found = {("Keras graph", "forward"): in_turn([keras_forward([n], "keras") for n in nets]),
             ("Keras graph", "training"): in_turn([keras_step([n], "keras") for n in nets]),
             ("Keras XLA", "forward"): in_turn([keras_forward([n], "keras", jit=True) for n in nets])}
    if importlib.util.find_spec("torch"):
        pairs = [torch_pair() for _ in range(fins)]
        found["PyTorch", "forward"] = in_turn([p[0] for p in pairs])
        found["PyTorch", "training"] = in_turn([p[1] for p in pairs])
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        found["ONNX Runtime", "forward"] = in_turn([onnx_forward() for _ in range(fins)])
    return found


def run(report: Report, batches, counts, pairs: int) -> None:
    for fins in counts:
        nets = [network() for _ in range(fins)]
        ours = {"forward": keras_forward(nets, "native"), "training": keras_step(nets, "native")}
        for (peer, kind), function in peers(fins, nets).items():
            for batch in batches:
                x = np.random.default_rng(0).normal(size=(batch * CHANNELS, LENGTH, 1)).astype("float32")
                report.compare(f"{kind}, {fins} FIN{'s' if fins > 1 else ''}, batch {batch}, against {peer}",
                               lambda f=ours[kind]: f(x), lambda f=function: f(x), "windows/s", repeats=pairs,
                               work=(batch, batch))


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__.splitlines()[0])
    p.add_argument("--batches", metavar="N,N", help="windows a batch (default: 8,16,32,64; with --quick 8)")
    p.add_argument("--pairs", type=int, metavar="N", help="pairs a comparison (default: 7; with --quick 3)")
    args = p.parse_args(argv)
    batches = [int(b) for b in (args.batches or ("8" if args.quick else "8,16,32,64")).split(",")]
    report = Report("Bi-LSTM FIN, 12 channels x 600 samples", ("tensorflow", "keras", "numpy", "torch", "onnxruntime"),
                    args.json)
    run(report, batches, (1,) if args.quick else (1, FINS),
        args.pairs or (3 if args.quick else 7))
    report.show()


if __name__ == "__main__":
    main()
