"""A fitted estimator in an ONNX graph (see `xpmlp.to_onnx`)."""

from dataclasses import replace
from typing import Any

import numpy as np

from xpmlp.estimators.classes import is_multilabel
from xpmlp.estimators.files import to_model
from xpmlp.recording.onnx_graph import Graph
from xpmlp.storage.onnx import add_network, add_outputs, add_rows_input, prediction_outputs
from xpmlp.training.labels import Labels


def write(est: Any, graph: Graph) -> None:
    """Write the network with the results of `predict` and `predict_proba`."""
    model, binarizer = to_model(est), getattr(est, "_label_binarizer", None)
    if binarizer is not None and len(est.classes_) == 1:  # `predict` knows no other label
        model = replace(model, _labels=Labels(np.repeat(est.classes_, 2), flat=True))
    linked = add_network(graph, model, add_rows_input(graph, model))
    if binarizer is not None and is_multilabel(binarizer):
        label = graph.astype(graph.greater(linked, 0.5), "int64")
        add_outputs(graph, {"label": label, "probabilities": linked})
    else:
        add_outputs(graph, prediction_outputs(graph, model, linked))
