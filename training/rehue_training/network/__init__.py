"""The networks: layers, weights and conversion to ONNX."""
