"""Task distributions, one per file: `make(**config.task) -> TaskDist`."""
