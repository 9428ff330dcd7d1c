"""Environment families, one per file: pure functions of (key, state, action, task)."""
