"""Find the model to start with: the `current` slot of the active model, or `previous` where that does not load."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.loop.protocol import Slot
from agent.loop.slots import LoadedModel
from agent.loop.worker import load_model
from ommatid.errors import OmmatidError

ACTIVE: Final = "active"
SLOTS: Final[tuple[Slot, ...]] = ("current", "previous")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """What the loop starts with; `error` and `reason` say what was wrong with the first slot that did not load."""

    held: LoadedModel | None = None
    slot: Slot | None = None
    error: str | None = None
    reason: str | None = None


def find_model(models: Path, threads: int) -> Start:
    """Load from the first slot that works; none is a state of its own, and no error."""
    failure: Exception | None = None
    for slot in SLOTS:
        folder = models / ACTIVE / slot
        if not folder.is_symlink():
            continue
        try:
            folder = folder.resolve(strict=True)
            held = load_model(folder, folder.name, threads)
        except (OmmatidError, OSError, MemoryError) as error:
            logger.warning("%s: %s", slot, error)
            failure = failure or error
            continue
        logger.info("%s: runs %s", slot, held.digest)
        return Start(held, slot, _class(failure), _text(failure))
    logger.info("%s: no model", models)
    return Start(error=_class(failure), reason=_text(failure))


def _class(error: Exception | None) -> str | None:
    return None if error is None else type(error).__name__


def _text(error: Exception | None) -> str | None:
    return None if error is None else str(error)
