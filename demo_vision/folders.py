"""Where the training writes."""

from pathlib import Path

WORK = Path(__file__).parent.parent / "build" / "demo_vision"
MODEL = WORK / "tiles-nano"
