"""Learners, one per file: `make(spec, **config.learner) -> Learner`; `spec` is the task's."""
