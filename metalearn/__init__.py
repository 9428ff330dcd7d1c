"""Systems that learn to learn, as pure functions in JAX.

  numbers = metalearn.train("configs/gpicl.py:digits", "runs/gpicl")     # trains, saves, evaluates
  numbers = metalearn.evaluate("runs/gpicl")                             # the same numbers from the checkpoint
  learner = metalearn.load("runs/gpicl")                                 # to predict with, to act with, to look into
"""

__version__ = "0.1.0"

# imports stand inside, so that importing the package starts no JAX


def evaluate(workdir: str, overrides: tuple[str, ...] = (), step: int | None = None, dataset: str = "") -> dict:
    """Evaluates the newest healthy checkpoint of a run, or `step`; {evaluator: {name: number}}, sizes and the step.
    What differs from training's own evaluation is in the names of its files, so that nothing is overwritten.

    overrides   field=value of the run's config that this evaluation changes, as in
                ("task.new_dataset=my_images.npz", "evaluators.curves.episodes=256")
    dataset     a name, an .npz or a folder CLASS/*.png: evaluated alone, in the place of the run's own sets

    Raises ConfigError for a bad field or no run, CheckpointError when no checkpoint is healthy.
    """
    from metalearn import eval as program

    changes = {field: value for field, _, value in (o.partition("=") for o in overrides)}
    return program.run(workdir, changes, step, dataset)


def load(workdir: str, step: int | None = None, replica: int = 0):
    """A trained run to predict with; see `metalearn.api.load`."""
    from metalearn import api

    return api.load(workdir, step, replica)


def __getattr__(name: str):
    """`metalearn.train`: the program's module, which is callable (see the end of it)."""
    if name != "train":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return importlib.import_module("metalearn.train")
