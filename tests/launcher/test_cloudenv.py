"""What may not stand under `env` of a cloud file."""

from pathlib import Path

import pytest

from ftl.cloudfile import load_cloud
from ftl.errors import ConfigError


def refusal(tmp_path: Path, env: str) -> str:
    (tmp_path / "cloud.yml").write_text(f"provider: local\nenv:\n  {env}\n")
    with pytest.raises(ConfigError) as refused:
        load_cloud(tmp_path / "cloud.yml")
    return str(refused.value)


@pytest.mark.parametrize(
    "env",
    [
        "MY_TOKEN: canary0",
        "AWS_SESSION_TOKEN: canary0",
        "DATABASE: https://ann:canary0@host",
        "ROWS: https://bucket/rows?X-Amz-Signature=canary0",
    ],
)
def test_secret_is_refused_without_showing_it(tmp_path: Path, env: str) -> None:
    message, name = refusal(tmp_path, env), env.partition(":")[0]
    assert f"cloud.yml:3: env.{name}: looks like a secret" in message
    assert f"write `secrets: [{name}]`, and `export {name}=...`" in message
    assert "canary" not in message


@pytest.mark.parametrize("name", ["'A=1;rm -rf'", "lower", "'A B'", "''", "'A\\n'"])
def test_name_that_is_no_variable_is_refused(tmp_path: Path, name: str) -> None:
    assert "cloud.yml" in refusal(tmp_path, f"{name}: x")


@pytest.mark.parametrize(
    "name, secret", [("HF_ENDPOINT", "HF_TOKEN"), ("WANDB_BASE_URL", "WANDB_API_KEY")], ids=["hub", "wandb"]
)
def test_server_that_would_get_a_token_is_taken_from_the_users_own_shell_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, secret: str
) -> None:
    monkeypatch.delenv(name, raising=False)
    told = f"your {secret} would be sent there, and this shell does not name that server"
    assert told in refusal(tmp_path, f"{name}: https://evil.example")
    monkeypatch.setenv(name, "https://mine.example")
    assert told in refusal(tmp_path, f"{name}: http://mine.example")
    (tmp_path / "cloud.yml").write_text(f"provider: local\nenv: {{{name}: https://mine.example/}}\n")
    assert load_cloud(tmp_path / "cloud.yml").cloud.env == {name: "https://mine.example/"}


def test_plain_variables_are_taken(tmp_path: Path) -> None:
    env = {"TOKENIZERS_PARALLELISM": "false", "HF_ENDPOINT": "https://huggingface.co", "MONKEY": "1"}
    (tmp_path / "cloud.yml").write_text("provider: local\nenv:\n" + "".join(f"  {k}: '{v}'\n" for k, v in env.items()))
    assert load_cloud(tmp_path / "cloud.yml").cloud.env == env
