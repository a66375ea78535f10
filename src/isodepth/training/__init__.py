"""Training: data, optimiser, schedule, checkpoints and the trainer. Imports nothing by itself."""
