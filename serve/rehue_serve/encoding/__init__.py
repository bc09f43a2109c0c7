"""Encode pictures, in strips where the format allows it."""
