"""Health: whether the process lives, whether it can do its work, how its loops are, and figures for Prometheus."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from workflow_service.api.dependencies import Loops, Ready, Services
from workflow_service.api.problems import ProblemResponse, problems
from workflow_service.gateways.metrics import CONTENT_TYPE, exposition
from workflow_service.ports import StoreUnavailableError

router = APIRouter(tags=["health"])


@router.get("/health/live")
async def live() -> dict[str, str]:
    """Answer: the process lives and its event loop turns."""
    return {"status": "live"}


@router.get("/health/ready")
async def ready(readiness: Ready) -> Response:
    """Say which parts can be used; 503 when one cannot."""
    checks = dict(await readiness.checks())
    missing = [name for name, is_ready in checks.items() if not is_ready]
    if missing:
        detail = f"Cannot be used now: {', '.join(missing)}."
        return ProblemResponse(503, "The service is not ready", detail, kind="unavailable", checks=checks)
    return JSONResponse({"status": "ready", "checks": checks})


@router.get("/health/loops", responses=problems())
async def loops(measure: Loops) -> Response:
    """Tell what the event loops of this process do, and what its pools hold."""
    return JSONResponse(measure())


@router.get("/metrics", response_class=PlainTextResponse, responses=problems())
async def metrics(services: Services) -> Response:
    """Tell the figures of this server's processes, and how many runs wait."""
    try:
        statistics = await services.count_runs()
    except StoreUnavailableError:
        statistics = None  # what the processes themselves know is told all the more
    return Response(exposition(statistics), media_type=CONTENT_TYPE)
