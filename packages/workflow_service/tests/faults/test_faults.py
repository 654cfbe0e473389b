"""The fault matrix in short: every part of the service is killed in the middle of a few runs."""

import fault_campaign
import fault_servers
import pytest


@pytest.mark.timeout(240)
@pytest.mark.parametrize("broker", ["filesystem", "redis"])
def test_every_run_ends_exactly_once_whatever_is_killed(broker: str) -> None:
    """kill -9 of workers, API, broker and PostgreSQL in turn: each run succeeds once, progress never goes back."""
    if reason := fault_servers.absence(broker):
        pytest.skip(reason)
    outcome = fault_campaign.campaign(broker, fault_campaign.VICTIMS, 20, workers=1)
    assert outcome.complaints() == [], outcome
