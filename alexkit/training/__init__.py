"""The loop, its optimiser, its schedule and its checkpoints."""
