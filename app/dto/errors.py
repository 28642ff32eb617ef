"""The one error envelope."""

from msgspec import UNSET, UnsetType

from app.dto.base import Reply
from app.services.errors import AppError


class ErrorDetail(Reply, kw_only=True):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None
    n_prompt_tokens: int | UnsetType = UNSET
    n_ctx: int | UnsetType = UNSET


class ErrorReply(Reply, kw_only=True):
    """Every refusal looks like this."""

    error: ErrorDetail

    @classmethod
    def of(cls, error: AppError) -> "ErrorReply":
        """Spell an error."""
        detail = ErrorDetail(message=error.message, type=error.kind, param=error.param, code=error.code)
        for name, value in error.details.items():
            setattr(detail, name, value)
        return cls(error=detail)
