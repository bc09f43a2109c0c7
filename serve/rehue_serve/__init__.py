"""The inference server: HTTP and gRPC in front of Triton."""
