"""Which language model the settings choose."""

import json

from workflow_service.domain.language_model import ModelPrices
from workflow_service.domain.run import JsonObject
from workflow_service.gateways.chat_client import ModelChoice
from workflow_service.ports import InvalidSettingError
from workflow_service.settings import Settings


def model_choice(settings: Settings) -> ModelChoice | None:
    """Return which language model is configured; None without one. Raises InvalidSettingError."""
    if settings.model is None:
        return None
    prices = None
    if settings.model_input_price is not None and settings.model_output_price is not None:
        prices = ModelPrices(settings.model_input_price, settings.model_output_price)
    return ModelChoice(
        settings.model,
        key=settings.model_key.get_secret_value() if settings.model_key else None,
        base_url=settings.model_base_url,
        temperature=None if settings.model_temperature == "provider" else settings.model_temperature,
        max_tokens=settings.model_max_tokens,
        timeout=settings.model_timeout,
        attempts=settings.model_attempts,
        concurrency=settings.model_concurrency,
        requests_per_minute=settings.model_requests_per_minute,
        prices=prices,
        method=settings.model_structured_output,
        options=_model_options(settings),
    )


def _model_options(settings: Settings) -> JsonObject:
    try:
        options = json.loads(settings.model_options.get_secret_value())
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise InvalidSettingError("WORKFLOW_MODEL_OPTIONS is no JSON object")
    return options
