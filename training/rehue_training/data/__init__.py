"""Photographs for training, and the batches made from them."""
