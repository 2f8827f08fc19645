"""The same scripts as everybody else's, sent as they are."""
import os
from pathlib import Path

from pyinfra.operations import server

PHASES = Path(os.environ["BENCH_PHASES"])

for phase in ("bootstrap", "settings", "configure", "test"):
    server.shell(name=phase, commands=[(PHASES / f"{phase}.sh").read_text()])
