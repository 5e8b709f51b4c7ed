"""No file that others made is read in a way that can run code or write outside its place."""

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_FORBIDDEN = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "yaml.load", "yaml.unsafe_load", "os.system",
    "eval", "exec", "marshal.loads", "shutil.unpack_archive", "tarfile.open", "zipfile.ZipFile", "os.popen",
}  # fmt: skip
_MEANT = {
    ("launcher/ftl/formats/python.py", "exec"),
    # ftl's own bundles, on the user's own volume of Modal or in a bucket: unpacked with Python's filter for data.
    ("launcher/ftl/bundletar.py", "tarfile.open"),
    ("runtime/ftl_runtime/modal_entry.py", "tarfile.open"),
}


def _calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def _sources() -> list[Path]:
    return [path for package in ("launcher", "runtime") for path in sorted((ROOT / package).rglob("*.py"))]


def _is_true(call: ast.Call, name: str) -> bool:
    return any(
        key.arg == name and isinstance(key.value, ast.Constant) and key.value.value is True for key in call.keywords
    )


def test_nothing_unpickles_unpacks_or_evaluates_what_it_was_given() -> None:
    found = [
        (str(path.relative_to(ROOT)), name)
        for path in _sources()
        for name, call in _calls(path)
        if name in _FORBIDDEN or _is_true(call, "shell") or _is_true(call, "allow_pickle")
    ]
    assert set(found) - _MEANT == set()


def test_archives_are_unpacked_with_the_filter_for_data_alone() -> None:
    unpacked = [
        (path.name, [ast.unparse(key.value) for key in call.keywords if key.arg == "filter"])
        for path in _sources()
        for name, call in _calls(path)
        if name.rpartition(".")[2] in ("extractall", "extract")
    ]
    assert unpacked == [("bundletar.py", ["'data'"]), ("modal_entry.py", ["'data'"])]


def test_torch_reads_weights_only_here_and_in_the_trainer_of_transformers() -> None:
    transformers = find_spec("transformers")
    if transformers is None or transformers.origin is None:
        pytest.skip("transformers is not installed")
    trainer = Path(transformers.origin).parent / "trainer.py"
    loads = [
        (path.name, call) for path in (*_sources(), trainer) for name, call in _calls(path) if name == "torch.load"
    ]
    assert {"fsdp.py", "zerostates.py", "trainer.py"} <= {name for name, _ in loads}
    assert [f"{name}:{call.lineno}" for name, call in loads if not _is_true(call, "weights_only")] == []


def test_table_of_attacks_names_tests_that_are_there() -> None:
    table = (ROOT / "docs/security.md").read_text()
    rows = [int(number) for number in re.findall(r"^\| (\d+) \|", table, re.M)]
    assert rows == list(range(1, 26))
    named = set(re.findall(r"`((?:[\w/]+\.py)::test_\w+)`", table))
    assert len(named) >= 25
    missing = []
    for entry in named:
        file, test = entry.split("::")
        path = ROOT / "tests" / file
        if not path.is_file() or f"def {test}(" not in path.read_text():
            missing.append(entry)
    assert missing == []
