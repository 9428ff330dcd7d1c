"""Systems that learn to learn, as pure functions in JAX."""

__version__ = "0.1.0"


def load(workdir: str, step: int | None = None, replica: int = 0):
    """A trained run to predict with; see `metalearn.api.load`."""
    from metalearn import api  # here, so that importing the package starts no JAX

    return api.load(workdir, step, replica)
