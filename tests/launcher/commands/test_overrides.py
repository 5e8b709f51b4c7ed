"""What `--set` and flags write over a config."""

import pytest

from ftl.commands.overrides import read_overrides
from ftl.errors import ConfigError


def test_assignments_come_after_flags_and_keep_their_text() -> None:
    pairs = read_overrides(["--lora-r", "8"], ["datasets.0.path= a=b"], ())
    assert pairs == [("lora_r", "8"), ("datasets.0.path", " a=b")]


@pytest.mark.parametrize("text", ["lora_r", "=", " =3", "..=3", "datasets.=3"])
def test_assignment_without_a_key_or_a_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--set: '.*': must be key=value; e\.g\. --set learning_rate=1e-4"):
        read_overrides([], [text], ())
