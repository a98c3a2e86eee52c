"""What trains trials: workers of this machine, a team of torchrun, a Ray cluster."""
