"""The JSON file that `deepspeed` names: beside the config, in the working directory, or one of those that ftl ships."""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ftl.packaged import packaged

FOLDER = "deepspeed_configs"


@dataclass(frozen=True)
class Settings:
    """What was read, and a sentence for the user where it is not the file that the config names."""

    values: dict[str, Any]  # Any: JSON
    note: str | None = None


def read_settings(given: str, config_path: Path) -> Settings:
    """The settings in the file `given`. Raises ValueError with what is wrong with it."""
    for place in (config_path.parent, Path.cwd()):
        path = place / Path(given).expanduser()
        if path.is_file():
            return Settings(_parsed(path, given))
    shipped = _shipped(given)
    if shipped is None:
        names = ", ".join(sorted(path.name for path in packaged(FOLDER).glob("*.json")))
        raise ValueError(
            f"no such file, beside the config or in the working directory; ftl ships {FOLDER}/ with {names}"
        )
    return Settings(_parsed(shipped, given), f"read as the file that ftl ships: `ftl fetch {FOLDER}` copies it here")


def _shipped(given: str) -> Path | None:
    """`deepspeed_configs/zero2.json`, whatever stands before it, or its name alone."""
    path = PurePosixPath(given)
    if path.parent.name not in ("", FOLDER):
        return None
    found = packaged(FOLDER) / f"{path.name.removesuffix('.json')}.json"
    return found if found.is_file() else None


def _parsed(path: Path, given: str) -> dict[str, Any]:  # Any: JSON
    try:
        values = json.loads(path.read_text("utf-8"))
    except OSError as e:
        raise ValueError(f"cannot be read: {e.strerror or e}") from e
    except json.JSONDecodeError as e:
        raise ValueError(f"line {e.lineno} of it is not JSON: {e.msg}") from e
    except ValueError as e:
        raise ValueError("is not text in UTF-8") from e
    if not isinstance(values, dict):
        raise ValueError("must hold one mapping, {...}")
    return values
