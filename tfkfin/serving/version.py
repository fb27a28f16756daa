"""All files of a version folder: SavedModel, ONNX or LiteRT, the Keras model, warm-up requests and the card.

A server answers the warm-up requests before it reports a version as ready, so that no client waits for the first one.
Their file is a TFRecord of `tensorflow.serving.PredictionLog` messages. It needs three fields of three messages, which
are encoded here, so that exporting needs no tensorflow-serving-api. A test reads them with the official classes.
Reference: https://www.tensorflow.org/tfx/serving/saved_model_warmup

ONNX (for onnxruntime) and LiteRT (formerly TensorFlow Lite, for small machines) need no TensorFlow where they run; the
extra `edge` brings their converters. Smaller ONNX files keep large weights in float16, or compute the head's products
and convolutions in int8 (static quantisation in the QDQ form: Jacob et al., CVPR 2018), whose ranges are measured on
real windows. FINs are computed in float32 all the same: with their products in int8 too, one of two people lost 1.6
points of accuracy.
"""

import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf

from tfkfin.base.answers import working
from tfkfin.base.console import quiet_start
from tfkfin.base.errors import InputError
from tfkfin.base.extras import required
from tfkfin.decoder.decoder import FILE, BaseDecoder
from tfkfin.nets import fins
from tfkfin.nets.bilstm.layer import engine
from tfkfin.serving import signatures
from tfkfin.serving.engines import noise
from tfkfin.store import card as cards
from tfkfin.store import folders

WARMUP = Path("assets.extra", "tf_serving_warmup_requests")
CALIBRATION = 256  # windows that the ranges of int8 are measured on
OPSET = 17
LARGE = 256  # numbers in a weight that is stored in float16: smaller ones are scales and biases, some of them in volts
HEAD = "head"  # name of the head's layer in a decoder's network


def write_decoder(folder: Path, decoder: BaseDecoder, about: dict, windows: np.ndarray | None = None) -> None:
    """Fills a version folder with a decoder, which takes volts.

    Args:
        folder: empty.
        about: the card of the version, with its `name`, its `format` ("savedmodel", "onnx", "both" or, for decoders,
            "litert") and optionally its `precision`.
        windows: (N, L, C) volts that int8 measures its ranges on.
    """
    format, name, precision = about["format"], about["name"], about.get("precision", "float32")
    if format in ("savedmodel", "both"):
        with working(f"writing the SavedModel of {name}"):
            signatures.save_decoder(signatures.Signatures(decoder), folder)
        _add(folder, decoder.model, Path("assets.extra", FILE), name, noise(decoder, 1),
             ("serving_default", "features", "stream"))
    graph = signatures.Signatures(decoder, "keras") if format != "savedmodel" else None
    if format == "litert":
        with working(f"writing {folders.LITERT} of {name}"):
            save_litert(graph.answer, graph.window, folder / folders.LITERT)
    elif graph:
        with working(f"writing {folders.ONNX} of {name}"):
            save_onnx(graph.answer, graph.window, folder / folders.ONNX)
            if precision == "float32":
                save_onnx(graph.stream_at_once, graph.signal, folder / folders.ONNX_STREAM)
            else:  # without a graph of its own, a signal is cut into windows
                reduce_precision(folder / folders.ONNX, precision, windows)
    cards.write(folder, about)


def write_fins(folder: Path, bank: keras.Model, about: dict) -> None:
    """Fills a version folder with FINs alone: standardised windows of any number of channels; arguments as above."""
    length = bank.input_shape[1]
    if about["format"] != "onnx":
        with working(f"writing the SavedModel of {about['name']}"):
            signatures.save_fins(bank, folder)
        emg = np.random.default_rng(0).standard_normal((1, length, 12))
        _add(folder, bank, folders.FINS_FILE, about["name"], emg, ("serving_default", "features"))
    if about["format"] != "savedmodel":
        per_channel = [fins.PerChannel(model) for model in fins.fins_of(bank)]
        save_onnx(lambda emg: {"features": tf.concat([layer(emg, training=False) for layer in per_channel], -1)},
                       tf.TensorSpec((None, length, None), tf.float32, name="emg"), folder / folders.ONNX)
    cards.write(folder, about)


def _add(folder: Path, model: keras.Model, keras_file: Path, name: str, emg: np.ndarray,
         requested: tuple[str, ...]) -> None:
    """Adds the Keras model, and the requests that a server answers before it is ready: `emg` to each signature."""
    (folder / WARMUP).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / WARMUP)) as writer:
        for signature in requested:
            writer.write(prediction_log(name, signature, emg.astype(np.float32)))
    model.save(folder / keras_file)


def publish(card: dict, network: keras.Model, model: Path, format: str | None = None,
            windows: np.ndarray | None = None) -> Path:
    """Writes a decoder, or FINs, as a new version of a model folder; returns the version's folder.

    Args:
        card: of the decoder or the FINs; `network` is their Keras model.
        format: as of `write_decoder`; None: the card's, or savedmodel.
        windows: as of `write_decoder`.
    """
    format = format or card.get("format", "savedmodel")
    with folders.new_version(model) as (folder, number):
        about = card | {"name": model.name, "version": number, "format": format}
        if about["kind"] == "decoder":
            write_decoder(folder, BaseDecoder(about, network), about, windows)
        else:
            write_fins(folder, network, about)
    if format in ("savedmodel", "both"):
        folders.add_to_config(model)
    return model / str(number)


def prediction_log(name: str, signature: str, emg: np.ndarray) -> bytes:
    """A serialised PredictionLog{predict_log{request{model_spec, inputs{"emg"}}}}."""
    spec = _field(1, name.encode()) + _field(3, signature.encode())  # ModelSpec: name, signature_name
    tensor = tf.make_tensor_proto(emg).SerializeToString()
    entry = _field(1, b"emg") + _field(2, tensor)  # one entry of the map `inputs`
    request = _field(1, spec) + _field(2, entry)  # PredictRequest: model_spec, inputs
    return _field(6, _field(1, request))  # PredictionLog: predict_log; PredictLog: request


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of the protocol-buffer wire format."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes(encoded) + bytes([value])


def save_onnx(function: Callable, spec: tf.TensorSpec, path: Path) -> None:
    """Writes a function of one tensor, which returns a dict, as an ONNX model whose outputs have the dict's names.

    Raises:
        InputError: tf2onnx is not installed, or ONNX lacks one of the operations.
    """
    onnx, tf2onnx = (required(name, "edge", "--format onnx needs tf2onnx") for name in ("onnx", "tf2onnx"))
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))  # tf2onnx says each thing a hundred times, by the root logger too
    os.environ["TF2ONNX_CATCH_ERRORS"] = ""  # else it copies the graph before each of its optimisations: a third of all
    try:
        with engine("keras"):
            traced = tf.function(function, input_signature=[spec], autograph=False)
            model, _ = tf2onnx.convert.from_function(traced, [spec], opset=OPSET,
                                                     custom_op_handlers={"Erfc": (_erfc, [])})
    finally:
        logging.disable(before)
    try:
        onnx.checker.check_model(model)  # tf2onnx leaves an operation in the graph that it cannot convert
    except onnx.checker.ValidationError as error:
        raise InputError(f"this model cannot be converted to ONNX: {str(error).splitlines()[0]}") from None
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    path.write_bytes(model.SerializeToString())


def _erfc(context, node, name: str, args: list) -> None:
    """Erfc(x) = 1 - Erf(x): the exact GELU uses Erfc, which ONNX lacks."""
    erf = context.make_node("Erf", [node.input[0]])
    one = context.make_const(f"{name}__one", np.array(1, np.float32))
    node.type = "Sub"
    context.replace_inputs(node, [one.output[0], erf.output[0]])


def reduce_precision(path: Path, precision: str, windows: np.ndarray | None = None) -> None:
    """Rewrites an ONNX file with windows `emg` (B, L, C) as input in float16 or int8.

    Args:
        windows: (N, L, C) volts, as the model will get them; needed for int8.

    Raises:
        InputError: onnx or onnxruntime is not installed.
    """
    needs = f"--precision {precision} needs onnx and onnxruntime"
    onnx, _ = (required(name, "edge", needs) for name in ("onnx", "onnxruntime"))
    if precision == "int8":
        _quantise_head(path, np.asarray(windows, np.float32))
    path.write_bytes(_float16_weights(onnx.load(path)).SerializeToString())


def _float16_weights(model):
    """Stores large weights in float16 and casts them to float32 for computing: half the size, the same speed."""
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


def _quantise_head(path: Path, windows: np.ndarray) -> None:
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    parts = iter([{"emg": part} for part in np.array_split(windows, max(1, len(windows) // 16))])
    plain = path.with_name("plain.onnx")
    quant_pre_process(path, plain, skip_symbolic_shape=True)
    outside = [node.name for node in onnx.load(plain).graph.node if f"/{HEAD}" not in node.name]
    quantization.quantize_static(
        plain, path, SimpleNamespace(get_next=lambda: next(parts, None)), quant_format=quantization.QuantFormat.QDQ,
        per_channel=True, op_types_to_quantize=["Conv", "MatMul", "Gemm"], nodes_to_exclude=outside,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8)
    plain.unlink()


def save_litert(function: Callable, spec: tf.TensorSpec, path: Path) -> None:
    """Writes a function of windows, which returns a dict, with the dict's names as outputs of `serving_default`.

    The file is float32. The converter's float16 also rounds values in volts, which cost one of eight people 37 points
    of accuracy, and its int8 changed one label in eleven.

    Args:
        spec: of the function's input; the file takes one window (1, ...) a call.

    Raises:
        InputError: LiteRT lacks one of the operations, such as Keras's loop over the samples of a Bi-LSTM.
    """
    from tensorflow.python.framework import convert_to_constants

    with engine("keras"), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the converter
        one = tf.TensorSpec((1, *spec.shape[1:]), spec.dtype, name=spec.name)
        traced = tf.function(function, input_signature=[one], autograph=False).get_concrete_function()
        # without this the converter leaves some variables without a value
        constant = convert_to_constants.convert_variables_to_constants_v2(traced)

        @tf.function(input_signature=[one], autograph=False)
        def serving_default(emg):
            return tf.nest.pack_sequence_as(traced.structured_outputs, constant(emg))

        tf.saved_model.save(tf.Module(), folder, signatures=serving_default)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
        content = None
        with quiet_start():  # which shows what it has held back if an error leaves it
            try:
                content = converter.convert()
            except Exception as error:  # its type depends on the version of TensorFlow
                reason = "the format is for FINs without recurrence" if "TensorList" in str(error) else \
                    " ".join(str(error).split())[:200]
    if content is None:
        raise InputError(f"this model cannot be converted to LiteRT: {reason}")
    path.write_bytes(content)
