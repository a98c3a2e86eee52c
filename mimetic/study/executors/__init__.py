"""What trains the trials of a study: worker processes, torchrun's processes, or tasks of a Ray cluster."""
