"""The contenders of other libraries, added to those of OWN."""

from benchmarks.cpu.contest import OWN, Contender

PEERS = {
    "train": (
        Contender("PyTorch eager", "benchmarks.cpu.pytorch:eager"),
        Contender("PyTorch eager, fused Adam", "benchmarks.cpu.pytorch:fused"),
        Contender("torch.compile, whole step", "benchmarks.cpu.pytorch:compiled"),
        Contender("JAX jit, one step", "benchmarks.cpu.jax_jit:Training"),
    ),
    "predict": (Contender("onnxruntime", "benchmarks.cpu.onnx_runtime:Prediction"),),
}
ALL = {task: (*own, *PEERS.get(task, ())) for task, own in OWN.items()}
