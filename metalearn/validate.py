"""One clear line for bad input: field, value, what is allowed.

Everything that can be known before JAX touches a device is checked before it does. The checks of a task, learner
or evaluator live in its own `make`, which names fields relatively (`ways`); `within` adds the path on the way out.
"""

import contextlib
import difflib
import inspect
import math
import re
import typing
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

T = typing.TypeVar("T")
LARGEST = 2**31 - 1
# what reading an .npz raises that is damaged, cut short, another file, or larger by its own word than memory
NO_NPZ = (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


class ConfigError(ValueError):
    """Bad input. `str()` is the one line that a person sees; programs exit with 2."""

    def __init__(self, field: str, value: Any, allowed: str):
        self.field, self.value, self.allowed = field, value, allowed
        super().__init__(f"{field}={_show(value)}: {allowed}")


def _show(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 120 else text[:117] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """' (nearest: lr)' or ''."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    if not close:  # a known field under a wrong block: name where it belongs
        close = [k for k in known if k.split(".")[-1] == name.split(".")[-1]][:1]
    return f" (nearest: {close[0]})" if close else ""


@contextlib.contextmanager
def within(prefix: str):
    """Errors raised inside name their field below `prefix`."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{prefix}.{error.field}", error.value, error.allowed) from None


def given(value: T | None, field: str, shown: Any, allowed: str) -> T:
    """`value`, which must be there."""
    if value is None:
        raise ConfigError(field, shown, allowed)
    return value


def require(ok: bool, field: str, value: Any, allowed: str) -> None:
    if not ok:
        raise ConfigError(field, value, allowed)


def positive(**fields: Any) -> None:
    """Every field is a finite number above zero."""
    for field, value in fields.items():
        require(_number(value) and value > 0, field, value, "must be a finite number above 0")


def nonnegative(**fields: Any) -> None:
    for field, value in fields.items():
        require(_number(value) and value >= 0, field, value, "must be a finite number, 0 or above")


def fraction(**fields: Any) -> None:
    for field, value in fields.items():
        require(_number(value) and 0 <= value <= 1, field, value, "must lie between 0 and 1")


def regex(**fields: str) -> None:
    for field, text in fields.items():
        try:
            re.compile(text)
        except re.error as error:
            raise ConfigError(field, text, f"must be a regular expression: {error}") from None


def one_of(allowed: Iterable[Any], **fields: Any) -> None:
    allowed = list(allowed)
    for field, value in fields.items():
        hint = nearest(value, [a for a in allowed if isinstance(a, str)]) if isinstance(value, str) else ""
        require(value in allowed, field, value, "must be one of " + ", ".join(str(a) for a in allowed) + hint)


def multiple_of(base_field: str, base: int, **fields: int) -> None:
    for field, value in fields.items():
        require(value % base == 0, field, value, f"must be a multiple of {base_field}={base}")


def fields(block: Mapping[str, Any], allowed: Iterable[str], required: Iterable[str] | None = None,
           missing: str = "this field must be given") -> None:
    """Every field of `block` is one of `allowed`, and every one of `required` is there (None: of `allowed`)."""
    allowed = list(allowed)
    for field in block:
        require(field in allowed, field, block[field],
                "unknown field; allowed: " + ", ".join(allowed) + nearest(field, allowed))
    for field in allowed if required is None else required:
        require(field in block, field, "(missing)", missing)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _matches(value: Any, hint: Any) -> bool:
    """Whether a config value fits a parameter's annotation; anything this does not know passes."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return value in args
    if origin is typing.Union or type(hint).__name__ == "UnionType":
        return any(_matches(value, a) for a in args)
    if hint is type(None):
        return value is None
    if hint is bool or hint is str:
        return isinstance(value, hint)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is tuple or origin is tuple:
        inner = args[0] if args else Any
        return isinstance(value, (tuple, list)) and all(_matches(v, inner) for v in value)
    if hint is dict or origin is dict:
        return isinstance(value, Mapping)
    return True


def call(make, /, *context: Any, **kw: Any) -> Any:
    """`make(*context, **kw)` after checking names, presence, types and finiteness of the keywords."""
    signature = inspect.signature(make)
    hints = typing.get_type_hints(make)
    known = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    fields(kw, [p.name for p in known], [p.name for p in known if p.default is inspect.Parameter.empty])
    for field, value in kw.items():
        hint = hints.get(field, Any)
        require(_matches(value, hint), field, value, f"must be of type {inspect.formatannotation(hint)}")
        if isinstance(value, float):
            require(math.isfinite(value), field, value, "must be finite")
        _int32(field, value)
    return make(*context, **kw)


def _int32(field: str, value: Any) -> None:
    """Integers are sizes, counts and seeds of 32-bit programs, wherever they stand in a block."""
    if isinstance(value, int):
        low = 0 if field.split(".")[-1].endswith("seed") else -LARGEST - 1
        require(low <= value <= LARGEST, field, value, f"must lie between {low} and {LARGEST}")
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            _int32(f"{field}.{name}", inner)
    elif isinstance(value, (tuple, list)):
        for inner in value:
            _int32(field, inner)
