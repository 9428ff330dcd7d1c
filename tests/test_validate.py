"""One line per wrong input: the field, the value, what is allowed."""

import math
from typing import Literal

import pytest

from metalearn import validate
from metalearn.validate import ConfigError


def make(facts, *, lr: float, steps: int, name: str, hidden: tuple[int, ...] = (), share: bool = False,
         rule: Literal["a", "b"] = "a", extra: dict | None = None):
    return facts, lr, steps, name, hidden


GOOD = dict(lr=0.1, steps=3, name="x")


def test_call_passes_context_and_keywords():
    assert validate.call(make, "facts", **GOOD, hidden=[1, 2]) == ("facts", 0.1, 3, "x", [1, 2])
    assert validate.call(make, "facts", **GOOD | dict(lr=1, extra=None))[1] == 1


@pytest.mark.parametrize("change, field, words", [
    (dict(lrr=1.0), "lrr", "unknown field"),
    (dict(lrr=1.0), "lrr", "nearest: lr"),
    (dict(facts=1), "facts", "unknown field"),
    (dict(lr="0.1"), "lr", "of type float"),
    (dict(lr=True), "lr", "of type float"),
    (dict(lr=math.nan), "lr", "finite"),
    (dict(lr=-math.inf), "lr", "finite"),
    (dict(steps=3.0), "steps", "of type int"),
    (dict(steps=True), "steps", "of type int"),
    (dict(name=None), "name", "of type str"),
    (dict(share=1), "share", "of type bool"),
    (dict(hidden=(1, "2")), "hidden", "of type tuple"),
    (dict(hidden=3), "hidden", "of type tuple"),
    (dict(rule="c"), "rule", "Literal"),
    (dict(extra=4), "extra", "of type dict"),
])
def test_call_refuses(change, field, words):
    with pytest.raises(ConfigError, match=words) as error:
        validate.call(make, "facts", **GOOD | change)
    assert error.value.field == field and "\n" not in str(error.value)


def test_call_names_a_missing_field():
    with pytest.raises(ConfigError, match=r"steps=\(missing\)"):
        validate.call(make, "facts", lr=0.1, name="x")


@pytest.mark.parametrize("check, good, bad", [
    (validate.positive, (1, 1e-9), (0, -1, math.nan, math.inf, "1", True, None)),
    (validate.nonnegative, (0, 0.5), (-1e-9, math.nan, math.inf, False, "0")),
    (validate.fraction, (0, 1, 0.5), (-0.1, 1.1, math.nan, True)),
])
def test_ranges(check, good, bad):
    check(**{f"f{i}": value for i, value in enumerate(good)})
    for value in bad:
        with pytest.raises(ConfigError, match="^f="):
            check(f=value)


def test_fields():
    validate.fields({"lr": 1, "hint": None}, ("lr", "hint", "clip"), ("lr",))
    with pytest.raises(ConfigError, match=r"^lrr=1: unknown field; allowed: lr, clip \(nearest: lr\)$"):
        validate.fields({"lrr": 1}, ("lr", "clip"))
    with pytest.raises(ConfigError, match=r"^clip=\(missing\): this field must be given$"):
        validate.fields({"lr": 1}, ("lr", "clip"))
    with pytest.raises(ConfigError, match=r"^clip=\(missing\): or null$"):
        validate.fields({}, ("lr", "clip"), ("clip",), missing="or null")


def test_one_of_lists_and_hints():
    validate.one_of(("adam", "lion"), name="lion")
    with pytest.raises(ConfigError, match=r"name=adma: must be one of adam, lion \(nearest: adam\)"):
        validate.one_of(("adam", "lion"), name="adma")
    with pytest.raises(ConfigError, match="channels=2: must be one of 0, 1, 3"):
        validate.one_of((0, 1, 3), channels=2)


def test_multiple_of():
    validate.multiple_of("heads", 4, width=8)
    with pytest.raises(ConfigError, match="width=6: must be a multiple of heads=4"):
        validate.multiple_of("heads", 4, width=6)


def test_nearest():
    known = ["optim.lr", "train.batch", "train.steps"]
    assert validate.nearest("train.bach", known) == " (nearest: train.batch)"
    assert validate.nearest("learner.network.deeply.lr", known) == " (nearest: optim.lr)"  # right leaf, wrong parent
    assert validate.nearest("zzzzzzzz", known) == ""


def test_within_adds_the_path():
    with pytest.raises(ConfigError, match=r"^config\.task\.ways=7: too many"):
        with validate.within("config"), validate.within("task"):
            validate.require(False, "ways", 7, "too many")


def test_a_long_or_broken_value_stays_one_short_line():
    text = str(ConfigError("f", "a\nb" + "c" * 1000, "allowed"))
    assert "\n" not in text and len(text) < 150 and "a b" in text


@pytest.mark.parametrize("value, words", [
    ({"block": {"steps": 2**31}}, "block.steps=2147483648: must lie between -2147483648"),
    ({"block": {"a": {"task_seed": -1}}}, "block.a.task_seed=-1: must lie between 0"),
    ({"block": {"sizes": (1, 2**40)}}, "block.sizes=1099511627776")])
def test_integers_fit_32_bits_wherever_they_stand(value, words):
    def make(*, block: dict):
        return block

    with pytest.raises(validate.ConfigError, match=words):
        validate.call(make, **value)
    assert validate.call(make, block={"seed": 0, "low": -5, "on": True}) == {"seed": 0, "low": -5, "on": True}
