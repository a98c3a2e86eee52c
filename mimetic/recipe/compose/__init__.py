"""Merge files, arms, stages and overrides into one tree."""
