"""A pool of loop images, and the server that serves it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from killing import World

from csi_core.testing.harness import ServerProcess


@dataclass
class LoopWorld(World):
    """A loop pool on a reflink filesystem, and the server that serves it."""

    directory: Path
    storage: Path
    pool_directory: str = "pool"

    def server(self, **environment: str) -> ServerProcess:
        """Start the server, with a fault armed or a trace asked for."""
        (self.storage / self.pool_directory).mkdir(exist_ok=True)
        config = {
            "driver": {"name": "crash.csi-core.dev", "nodeId": "node-a"},
            "log": {"format": "console", "level": "info"},
            "backends": {
                "loop": {
                    "options": {
                        "pools": {
                            "default": {
                                "path": str(self.storage / self.pool_directory),
                                "allowLoopHost": True,
                                "capacity": "4Gi",
                            }
                        }
                    }
                }
            },
        }
        return ServerProcess(config, self.directory, env=environment)

    def left(self) -> list[str]:
        return [str(path) for path in (self.storage / self.pool_directory / "images").glob("*.img")]
