"""One of doctor's checks by its name."""

from typing import Any

from app.commands.checks import Check, CheckContext
from app.commands.doctor import CHECKS
from app.settings import Settings


def looked(name: str, **changes: Any) -> Check:
    """What doctor says under a name of the model and the settings given."""
    model = changes.pop("model", None)
    patient = CheckContext(Settings(**changes), model=model)
    return next(check for check in (look(patient) for look in CHECKS) if check and check.name == name)
