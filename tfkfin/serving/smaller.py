"""Smaller ONNX files: large weights in float16, or the head's products and convolutions in int8.

Static quantisation in the QDQ form (Jacob et al., CVPR 2018), by ONNX Runtime; ranges are measured on real windows.
FINs are computed in float32 all the same: with their products in int8 too, one of two people lost 1.6 points.
"""

from pathlib import Path

import numpy as np

from tfkfin.base.console import InputError

LARGE = 256  # numbers in a weight: smaller ones are scales and biases, in volts some of them
HEAD = "head"  # the layer's name in a decoder's network
CALIBRATION = 256  # windows that ranges are measured on


def make(path: Path, precision: str, windows: np.ndarray | None = None) -> None:
    """Rewrites an ONNX file of windows `emg` (B, L, C) in another precision: float16 or int8.

    Args:
        windows: (N, L, C) volts, as the model will meet; int8 measures its ranges on them.

    Raises:
        InputError: onnx or onnxruntime is not installed.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError:
        raise InputError(f"--precision {precision} needs onnx and onnxruntime: pip install 'tfkfin[edge]'") from None
    if precision == "float16":
        path.write_bytes(_halved(onnx.load(path)).SerializeToString())
    elif precision == "int8":
        _quantised(path, np.asarray(windows, np.float32))


def _halved(model):
    """Weights are kept in float16 and computed with in float32: half the size, the same time."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.size >= LARGE:
            name = weight.name
            weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}__float16"))
            casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    return model


def _quantised(path: Path, windows: np.ndarray) -> None:
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Windows(quantization.CalibrationDataReader):
        def __init__(self):
            self.left = iter(np.array_split(windows, max(1, len(windows) // 16)))

        def get_next(self):
            part = next(self.left, None)
            return None if part is None else {"emg": part}

    plain = path.with_name("plain.onnx")
    quant_pre_process(path, plain, skip_symbolic_shape=True)
    kept = [node.name for node in onnx.load(plain).graph.node if f"/{HEAD}" not in node.name]
    quantization.quantize_static(
        plain, path, Windows(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
        op_types_to_quantize=["Conv", "MatMul", "Gemm"], nodes_to_exclude=kept,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8)
    plain.unlink()
    path.write_bytes(_halved(onnx.load(path)).SerializeToString())  # the FINs' weights
