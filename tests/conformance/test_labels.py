"""Every label of the standard is accounted for, and docs/conformance.md says how."""

from pathlib import Path

import pytest

from .report import (
    COMPLETE,
    TITLES,
    WRITTEN,
    id_of_test,
    in_order,
    read_labels,
    read_proofs,
    read_statements,
    render,
    without_results,
)

CONFIG_REFERENCE = Path(WRITTEN).with_name("config.md")


def test_standards_have_their_number_of_labels():
    # 139 and 251 of the regular form, and those that the standard's text prints in another.
    labels = read_labels()
    assert {version: len(labels[version]) for version in TITLES} == {"mqtt3": 141, "mqtt5": 252}
    assert all(list(labels[version]) == in_order(labels[version]) for version in TITLES)


@pytest.mark.parametrize("version", COMPLETE)
def test_every_label_has_a_statement(version: str):
    assert in_order(read_labels()[version].keys() - read_statements()[version].keys()) == []


@pytest.mark.parametrize("version", TITLES)
def test_statements_are_of_known_labels(version: str):
    assert in_order(read_statements()[version].keys() - read_labels()[version].keys()) == []


@pytest.mark.parametrize("version", TITLES)
def test_statements_say_what_is_asked_of_them(version: str):
    lacking = []
    for label, statement in read_statements()[version].items():
        needed = statement.behaviour if statement.needs_test else statement.reason
        if statement.side not in {"server", "client", "both"} or not needed:
            lacking.append(label)
    assert lacking == []


@pytest.mark.parametrize("version", TITLES)
def test_settings_exist(version: str):
    reference = CONFIG_REFERENCE.read_text(encoding="utf-8")
    settings = {key for statement in read_statements()[version].values() for key in statement.settings}
    assert [key for key in sorted(settings) if f"`{key.rpartition('.')[2]}`" not in reference] == []


@pytest.mark.parametrize("version", COMPLETE)
def test_every_label_that_binds_the_server_has_a_test(version: str):
    proofs = read_proofs()[version]
    needed = [label for label, statement in read_statements()[version].items() if statement.needs_test]
    assert [label for label in in_order(needed) if not proofs.get(label)] == []


@pytest.mark.parametrize("version", TITLES)
def test_marks_name_known_labels(version: str):
    assert in_order(read_proofs()[version].keys() - read_labels()[version].keys()) == []


def test_ids_in_results_leave_out_folder_and_parameters():
    assert id_of_test("tests/conformance/test_v5_x.py::test_y[tcp-a/b[c]]") == "test_v5_x.py::test_y"
    assert id_of_test("test_v5_x.py::test_y") == "test_v5_x.py::test_y"


def test_report_in_docs_is_that_of_the_statements():
    assert without_results(WRITTEN.read_text(encoding="utf-8")) == without_results(render({})), (
        "run pytest tests/conformance --conformance-report"
    )
