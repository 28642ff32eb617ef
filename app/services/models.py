"""Which models there are: what one model and a folder of models have in common."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from app.services.errors import AppError
from app.services.facts import ModelFacts, RouterFacts
from app.services.model_folder import ModelFolder, Task
from app.services.model_state import Loading, ModelState
from app.services.served_model import ServedModel
from app.services.session import Session


class Models(Protocol):
    """`SingleModel` or `ModelsRouter`. A name is a model's id; without one it is the session's. On the event loop."""

    @property
    def session(self) -> Session | None:
        """The session that `/start`, `/models/load` or the start-up began."""

    @property
    def facts(self) -> ModelFacts | None:
        """Facts of the model that answers; of several, of the session's or of the one that was used last."""

    @property
    def loading(self) -> Loading | None:
        """The load that every request has to wait for."""

    def expect(self, name: str | None = None) -> None:
        """Raise AppError unless a request for this model can be answered, if need be after a load."""

    def find(self, name: str | None = None) -> ServedModel:
        """Give a model without loading it. Raises AppError."""

    def using(self, name: str | None, *, autoload: bool = True) -> AbstractAsyncContextManager[ServedModel]:
        """Hold a model for as long as this lasts; it is loaded first, if need be and allowed. Raises AppError."""

    def must_load(self, name: str | None) -> bool:
        """Whether a request for this model waits for a load."""

    def refuse_autoload(self, name: str | None) -> None:
        """Raise ModelNotLoaded if a request for this model would load it."""

    def name_for(self, task: Task, name: str | None) -> str | None:
        """Give the name of the model that a request for vectors or ranks means, which may name none."""

    async def load_beside(self) -> None:
        """Load the model that stands beside the one that answers, if there is one."""

    def expect_load(self, name: str) -> None:
        """Note that the first model is about to be loaded."""

    async def start(self, session: Session, locate: Callable[[], ModelFolder]) -> None:
        """Load the model of a session, whose folder is looked for on a thread. Raises LoadFailed."""

    async def load(self, name: str) -> str | None:
        """Load a model, or begin to. Gives what went wrong; raises AppError for what is refused."""

    async def unload(self, name: str) -> str | None:
        """Take a model out, or begin to. Gives what went wrong; raises AppError for what is refused."""

    async def states(self) -> list[ModelState]:
        """Say how every model stands, by id. Raises ModelLoading while all have to wait."""

    async def state(self, name: str) -> ModelState:
        """Say how one model stands. Raises ModelNotFound, and ModelLoading while all have to wait."""

    async def props(self, name: str | None, *, autoload: bool = True) -> ModelFacts | RouterFacts | None:
        """Give the facts of a model, which is loaded first, if need be and allowed, or those of the router."""

    def close(self, error: AppError) -> None:
        """Load nothing any more; those who wait for a load get the error."""
