"""Learners, one per file: `make(facts, **config.learner) -> Learner`; `facts` is the task's."""
