"""What commands can launch on this machine: a program in the runtime's place does what the seed of a config says."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from ftl import bundle

RUNTIME = """
import json, sys, time
from pathlib import Path

job = json.loads(Path(sys.argv[1]).read_text())
run = Path(job["paths"]["run"])
config = json.loads((Path(job["paths"]["bundle"]) / "config.json").read_text())
seed, rate = config["optim"]["seed"], config["optim"]["learning_rate"]
with (run / "events.jsonl").open("a") as file:
    file.write(json.dumps({"t": 0, "attempt": job["attempt"], "event": "phase", "data": {"name": "training"}}) + "\\n")

def end(code, cause):
    verdict = {"attempt": job["attempt"], "exit_code": code, "cause": cause, "message": "it is told to"}
    (run / "exit.json").write_text(json.dumps(verdict))
    sys.exit(code)

if seed == 70:
    end(70, "crash")
if seed == 75 and job["attempt"] == 1:
    end(75, "deadline")
while seed == 99 and not Path(job["env"]["RELEASE"]).exists():
    time.sleep(0.02)
(run / "output").mkdir()
(run / "output/manifest.json").write_text(json.dumps({"files": {}}))
result = {"run_id": job["run_id"], "attempt": job["attempt"], "steps": 7, "epochs": 1, "tokens": 70, "seconds": 1}
result |= {"train_loss_first": 2.0, "train_loss_last": 1000 * rate, "eval_loss_last": 1 - 100 * rate}
(run / "result.json").write_text(json.dumps(result | {"num_parameters": 1, "num_trainable": 1, "tokens_per_s": 1234}))
end(0, "done")
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config of a model and rows that can be read, and a bundle whose code is the program above."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/__init__.py").write_text("")
    (tmp_path / "code/__main__.py").write_text(RUNTIME)
    code = {f"code/ftl_runtime/{path.name}": path for path in (tmp_path / "code").iterdir()}
    monkeypatch.setattr(bundle, "_code", lambda: code)
    tokenizer = Tokenizer(models.WordLevel({"hello": 0, "</s>": 1}, unk_token="hello"))
    (tmp_path / "model").mkdir()
    tokenizer.save(str(tmp_path / "model/tokenizer.json"))
    (tmp_path / "model/tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    (tmp_path / "model/config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "rows.jsonl").write_text('{"text": "hello"}\n')
    (tmp_path / "cfg.yml").write_text(
        "base_model: ./model\nreinit_weights: true\nlearning_rate: 1e-3\noutput_dir: ./out\n"
        "datasets:\n  - path: ./rows.jsonl\n    type: completion\n"
    )
    (tmp_path / "cloud.yml").write_text(f"provider: local\nenv: {{RELEASE: {tmp_path}/release}}\n")
    return tmp_path
