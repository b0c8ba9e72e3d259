"""Model files, checkpoints and ONNX export."""
