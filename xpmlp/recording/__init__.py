"""How a step is noted once, and written for NumPy, numba, CUDA and ONNX."""
