"""Rows for people, whatever clients are called."""

from mqttcore.cli.table import table


def test_columns_stand_below_each_other_in_any_script():
    lines = table([{"name": name, "n": 1} for name in ("ascii", "日本", "A\u0301", "😀")]).splitlines()
    assert lines == ["name   n", "ascii  1", "日本   1", "A\u0301      1", "😀     1"]


def test_a_long_name_moves_its_own_line_alone():
    short, long = {"name": "a", "n": 1}, {"name": "x" * 65_535, "n": 2}
    lines = table([short, long]).splitlines()
    assert lines[1] == "a".ljust(60) + "  1"
    assert lines[2] == "x" * 65_535 + "  2"


def test_no_rows_and_no_columns_are_an_empty_line():
    assert table([], ("a", "b")) == "a  b\n"
    assert table([]) == "\n"
