"""Secrets as canaries: after a run with a push that fails and one that works, none is where it should not be."""

import base64
import contextlib
import io
import json
import os
import re
import socket
import sqlite3
import zipfile
from pathlib import Path
from threading import Event, Thread

from canaries import below, contents, forms, leaks
from commandline import Ftl, run_ids
from hub_server import HubServer
from project import make_project

CANARIES = {
    "HF_TOKEN": "hf_CanaryAbCdEfGhIjKlMn0123",
    "WANDB_API_KEY": "canary-wandb/5+e1f0a9c7d3b2",
    "DATABASE": "canary-named-8c41e0b5a7",
}


class Processes(Thread):
    """Notes the command line of every process that names a directory, until its end."""

    def __init__(self, below: Path) -> None:
        super().__init__(daemon=True)
        self._below = os.fsencode(below)
        self.commands: set[bytes] = set()
        self._over = Event()

    def run(self) -> None:
        while not self._over.wait(0.1):
            for entry in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    command = (entry / "cmdline").read_bytes()
                    if self._below in command:
                        self.commands.add(command)

    def end(self) -> None:
        self._over.set()
        self.join()


def test_search_finds_a_canary_however_it_is_packed(tmp_path: Path) -> None:
    secret = CANARIES["HF_TOKEN"]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("data.pkl", f"x{secret}")
    for content in (packed.getvalue(), *(base64.b64encode(f"{'y' * n}{secret}zz".encode()) for n in range(3))):
        assert leaks({"file": content}, list(forms(secret)))
    database = sqlite3.connect(tmp_path / "requests.db")
    database.execute("CREATE TABLE requests (body TEXT)")
    # Across the end of a page, where the file itself holds it in two pieces.
    database.executemany(
        "INSERT INTO requests VALUES (?)", [("x" * n + secret + "y" * 9000,) for n in range(4000, 4100)]
    )
    database.commit()
    database.close()
    assert len(leaks(below(tmp_path), [secret.encode()])) > 99


def test_no_artefact_of_a_whole_run_holds_a_secret_or_names_the_machine(
    ftl: Ftl, own_state: Path, tmp_path: Path
) -> None:
    """Every name is an attack too: of the config file, the output directory, and the store."""
    project, bucket, cache = tmp_path / "project", tmp_path / "bucket", tmp_path / "cache"
    output = "$(touch pwned)`touch pwned`' out"
    make_project(project, num_rows=24, num_epochs=1, hub_model_id="ann/model", output_dir=f"./{output}")
    config = (project / "cfg.yml").rename(project / "x; touch pwned|sh.yml")
    (project / ".env").write_text(f"HF_TOKEN={CANARIES['HF_TOKEN']}\n")
    (project / "model/.env").write_text(f"HF_TOKEN={CANARIES['HF_TOKEN']}\n")
    cloud = tmp_path / "cloud.yml"
    cloud.write_text(f"provider: local\nsecrets: [HF_TOKEN, WANDB_API_KEY, DATABASE]\ncheckpoints: file://{bucket}\n")
    with HubServer() as hub:
        hub.accounts[CANARIES["HF_TOKEN"]] = {"name": "ann", "auth": {"accessToken": {"role": "write"}}}
        hub.fail(503, times=1000, path="/preupload/")
        online = {
            **CANARIES,
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HOME": str(tmp_path / "hf"),
            "FTL_STORE_PATIENCE_S": "2",
            "FTL_CACHE_DIR": str(cache),
        }
        sweep = tmp_path / "sweep.yml"
        sweep.write_text("learning_rate: [0.001, 0.002]\n")
        plan = ("--sweep", sweep, "--dry-run", "--set", "push_to_hub=false")
        planned = ftl("train", config, "--cloud", cloud, *plan, cwd=project, **online)
        assert planned.returncode == 0, planned.stderr
        processes = Processes(own_state)
        processes.start()
        trained = ftl("train", config, "--cloud", cloud, "--json", cwd=project, **online)
        processes.end()
        assert trained.returncode == 76, trained.stderr
        assert [command for command in processes.commands if b"ftl_runtime.checkpoint.sync" in command]
        (run_id,) = run_ids(ftl)
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", run_id)
        hub.heal()
        pushed = ftl("push", run_id, cwd=project, **online)
        assert pushed.returncode == 0, pushed.stderr
        logs = ftl("logs", run_id, cwd=project, **online)
        shown = ftl("ps", "--json", cwd=project, **online)
        again = ftl("reproduce", "ann/model", tmp_path / "again", cwd=project, **online)
        assert again.returncode == 0, again.stderr
        kept = {
            f"{repo.id}@{commit}/{name}": content
            for repo in hub.repositories.values()
            for commit, files in repo.commits.items()
            for name, content in files.items()
        }
        kept |= {f"object {oid}": content for oid, content in hub.objects.items()}
    told = {
        f"{which} of ftl {done.args[1]}": text.encode()
        for done in (planned, trained, pushed, logs, shown, again)
        for which, text in (("stdout", done.stdout), ("stderr", done.stderr))
    }
    (project / ".env").unlink()
    (project / "model/.env").unlink()
    commands = {f"command line {number}": command for number, command in enumerate(processes.commands)}
    artefacts = kept | told | commands | below(own_state, project, bucket, cache, tmp_path / "again")
    assert "model.safetensors" in {Path(name).name for name in kept}, "nothing was delivered"
    assert any("optimizer.pt!" in place for name, content in artefacts.items() for place, _ in contents(name, content))
    (result,) = own_state.glob("runs/*/result.json")
    assert json.loads(result.read_text())["datasets"][0]["label"] == "./rows.jsonl"
    secrets = [form for secret in CANARIES.values() for form in forms(secret)]
    assert leaks(artefacts, secrets) == []
    assert not [name for name in artefacts if Path(name).name in ("training_args.bin", ".env")]
    assert not list(tmp_path.rglob("pwned"))
    model = project / output
    delivered = kept | below(model, bucket)
    places = [str(tmp_path), str(own_state), str(Path.home()) + os.sep, socket.gethostname()]
    assert leaks(delivered, [place.encode() for place in places if len(place) > 6]) == []
