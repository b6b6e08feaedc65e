"""The application: routes under ``/v1``, problems, the OpenAPI document."""

# No postponed annotations: the framework could not resolve those of functions inside create_app.

from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI
from sqlalchemy import text

from blindtune.server.api import jobs, messages, studies, tokens, uploads, watching
from blindtune.server.api.asking import Here
from blindtune.server.api.jobs import JobRequest
from blindtune.server.api.links import link
from blindtune.server.api.messages import MessageRequest
from blindtune.server.api.problems import Problem, answer_problems, documented
from blindtune.server.api.tokens import TokenRequest
from blindtune.server.metrics import Gauges, Metrics, standing
from blindtune.server.page import page
from blindtune.server.service import Service
from blindtune.version import __version__

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(
    service: Service,
    *,
    lifespan: Lifespan | None = None,
    stopping: Callable[[], bool] = lambda: False,
    elsewhere: bool = False,
) -> FastAPI:
    """The application over a service.

    Args:
        lifespan: run around the application, such as its workers'.
        stopping: whether the server is about to end; streams of events then do.
        elsewhere: whether trainings take the memory of other machines, of which nothing is known here.
    """
    app = FastAPI(
        title="blindtune",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        lifespan=lifespan,
    )
    app.state.service, app.state.running = service, defaultdict(int)
    app.state.readers, app.state.stopping = defaultdict(int), stopping
    app.state.elsewhere = elsewhere or service.database.postgresql

    def states() -> Gauges:
        with service.database.reading() as db:
            return standing(db)

    app.state.metrics = Metrics(states)

    @app.get("/v1/health", tags=["operation"])
    async def health() -> dict[str, str]:
        """The process answers, however busy its threads are."""
        return {"status": "ok"}

    @app.get("/v1/ready", tags=["operation"], responses={503: documented(503)[503]})
    def ready(here: Here) -> dict[str, str]:
        """The process can do its work: its database answers."""
        with here.database.reading() as db:
            db.execute(text("SELECT 1"))
        return {"status": "ok"}

    for module in (studies, messages, uploads, jobs, tokens, watching):
        app.include_router(module.router)
    app.include_router(page())
    answer_problems(app)
    _extend_document(app)
    return app


def _extend_document(app: FastAPI) -> None:
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        schemas = document["components"]["schemas"]
        bodies = (Problem, JobRequest, MessageRequest, TokenRequest)
        schemas |= {m.__name__: m.model_json_schema() for m in bodies}
        link(document)
        return document

    # As FastAPI's guide extends a document.
    app.openapi = openapi  # type: ignore[method-assign]
