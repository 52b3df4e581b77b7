"""docs/config.md is what the structs say."""

from pathlib import Path

from mqttcore.config_reference import reference


def test_reference_in_docs_is_that_of_the_structs():
    written = Path(__file__).parents[2] / "docs" / "config.md"
    assert written.read_text(encoding="utf-8") == reference(), (
        "run python -m mqttcore.config_reference > docs/config.md"
    )
