"""What surrounds the Lightning Trainer: run folders, checkpoints, guards."""
