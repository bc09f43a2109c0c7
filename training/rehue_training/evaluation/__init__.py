"""Metrics, contact sheets and figures of trained networks."""
