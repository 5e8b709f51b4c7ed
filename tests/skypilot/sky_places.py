"""A home directory for SkyPilot with small catalogs. Their prices are invented: round numbers that nobody charges."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

AWS_IMAGE = "ami-785db401"
"""An image that moto has in every region."""
SKY_PYTHON = Path(__file__).parents[2] / ".venv/sky/bin/python"

_ACCELERATORS = """AcceleratorName,Clouds
A100,"['AWS', 'GCP']"
A100-80GB,"['AWS', 'GCP', 'RunPod']"
H100,"['AWS', 'GCP', 'RunPod']"
L4,"['AWS', 'GCP', 'RunPod']"
RTX4090,"['RunPod']"
T4,"['AWS', 'GCP']"
"""
_VMS = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,AvailabilityZone"
_INFO = "\"{'Gpus': [{'Name': 'any', 'MemoryInfo': {'SizeInMiB': 81559}}]}\""
_AWS = f"""{_VMS},Arch,LocalDiskType,NVMeSupported,LocalDiskSize,LocalDiskCount,MaximumEfaInterfaces
m6i.2xlarge,,,8,32,,1.00,0.50,us-east-1,use1-az1,x86_64,,,,,
m6i.2xlarge,,,8,32,,1.00,0.50,eu-west-1,euw1-az1,x86_64,,,,,
g6.xlarge,L4,1,4,16,{_INFO},2.00,1.00,us-east-1,use1-az1,x86_64,,,,,
g6.xlarge,L4,1,4,16,{_INFO},3.00,1.50,eu-west-1,euw1-az1,x86_64,,,,,
p5.48xlarge,H100,8,192,2048,{_INFO},80.00,40.00,us-east-1,use1-az1,x86_64,,,,,
"""
_GCP = f"""{_VMS}
n2-standard-8,,,8,32,,1.00,0.25,us-central1,us-central1-a
g2-standard-4,,,4,16,,1.00,0.50,us-central1,us-central1-a
a3-highgpu-8g,,,208,1872,,10.00,3.00,us-central1,us-central1-a
a2-highgpu-1g,,,12,85,,2.00,1.00,us-central1,us-central1-a
,A100,1,,,A100,3.00,1.00,us-central1,us-central1-a
,L4,1,,,L4,3.00,1.50,us-central1,us-central1-a
,H100,8,,,H100,80.00,27.00,us-central1,us-central1-a
"""
_RUNPOD = f"""{_VMS}
1x_RTX4090_SECURE,RTX4090,1,6,41,RTX4090,0.70,,US,US-GA-1
1x_A100-80GB_SECURE,A100-80GB,1,8,117,A100-80GB,2.00,,US,US-GA-1
"""
_IMAGES = "Tag,Region,OS,OSVersion,ImageId,CreationDate\n"
_FILES = {
    "common/accelerators.csv": _ACCELERATORS,
    "common/metadata.csv": "GPU,MemoryGB\nH100,80\nL4,24\n",
    "aws/vms.csv": _AWS,
    "aws/images.csv": _IMAGES
    + "".join(
        f"skypilot:custom-{kind},{region},ubuntu,22.04,{AWS_IMAGE},20250101\n"
        for kind in ("gpu-ubuntu-cuda13", "gpu-ubuntu", "cpu-ubuntu")
        for region in ("us-east-1", "eu-west-1")
    ),
    "aws/instance_quota_mapping.csv": "InstanceType,OnDemandInstanceCode,SpotInstanceCode\n",
    # the zones of moto's account; the name holds the start of the md5 of its user's id
    "aws/az_mappings-317e5726.csv": "AvailabilityZone,AvailabilityZoneName\nuse1-az1,us-east-1b\neuw1-az1,eu-west-1b\n",
    "gcp/vms.csv": _GCP,
    "gcp/images.csv": _IMAGES + "skypilot:custom-gpu-ubuntu-cuda13,,ubuntu,22.04,projects/p/global/images/i,20250101\n",
    "gcp/accelerator_quota_mapping.csv": "Accelerator,CPU,SpotCPU\n",
    "runpod/vms.csv": _RUNPOD,
    "runpod/images.csv": _IMAGES,
}


def make_home(home: Path) -> Path:
    """Put the catalogs below `home`, marked as changed by hand, so that SkyPilot never fetches others over them."""
    catalogs = home / ".sky/catalogs/v8"
    for name, content in _FILES.items():
        for path, text in ((catalogs / name, content), (catalogs / ".meta" / f"{name}.md5", "changed by hand")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return home


@pytest.fixture(scope="session")
def sky_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("sky-home"))


def write_config(folder: Path, cloud: str) -> tuple[Path, Path]:
    """A config for `ftl train`, with its model and its data, and a cloud file."""
    model, rows, config, cloud_file = folder / "model", folder / "rows.jsonl", folder / "cfg.yml", folder / "cloud.yml"
    model.mkdir(parents=True)
    Tokenizer(models.WordLevel({"hello": 0, "</s>": 1}, unk_token="hello")).save(str(model / "tokenizer.json"))
    (model / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    (model / "config.json").write_text('{"model_type": "llama"}')
    rows.write_text('{"text": "hello"}\n')
    config.write_text(
        f"base_model: {model}\nreinit_weights: true\nlearning_rate: 1e-4\noutput_dir: {folder}/out\n"
        f"datasets:\n  - path: {rows}\n    type: completion\n"
    )
    cloud_file.write_text(cloud)
    return config, cloud_file
