"""Training: data in its order, the step, checkpoints that can be trusted, run folders."""
