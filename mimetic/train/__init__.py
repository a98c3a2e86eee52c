"""Training one trial: the loop, optimizers and schedules, checkpoints, freezing."""
