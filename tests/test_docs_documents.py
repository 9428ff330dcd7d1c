"""Documents out of records: tables, single claims, blocks between markers."""

from __future__ import annotations

import pytest
from test_docs_results import CLAIM, RECORD, changed

from docs import records as documents
from metalearn.validate import ConfigError

TABLE = "| a | b |\n|---|---|\n| x | 60.0 |\n| y | 1.0 ± 0.5 |"


def test_tables_format_numbers_intervals_and_gaps():
    assert documents.tables(RECORD) == TABLE
    table = dict(title="T", digits=2, columns=["n", "v"], rows=[[12345, None], ["text", 1234.5]])
    assert documents.tables(changed(tables=[table])) == "T:\n\n| n | v |\n|---|---|\n| 12,345 |  |\n| text | 1,234.50 |"


def test_blocks_are_made_anew_and_the_rest_is_left():
    text = ("before\n<!-- results:tiny -->\nold\n<!-- /results -->\n"
            "| <!-- results:tiny/accuracy -->?<!-- /results --> |\n")
    assert documents.fill(text, {"tiny": RECORD}) == (
        f"before\n<!-- results:tiny -->\n{TABLE}\n<!-- /results -->\n"
        "| <!-- results:tiny/accuracy -->60.0<!-- /results --> |\n")
    assert documents.fill(documents.fill(text, {"tiny": RECORD}), {"tiny": RECORD}).count("60.0") == 2


@pytest.mark.parametrize("text, message", [
    ("<!-- results:tinny --><!-- /results -->", "nearest: tiny"),
    ("<!-- results:tiny/acuracy --><!-- /results -->", "nearest: accuracy"),
    ("<!-- results:tiny -->", "needs its"),
])
def test_a_block_that_names_nothing_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        documents.fill(text, {"tiny": RECORD})


def test_a_section_says_where_its_numbers_are_from():
    published = dict(value=98.7, source="a paper", grade="M")
    claim = CLAIM | dict(interval=1.5, over="episodes", per_seed=[60.0, 61.0], published=published)
    text = documents.section(changed(claims=[claim], notes=["One seed."], seconds=1234))
    assert "`tiny`, imported" in text and "1,234 s" in text and "machine not known" in text
    assert "bash launch/local.sh --config=configs/fewshot.py:smoke --workdir=runs/tiny" in text
    assert ("accuracy 60.0 ± 1.5 (95 % over episodes), by seed 60.0 61.0, published 98.7 (a paper) [M], tolerance 2."
            in text)
    assert text.endswith("One seed.")
