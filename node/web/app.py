"""The application: routes, and what an error becomes."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from node.store.errors import NoSuchArtefact, NoSuchStudy, StoreError
from node.web.guard import Guard
from node.web.machine import Machine
from node.web.pages import Pages
from node.web.sources import Sources

_FOR_MACHINES = ("/api/", "/metrics", "/healthz", "/readyz")


def create_app(sources: Sources) -> ASGIApp:
    """The page as an ASGI application.

    Only GET is answered: while nobody can log in, nothing can be changed from here.
    """
    # The interactive documentation would load scripts from elsewhere.
    app = FastAPI(title="Osteonode", docs_url=None, redoc_url=None, openapi_url=None)
    pages = Pages(sources)
    app.include_router(pages.router)
    app.include_router(Machine(sources).router)

    def answer(request: Request, status: HTTPStatus, text: str) -> Response:
        if request.url.path.startswith(_FOR_MACHINES):
            return JSONResponse({"detail": text}, status)
        return pages.problem(status, text)

    def not_held(request: Request, error: Exception) -> Response:
        what = "study" if isinstance(error, NoSuchStudy) else "picture"
        return answer(request, HTTPStatus.NOT_FOUND, f"The node does not hold this {what}.")

    def unavailable(request: Request, error: Exception) -> Response:
        return answer(request, HTTPStatus.SERVICE_UNAVAILABLE, f"Not now: {error}.")

    def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = answer(request, HTTPStatus(error.status_code), f"{error.detail}.")
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(NoSuchStudy, not_held)
    app.add_exception_handler(NoSuchArtefact, not_held)
    app.add_exception_handler(StoreError, unavailable)
    app.add_exception_handler(HTTPException, refused)
    return Guard(app, sources.settings.web.host)
