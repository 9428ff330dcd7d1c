"""Losses and scores, statistics, frozen episodes, baselines: all that says how good something is."""
