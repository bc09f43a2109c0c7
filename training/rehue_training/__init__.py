"""Training, evaluation and TensorRT plans of the network."""
