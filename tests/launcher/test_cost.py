"""What a budget buys, and how costs are told."""

from pathlib import Path

import pytest

from ftl.cloudfile import Limits, load_cloud
from ftl.cost import Price, Spent, budget_problems, limit_s, receipt, sentence
from ftl.errors import ConfigError

PRICE = Price(2.0, 4.0, "g6.xlarge in aws", "a catalog")


def test_budget_buys_time_at_the_dearest_price() -> None:
    assert limit_s(None, 6.0, PRICE) == 5400
    assert limit_s(3600, 6.0, PRICE) == 3600
    assert limit_s(7200, 6.0, PRICE) == 5400
    assert limit_s(7200, None, PRICE) == 7200
    assert limit_s(None, 6.0, None) is None


def test_budget_that_nobody_can_keep_is_a_problem() -> None:
    assert budget_problems(None, None, "") == []
    assert budget_problems(6.0, PRICE, "") == []
    assert "no prices" in str(budget_problems(6.0, None, "there are no prices")[0])
    assert "buys 9 s" in str(budget_problems(0.01, PRICE, "")[0])


def test_costs_are_told_before_and_after() -> None:
    assert sentence(PRICE, 5400) == (
        "costs $2.00 to $4.00 an hour for g6.xlarge in aws (a catalog); at most $6.00, as it stops after 90 min"
    )
    assert "--max-usd" in sentence(PRICE, None)
    assert receipt([Spent(1.5, 2.0), Spent(0.5, 2.0)]) == (
        "2.00 h at $2.00 an hour: about $4.00, transfers and disks apart"
    )


def test_limits_of_the_command_line_are_keys_of_the_cloud_file(tmp_path: Path) -> None:
    (tmp_path / "cloud.yml").write_text("provider: skypilot\ntimeout: 3d\nmax_usd: 100\n")
    cloud = load_cloud(tmp_path / "cloud.yml", Limits(max_usd=5, deadline="2h")).cloud
    assert (cloud.max_usd, cloud.timeout) == (5, 7200)
    assert load_cloud(None, Limits(deadline="90m")).cloud.timeout == 5400


def test_budget_of_a_machine_that_is_not_rented_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--max-usd.*--deadline"):
        load_cloud(None, Limits(max_usd=5))
    with pytest.raises(ConfigError, match="--deadline"):
        load_cloud(None, Limits(deadline="soon"))
