"""`mqttcore users`, on each kind of file."""

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mqttcore_plugins.users.command import users


def run(*arguments: str, password: str = "") -> Result:
    return CliRunner().invoke(users, [*arguments, *(["--password-stdin"] if password else [])], input=password)


@pytest.mark.parametrize("suffix", [".toml", ".json", ""])
def test_add_verify_change_remove(tmp_path: Path, suffix: str):
    file = str(tmp_path / f"users{suffix}")
    for name in ("ann", "bob"):
        added = run("add", file, name, password="first\n")
        assert added.exit_code == 0, added.output
    assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600
    assert run("verify", file, "ann", password="first\n").exit_code == 0
    assert run("verify", file, "ann", password="second\n").exit_code == 1
    assert run("add", file, "ann", password="second\n").exit_code == 0
    assert run("verify", file, "ann", password="second\n").exit_code == 0
    assert run("remove", file, "ann").exit_code == 0
    assert run("verify", file, "ann", password="second\n").exit_code == 1
    assert run("verify", file, "bob", password="first\n").exit_code == 0
    assert run("remove", file, "ann").exit_code == 1
    assert run("remove", file, "bob").exit_code == 0
    assert "first" not in Path(file).read_text()


def test_comments_and_rules_of_a_toml_file_stay(tmp_path: Path):
    file = tmp_path / "users.toml"
    file.write_text('# ours\n[[permissions]]\naction = "all"\nfilter = "room/#" # the room\n')
    assert run("add", str(file), "ann", password="x\n").exit_code == 0
    text = file.read_text()
    assert "# ours" in text
    assert "# the room" in text


def test_a_file_with_a_mistake_is_left_alone(tmp_path: Path):
    file = tmp_path / "users.toml"
    file.write_text("[[users]]\nnme = 'ann'\n")
    result = run("add", str(file), "bob", password="x\n")
    assert result.exit_code == 1
    assert "nme" in result.output
    assert file.read_text() == "[[users]]\nnme = 'ann'\n"


def test_empty_password_and_impossible_names_are_refused(tmp_path: Path):
    assert run("add", str(tmp_path / "a.toml"), "ann", password="\n").exit_code == 2
    assert run("add", str(tmp_path / "passwords"), "a:b", password="x\n").exit_code == 2
    assert not list(tmp_path.iterdir())
