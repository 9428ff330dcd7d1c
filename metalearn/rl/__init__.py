"""Rollouts, the trajectory file, task ids, and who collected the data."""
