import pytest
from pydantic import ValidationError

from ftl.cloud import CloudSection
from ftl.plan import plan


@pytest.mark.parametrize(
    "address",
    ["s3://my-bucket/place", "s3://a.b1", "gs://my_bucket/place", "hf://buckets/user/name", "file:///srv/runs"],
)
def test_address_of_a_store_is_taken(address: str) -> None:
    assert CloudSection(provider="local", checkpoints=address).checkpoints == address


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("s3://No_Such_Bucket/place", "'No_Such_Bucket' is not 3 to 63 lower-case letters"),
        ("s3://ab/place", "'ab' is not 3 to 63"),
        ("gs://-bucket/place", "'-bucket' is not"),
        ("s3:///place", "name a place"),
        ("ftp://host/place", "must begin with s3://"),
        ("hf://models/user/name", "hf://buckets/user/name"),
        ("s3://bucket/place?token=abc", "credentials go into `secrets`"),
    ],
)
def test_address_that_cannot_be_one_is_refused_with_the_reason(address: str, told: str) -> None:
    with pytest.raises(ValidationError, match="checkpoints") as refused:
        CloudSection(provider="local", checkpoints=address)
    assert told in str(refused.value)


def test_bound_on_uploads_is_in_the_job_and_no_smaller_than_a_tenth_of_a_megabyte() -> None:
    cloud = CloudSection(provider="local", max_upload_mb_per_s=2.5)
    assert plan(cloud, {}, run_id="run-a", mounts=()).max_upload_mb_per_s == 2.5
    with pytest.raises(ValidationError, match="max_upload_mb_per_s"):
        CloudSection(provider="local", max_upload_mb_per_s=0.05)
