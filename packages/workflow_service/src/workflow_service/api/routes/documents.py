"""Documents: upload a file, look at its record, list them, take a sample as one's own."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError

from workflow_service.api.authentication import User
from workflow_service.api.dependencies import Services, UploadSlots
from workflow_service.api.problems import problems
from workflow_service.api.request_faults import OWN_WORDS
from workflow_service.api.routes import PREFIX
from workflow_service.api.views import DocumentPage, DocumentView, SampleList, SampleView
from workflow_service.usecases.documents import upload_document
from workflow_service.usecases.samples import list_samples, read_sample

router = APIRouter(tags=["documents"])

_HOW = "Send a form with the file in the field «file»: curl -F file=@contract.pdf"
_SHOWN = 100  # characters of what the client sent


async def _one_file(request: Request) -> None:
    """Refuse a form that is not one file and say what to send; of several, FastAPI would take the last."""
    said = request.headers.get("content-type", "")
    if not said.lower().startswith("multipart/form-data"):
        what = f"The body is said to be {said[:_SHOWN]!r}" if said else "The body has no Content-Type"
        raise HTTPException(415, f"{what}. {_HOW}")
    found = (await request.form()).getlist("file")
    if not found:
        message = f"is missing. {_HOW}"
    elif len(found) > 1:
        message = f"must be one file, these are {len(found)}"
    elif isinstance(found[0], str):
        message = f"is a text and no file; perhaps the @ is missing. {_HOW}"
    else:
        return
    raise RequestValidationError([{"loc": ("body", "file"), "msg": message, "type": OWN_WORDS}])


@router.post("/documents", status_code=201, dependencies=[Depends(_one_file)], responses=problems(400, 413, 415))
async def upload(
    file: UploadFile, user_id: User, services: Services, slots: UploadSlots, response: Response
) -> DocumentView:
    """Keep a file: PDF, DOCX, Markdown or text."""
    async with slots:  # until here the file is on disk, so a slow client takes no slot
        return await _keep(file.filename or "", file.content_type, await file.read(), user_id, services, response)


@router.get("/documents", responses=problems())
async def list_documents(
    user_id: User,
    services: Services,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    before: Annotated[UUID | None, Query(description="A page's ``next``.")] = None,
) -> DocumentPage:
    """List the user's documents, newest first, and say how large a new one may be."""
    found = await services.documents.list_recent(user_id, limit + 1, before)
    return DocumentPage.of(found, limit, services.settings.max_upload_bytes)


@router.get("/documents/{document_id}", responses=problems(404))
async def get_document(document_id: UUID, user_id: User, services: Services) -> DocumentView:
    """Return the record of a document."""
    document = await services.documents.get(user_id, document_id)
    if document is None:
        raise HTTPException(404, f"There is no document {document_id}.")
    return DocumentView.of(document)


@router.get("/samples")
async def samples(_user_id: User, services: Services) -> SampleList:
    """List the contracts that ship with the service."""
    found = await list_samples(services.settings.samples)
    return SampleList(samples=[SampleView.model_validate(sample) for sample in found])


@router.post("/samples/{name}/documents", status_code=201, responses=problems(404, 413, 415))
async def take_sample(
    name: str, user_id: User, services: Services, slots: UploadSlots, response: Response
) -> DocumentView:
    """Make a document of a sample."""
    async with slots:
        content = await read_sample(services.settings.samples, name)
        if content is None:
            raise HTTPException(404, f"There is no sample {name!r}.")
        return await _keep(name, None, content, user_id, services, response)


async def _keep(
    filename: str, content_type: str | None, content: bytes, user_id: str, services: Services, response: Response
) -> DocumentView:
    document = await upload_document(
        user_id,
        filename,
        content_type,
        content,
        documents=services.documents,
        max_bytes=services.settings.max_upload_bytes,
    )
    response.headers["Location"] = f"{PREFIX}/documents/{document.id}"
    return DocumentView.of(document)
