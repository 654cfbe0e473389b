"""Workflows: which there are, and run one."""

from typing import Annotated

from fastapi import APIRouter, Header, Response

from workflow_service.api.authentication import User
from workflow_service.api.dependencies import Services
from workflow_service.api.json_body import JsonRoute
from workflow_service.api.problems import problems
from workflow_service.api.routes import PREFIX
from workflow_service.api.views import Accepted, ExecuteRequest, WorkflowList, WorkflowView
from workflow_service.domain.run import NewRun
from workflow_service.usecases.submission import submit_run

router = APIRouter(prefix="/workflows", tags=["workflows"], route_class=JsonRoute)

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key and request give the same run; the same key with another request is 409.",
    ),
]


@router.get("")
async def workflows(_user_id: User, services: Services) -> WorkflowList:
    """List the workflows."""
    by_name = sorted(services.workflows.values(), key=lambda workflow: workflow.name)
    return WorkflowList(workflows=[WorkflowView.model_validate(workflow) for workflow in by_name])


@router.post("/execute", status_code=202, responses=problems(400, 409, 413, 415))
async def execute(
    request: ExecuteRequest,
    user_id: User,
    services: Services,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Accepted:
    """Commit a run of a workflow; a worker takes it from there."""
    new = NewRun(user_id, request.workflow_name, request.input_data, request.options.chosen(), idempotency_key)
    run, _ = await submit_run(
        new,
        runs=services.runs,
        queue=services.queue,
        workflows=services.workflows,
        documents=services.documents,
        webhooks=services.webhook_sender,
    )
    response.headers["Location"] = f"{PREFIX}/runs/{run.id}"
    return Accepted(run_id=run.id, status=run.status)
