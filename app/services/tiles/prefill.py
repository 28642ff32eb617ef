"""Computing a prompt before somebody sends it."""

from app.services.generation import Finished, GenerationRequest
from app.services.served_model import ServedModel


async def prefill(model: ServedModel, prompt: GenerationRequest) -> None:
    """Compute what all conversations begin with that begin like this one, into the prefix cache. Raises AppError.

    To cancel this stops it within one engine step.
    """
    tokens = await model.model.shared_prefix(prompt)
    if not tokens:
        return
    generation = await model.generate([GenerationRequest(prompt=tuple(tokens), max_tokens=0)])
    try:
        while not any(isinstance(event, Finished) for event in await generation.ready()):
            pass
    finally:
        generation.cancel()
