"""`xpmlp export MODEL`: a model file as ONNX."""

import argparse
from pathlib import Path

from xpmlp.cli.train import check_output
from xpmlp.cli.using import check_model_file
from xpmlp.recording.onnx_graph import Symbol
from xpmlp.storage.atomic import write_atomic
from xpmlp.storage.onnx import graph_of, serialize
from xpmlp.tabular.model import load

EXAMPLE = "xpmlp export houses.safetensors --out houses.onnx"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a model file")
    parser.add_argument("--out", type=Path, metavar="FILE", help="(MODEL with the suffix .onnx)")


def describe(value: Symbol, role: str) -> str:
    return f"  {role} {value.name!r}: {value.dtype} ({', '.join(map(str, value.shape))})"


def run(options: argparse.Namespace) -> int:
    out = (
        Path(check_model_file(options.model)).with_suffix(".onnx")
        if options.out is None
        else options.out
    )
    check_output(out, [options.model])
    if out.suffix != ".onnx":
        raise ValueError(f"--out must end in .onnx; got {out}")
    graph = graph_of(load(options.model))
    write_atomic(out, serialize(graph))
    print(f"wrote {out}")
    for role, values in (("input", graph.inputs), ("output", graph.outputs)):
        print("\n".join(describe(value, role) for value in values.values()))
    return 0
