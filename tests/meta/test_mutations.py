"""The places that tests/conformance/mutants.py breaks are there, each once: else nobody notices until it is run."""

import pytest

from conformance.mutants import MUTATIONS, QUICKER, ROOT

PLACES = sorted({(one.file, one.old) for one in MUTATIONS} | {(file, old) for file, old, _ in QUICKER})


@pytest.mark.parametrize(("file", "old"), PLACES)
def test_text_that_is_replaced_stands_in_its_file_once(file: str, old: str):
    assert (ROOT / file).read_text().count(old) == 1
