"""TensorRT plans: build, identify, compare and measure them. No Keras, no Ray."""
