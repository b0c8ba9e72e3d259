"""The contenders of other libraries, beside those that xpmlp itself brings."""

from pathlib import Path

from xpmlp.bench.contest import OWN, Contender

FOLDER = Path(__file__).resolve().parent  # where their modules lie
PEERS = {
    "train": (
        Contender("PyTorch eager", "pytorch:eager"),
        Contender("PyTorch eager, fused Adam", "pytorch:fused"),
        Contender("torch.compile, whole step", "pytorch:compiled"),
        Contender("JAX jit, one step", "jax_jit:Training"),
    ),
    "predict": (Contender("onnxruntime", "onnx_runtime:Prediction"),),
}
ALL = {task: (*own, *PEERS.get(task, ())) for task, own in OWN.items()}
