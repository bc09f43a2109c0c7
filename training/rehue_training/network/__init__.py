"""The networks: layers, weights, and how they become ONNX."""
