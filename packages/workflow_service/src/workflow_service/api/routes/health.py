"""Health: whether the process lives, and whether it can do its work."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from workflow_service.api.dependencies import Ready
from workflow_service.api.problems import ProblemResponse

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live")
async def live() -> dict[str, str]:
    """Answer: the process lives and its event loop turns."""
    return {"status": "live"}


@router.get("/ready")
async def ready(readiness: Ready) -> Response:
    """Say which parts can be used; 503 when one cannot."""
    checks = dict(await readiness.checks())
    missing = [name for name, is_ready in checks.items() if not is_ready]
    if missing:
        detail = f"Cannot be used now: {', '.join(missing)}."
        return ProblemResponse(503, "The service is not ready", detail, kind="unavailable", checks=checks)
    return JSONResponse({"status": "ready", "checks": checks})
