"""Models that are looked for on the hub, downloaded and deleted."""

from collections.abc import Iterable
from typing import Annotated, Literal

from msgspec import Meta
from pydantic import Field

from app.dto.shared.base import Body, Reply
from app.services.downloads.client import Match

_MODEL = "mlx-community/Qwen3-4B-4bit"


class DownloadRequest(Body):
    """A model to download."""

    model: str = Field(
        min_length=1,
        max_length=512,
        examples=[_MODEL],
        description="repo of the model on the hub, org/name; of a repo with several GGUF files org/name:QUANT",
    )


class DeleteRequest(Body):
    """A model to delete."""

    model: str = Field(max_length=512, examples=[_MODEL], description="the name of the model once more")


class DownloadReply(Reply, kw_only=True):
    """The download goes on in the background; `/models/sse` tells how far it is."""

    success: Annotated[Literal[True], Meta(description="always true: it has begun, or waits for its turn")] = True
    id: Annotated[str, Meta(description="name that the model will have in requests")]


class HubModel(Reply, kw_only=True):
    """A model on the hub."""

    id: Annotated[str, Meta(description="repo of the model, as POST /models takes it")]
    downloads: Annotated[int, Meta(description="how often it was downloaded in the last 30 days")]
    likes: Annotated[int, Meta(description="how many people like it")]
    gated: Annotated[bool, Meta(description="whether one has to accept its terms on the hub first")]


class HubModels(Reply, kw_only=True):
    """Models on the hub."""

    object: Literal["list"] = "list"
    data: Annotated[list[HubModel], Meta(description="models with such a name, the most downloaded first")]

    @classmethod
    def of(cls, matches: Iterable[Match]) -> "HubModels":
        """List what a search found."""
        return cls(
            data=[
                HubModel(id=match.id, downloads=match.downloads, likes=match.likes, gated=match.gated)
                for match in matches
            ]
        )
