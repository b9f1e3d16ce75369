from importlib.resources import files

import pytest

from holdfast.cli import InputError
from holdfast_loadtests.tables import load_table


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_csv_and_jsonl_give_the_same_rows(tmp_path):
    csv = written(tmp_path, "t.csv", '\ufeffid,note\na,"x, y"\n\nb,\n')
    jsonl = written(tmp_path, "t.jsonl", '{"id": "a", "note": "x, y"}\n\n{"note": "", "id": "b"}\n')
    assert load_table(csv) == load_table(jsonl) == [{"id": "a", "note": "x, y"}, {"id": "b", "note": ""}]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "id,tier\na,1\nb\n", "t.csv:3: 1 values, but the header names 2 columns (id, tier)"),
        ("t.csv", "id\n", "no rows"),
        ("t.csv", "", "no rows"),
        ("t.csv", "agent id\na\n", "t.csv:1: column 'agent id' is no name"),
        ("t.csv", "id,id\na,b\n", "names a column twice"),
        ("t.csv", 'id\n"a\n', "t.csv:2: no valid CSV"),
        ("t.csv", b"id\n\xff\n", "not UTF-8 text (byte 3)"),
        ("t.jsonl", '{"a": 1}\n{"b": 2}\n', "t.jsonl:2: columns ['b'] differ"),
        ("t.jsonl", "[1]\n", "t.jsonl:1: expected one JSON object"),
        ("t.jsonl", "{\n", "t.jsonl:1: no valid JSON"),
    ],
)
def test_a_wrong_table_is_refused_with_file_and_line(tmp_path, name, text, message):
    with pytest.raises(InputError) as refused:
        load_table(written(tmp_path, name, text))
    assert message in refused.value.message


def test_a_missing_table_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"absent\.csv: cannot read this file"):
        load_table(tmp_path / "absent.csv")


def test_the_packaged_fleet_is_105_agents_in_12_domains_and_4_tiers():
    rows = load_table(files("holdfast_chaos") / "data" / "agents.csv")
    assert len({row["agent_id"] for row in rows}) == len(rows) == 105
    assert len({row["domain"].split("/")[0] for row in rows}) == 12
    assert {row["tier"] for row in rows} == {"1", "2", "3", "4"}
