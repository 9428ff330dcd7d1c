"""Records of experiments: checked, written so that they can be read, made out of finished runs."""

from __future__ import annotations

import copy
import json
import pathlib

import pytest

from docs import fields, records, results
from metalearn.__main__ import PROGRAMS
from metalearn.runtime import config as config_lib
from metalearn.validate import ConfigError

ROOT = pathlib.Path(__file__).parent.parent
CLAIM = dict(name="accuracy", path="fewshot/accuracy", scale=100, value=60.0, interval=None, over=None,
             interval_from=dict(path="fewshot/ci95", over="episodes"), per_seed=None, digits=1, better="higher",
             tolerance=2.0, published=None)
RECORD = dict(id="tiny", family="fewshot", title="A tiny run", provenance="imported",
              commands=["train --config=configs/fewshot.py:smoke --workdir={out}"], config_sha256=None, git=None,
              episodes_sha256=None, seeds=[0], seconds=None, machine=None, claims=[CLAIM], notes=[],
              tables=[dict(title="", digits=1, columns=["a", "b"], rows=[["x", 60.0], ["y", [1.0, 0.5]]])])


def changed(**changes) -> dict:
    return copy.deepcopy(RECORD) | changes


def test_a_good_record_passes_and_comes_back_from_its_file(tmp_path):
    assert fields.check(RECORD) == RECORD
    records.save(str(tmp_path), RECORD)
    assert fields.load(str(tmp_path)) == {"tiny": RECORD}


@pytest.mark.parametrize("changes, field", [
    (dict(provenance="remembered"), "provenance"), (dict(provenance="made"), "config_sha256"),
    (dict(commands=[]), "commands"), (dict(seconds="long"), "seconds"), (dict(title=None), "title"),
    (dict(extra=1), "extra"), (dict(id="With Space"), "id"),
    (dict(tables=[dict(title="", digits=1, columns=["a"], rows=[["x", 60.0]])]), "tables[0].rows"),
    (dict(claims=[CLAIM | dict(value=61.0)]), "claims[0].value"),
    (dict(claims=[CLAIM | dict(better="more")]), "claims[0].better"),
    (dict(claims=[CLAIM | dict(interval=1.0)]), "claims[0].over"),
    (dict(claims=[CLAIM, CLAIM]), "claims"),
    (dict(claims=[CLAIM | dict(published=dict(value=1, source="a paper", grade="A+"))]), "claims[0].published.grade"),
])
def test_what_is_wrong_is_named(changes, field):
    with pytest.raises(ConfigError) as refused:
        fields.check(changed(**changes))
    assert refused.value.field.endswith(f".json.{field}")


def test_a_missing_field_and_a_wrong_file_name_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="notes"):
        fields.check({k: v for k, v in RECORD.items() if k != "notes"})
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "other.json").write_text(json.dumps(RECORD))
    with pytest.raises(ConfigError, match="must be the file's name"):
        fields.load(str(tmp_path))


def test_the_nearest_name_is_given():
    with pytest.raises(ConfigError, match="nearest: tiny"):
        results.find({"tiny": RECORD}, "tine")


def test_committed_records_are_as_the_program_writes_them_and_name_configs_that_load():
    stored = fields.load(str(ROOT))
    assert len(stored) > 20
    for name, record in stored.items():
        assert (ROOT / "results" / f"{name}.json").read_text() == records.to_json(record), name
        for command in record["commands"]:
            program, *words = command.split()
            assert program in PROGRAMS, command
            for word in words:
                if word.startswith("--config="):
                    path, _, arg = word.removeprefix("--config=").partition(":")
                    module = config_lib.import_file(str(ROOT / path))
                    assert next(iter(module.sweep(arg))) is not None if program == "sweep" else module.get_config(arg)


def test_claims_of_sweeps_name_runs_that_the_sweep_has():
    """One part of each path is the label of a run, or what stands before its comma; or it has two, differences/a-b, x;
    or it is a line that has none; or the number of a set of data, of every run."""
    shared = ("references", "learning_unseen", "newclass_last", "rank_correlation")
    for name, record in fields.load(str(ROOT)).items():
        program, *words = record["commands"][-1].split()
        if program != "sweep":
            continue
        spec = next(word for word in words if word.startswith("--config=")).removeprefix("--config=")
        path, _, arg = spec.partition(":")
        labels = {run["_label"] for run in config_lib.import_file(str(ROOT / path)).sweep(arg)}
        known = {*labels, *(label.partition(",")[0] for label in labels)}
        for claim in record["claims"]:
            parts = claim["path"].split("/")
            if parts[0] == "differences":
                assert set(parts[1].partition(",")[0].split("-")) <= known | {"behaviour"}, f"{name}: {claim['path']}"
                continue
            if parts[0] == "paired":  # A - B: the label of A, whose seeds are compared with those of B
                assert parts[1].rpartition(" - ")[0] in labels, f"{name}: {claim['path']}"
                continue
            named = any(part in known or any(part.startswith(f"{k}_") for k in known) for part in parts)
            of_a_set = spec.endswith(":mixture") and parts[0].endswith(("_ahead", "_last"))
            assert named or of_a_set or parts[0] in shared, f"{name}: {claim['path']}; the sweep has {sorted(known)}"


def test_a_path_leads_through_names_and_indices():
    numbers = {"returns": {"metadt": [{"mean": 1.5}, {"mean": 2.5}]}}
    assert results.read(numbers, "returns/metadt/1/mean") == 2.5
    with pytest.raises(ConfigError, match=r"no 'metdt'.*nearest: metadt"):
        results.read(numbers, "returns/metdt")
    with pytest.raises(ConfigError, match="no '7'"):
        results.read(numbers, "returns/metadt/7/mean")


def test_measured_over_seeds():
    assert results.measured([0.5], 100) == (50.0, None, None)
    mean, half, values = results.measured([[1.0, 2.0, 3.0]], 1)
    assert (mean, values) == (2.0, [1.0, 2.0, 3.0]) and half == pytest.approx(4.302653 / 3**0.5)
    assert results.measured([1.0, 2.0, 3.0], 1) == (mean, half, values)
    assert results.measured([[[1.0], [2.0], [3.0]]], 1) == (mean, half, values)
    for wrong in (None, [], "memorise", True, float("nan")):
        with pytest.raises(ConfigError):
            results.measured([wrong], 1)


def run_directory(path: pathlib.Path, seed: int, accuracy: float) -> str:
    """What a finished run leaves, as far as a record reads it."""
    (path / "eval").mkdir(parents=True)
    manifest = dict(git="0123456789ab", machine="Linux x86_64, 2 cores", device="cpu", num_devices=1)
    table = dict(title="few-shot", columns=["set", "accuracy"], rows=[["test", "0.600 ± 0.010"]])
    files = {"config": dict(seed=seed, init_from=f"{path}/source"), "manifest": manifest,
             "result": dict(fewshot=dict(accuracy=accuracy, ci95=0.01, episodes_sha256="ab"), seconds=2.5),
             "eval/fewshot": dict(tables=[table])}
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return str(path)


def test_one_run_becomes_a_record_with_the_run_s_own_interval(tmp_path):
    made = records.record(changed(), [run_directory(tmp_path / "a", 3, 0.625)])
    claim = made["claims"][0]
    assert (claim["value"], claim["interval"], claim["over"], claim["per_seed"]) == (62.5, 1.0, "episodes", None)
    assert made["tables"] == [dict(title="few-shot", digits=3, columns=["set", "accuracy"],
                                   rows=[["test", "0.600 ± 0.010"]])]
    assert (made["provenance"], made["seeds"], made["seconds"], made["git"]) == ("made", [3], 2.5, "0123456789ab")
    assert made["machine"] == "Linux x86_64, 2 cores, 1 x cpu" and made["episodes_sha256"] == ["ab"]


def test_runs_of_several_seeds_become_a_mean_over_seeds(tmp_path):
    runs = [run_directory(tmp_path / str(seed), seed, accuracy) for seed, accuracy in enumerate((0.5, 0.6, 0.7))]
    made = records.record(changed(), runs)
    claim = made["claims"][0]
    assert claim["value"] == pytest.approx(60.0) and claim["over"] == "seeds" and made["seeds"] == [0, 1, 2]
    assert claim["per_seed"] == pytest.approx([50, 60, 70]) and claim["interval"] == pytest.approx(24.8414, rel=1e-4)
    assert made["seconds"] == 7.5


def test_replicas_of_one_run_become_a_mean_over_seeds(tmp_path):
    run = run_directory(tmp_path / "run", 0, 0.6)
    rows = [dict(setting=dict(seed=4 + i), fewshot=dict(accuracy=accuracy))
            for i, accuracy in enumerate((0.5, 0.6, 0.7))]
    result = json.loads((tmp_path / "run" / "result.json").read_text()) | {"replicas": rows}
    (tmp_path / "run" / "result.json").write_text(json.dumps(result))
    made = records.record(changed(), [run])
    assert made["claims"][0]["per_seed"] == pytest.approx([50, 60, 70]) and made["seeds"] == [4, 5, 6]
    one = records.record(changed(claims=[CLAIM | dict(path="replicas/2/fewshot/accuracy")]), [run])["claims"][0]
    assert (one["value"], one["per_seed"]) == (pytest.approx(70.0), None)


def test_a_sweep_becomes_a_record_whose_hash_does_not_depend_on_where_it_lies(tmp_path):
    found = []
    for place in ("here", "there"):
        out = tmp_path / place
        run_directory(out / "000", 0, 0.5)
        sweep = dict(headline={"by_seed": [0.5, 0.7]}, tables=[], runs=[dict(workdir="000")])
        (out / "sweep.json").write_text(json.dumps(sweep))
        found.append(records.record(changed(claims=[CLAIM | dict(path="by_seed")]), [str(out)]))
    assert found[0]["config_sha256"] == found[1]["config_sha256"] and found[0]["claims"][0]["per_seed"] == [50.0, 70.0]
    other = run_directory(tmp_path / "other", 1, 0.5)
    assert results.config_hash([other]) != found[0]["config_sha256"]


def test_unfinished_work_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not finished"):
        records.headline(str(tmp_path))
