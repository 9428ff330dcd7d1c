"""Ways of measuring, one per file: `make(task, learner, **config.evaluators.<name>) -> Evaluator`."""
