"""Photographs to learn from, and the batches made of them."""
