"""Training runs: configuration, losses, steps, checkpoints and export."""
