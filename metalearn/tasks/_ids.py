"""How many task ids training draws from, for tasks that are functions of an id."""

import numpy as np

from metalearn.validate import require

FIRST_EVAL_ID = 2**30  # ids from here on are never meta-trained on


def limit(num_tasks: int) -> np.int32:
    """The first id that is not trained on; `num_tasks` 0 is unlimited (2**30 ids)."""
    require(0 <= num_tasks <= FIRST_EVAL_ID, "num_tasks", num_tasks,
            f"must lie between 0 (unlimited) and {FIRST_EVAL_ID}")
    return np.int32(num_tasks or FIRST_EVAL_ID)
