"""The external services, as the API tells of them."""

import httpx
import pytest
from pydantic import SecretStr

from workflow_service.settings import ServiceSettings, Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """One of the two services has a key."""
    return settings.model_copy(update={"services": {"weatherapi": ServiceSettings(api_key=SecretStr("s3cret"))}})


@pytest.mark.needs("postgres")
def test_services_tell_their_operations_and_no_secrets(client: httpx.Client) -> None:
    """Names, schemas, whether they are configured; nothing that is set."""
    answer = client.get("/api/v1/services")
    assert answer.status_code == 200
    assert "s3cret" not in answer.text
    google, weather = answer.json()["services"]
    assert (google["name"], google["is_configured"]) == ("google_places", False)
    assert (weather["name"], weather["is_configured"]) == ("weatherapi", True)
    assert set(weather["operations"]) == {"current", "forecast", "alerts", "search"}
    assert weather["operations"]["current"]["required"] == ["q"]
    assert set(google["operations"]) == {"search_nearby", "search_text", "details"}
