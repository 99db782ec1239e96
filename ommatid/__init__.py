"""What the three programs of Ommatid agree on: the contract, vision, and runtimes."""

from typing import Final

__version__: Final = "0.1.0"
