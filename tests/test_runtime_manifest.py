"""What ran: the session that began a run stays at its head, every other has a line."""

import json
import os

from metalearn.runtime import manifest


def test_manifest_says_what_ran_and_nothing_private(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("A_SECRET", "hush")
    facts = manifest.describe("cpu", 1)
    text = json.dumps(facts)
    assert facts["versions"]["jax"] and facts["num_devices"] == 1 and "hush" not in text and "somebody" not in text


def test_manifest_knows_the_revision_wherever_there_is_one():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    assert (manifest.describe("cpu", 1)["git"] != "unknown") == os.path.exists(os.path.join(root, ".git"))
