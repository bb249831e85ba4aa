"""`meshd password`: the line for `basic_auth`."""

import bcrypt
import pytest
from click.testing import CliRunner

from meshd.cli.main import main
from meshd.spec.reader.filter_values import check_users


def test_the_line_is_one_that_basic_auth_takes() -> None:
    result = CliRunner().invoke(main, ["password", "ann"], input="secret\n")
    line = result.stdout.strip()
    assert check_users((line,)) == (line,)
    assert bcrypt.checkpw(b"secret", line.partition(":")[2].encode())


@pytest.mark.parametrize(
    ("name", "password"), [("ann", ""), ("ann", "x" * 73), ("a b", "x"), ("a:b", "x")]
)
def test_names_and_passwords_that_are_refused(name: str, password: str) -> None:
    result = CliRunner().invoke(main, ["password", name], input=password + "\n")
    assert result.exit_code == 2
    assert not result.stdout
