"""Colour and the model contract: plain functions over arrays. Serving and training stand on it."""
