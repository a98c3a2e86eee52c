"""Rewrites of a network, applied before its sites are found."""
