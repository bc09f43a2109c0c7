"""Training runs: configuration, losses, steps, checkpoints, export."""
