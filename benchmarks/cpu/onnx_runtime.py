"""onnxruntime as a contender: predictions of the network as a graph of Gemm and activations."""

import os
import time

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.cpu.problems import Problem

ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid"}
TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}
OPSET, IR = 17, 8  # old enough for any recent onnxruntime


def serialized_model(problem: Problem) -> bytes:
    """The network that all contenders start from, with softmax for classes, as ONNX."""
    nodes, constants, name = [], [], "x"
    for i, (weights, bias) in enumerate(problem.start):
        constants += [numpy_helper.from_array(weights, f"W{i}")]
        constants += [numpy_helper.from_array(bias, f"b{i}")]
        nodes.append(helper.make_node("Gemm", [name, f"W{i}", f"b{i}"], [f"z{i}"]))
        name = f"z{i}"
        if i + 1 < len(problem.start):
            nodes.append(helper.make_node(ACTIVATIONS[problem.shape.activation], [name], [f"a{i}"]))
            name = f"a{i}"
    if problem.shape.loss == "cross_entropy":
        nodes.append(helper.make_node("Softmax", [name], ["p"], axis=-1))
        name = "p"
    kind, sizes = TYPES[problem.X.dtype.name], problem.shape.sizes
    infos = [
        helper.make_tensor_value_info(info, kind, ["rows", size])
        for info, size in (("x", sizes[0]), (name, sizes[-1]))
    ]
    graph = helper.make_graph(nodes, "mlp", infos[:1], infos[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    return model.SerializeToString()


class Prediction:
    """`InferenceSession.run` on rows in host memory."""

    def __init__(self, problem: Problem) -> None:
        self.X, self.units = problem.X, problem.size
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))  # 0: its default
        self.session = onnxruntime.InferenceSession(
            serialized_model(problem), options, providers=["CPUExecutionProvider"]
        )

    def seconds(self, count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            self.session.run(None, {"x": self.X})
        return time.perf_counter() - started

    def result(self, count: int) -> np.ndarray:
        (predictions,) = self.session.run(None, {"x": self.X})
        return predictions.astype(np.float64).ravel()
