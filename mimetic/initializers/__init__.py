"""Initializers: pure functions from a rule, a layer and keyed streams to tensors."""
