"""Lab, the network's input and output, and the model contract: plain functions over arrays.

Serving and training both build on this package; it imports neither.
"""
