"""What carries a run: config, work directory, checkpoints, writer, sharding, optimiser, experiment, the loop."""
