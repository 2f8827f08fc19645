"""The four phases as one would write them for pyinfra."""
import os
from pathlib import Path

from pyinfra import host
from pyinfra.facts.server import Command, OsRelease
from pyinfra.operations import files, server

PHASES = Path(os.environ["BENCH_PHASES"])
WORK = Path(os.environ["BENCH_WORK"])

files.directory(name="bootstrap, the directory", path="/srv/bench")
files.file(name="bootstrap, the marker", path="/srv/bench/bootstrapped")

settings = host.get_fact(OsRelease)
processors = int(host.get_fact(Command, command="nproc"))
if settings["id"] != "debian" or processors < 1:
    raise ValueError(f"{host.name}: {settings}, {processors}")

configuration = files.template(
    name="configure", src=str(WORK / "app.conf.j2"), dest="/srv/bench/app.conf", mode="644", host_name=host.name
)
server.shell(
    name="configure, what follows from a change",
    commands=[(WORK / "changed.sh").read_text()],
    _if=configuration.did_change,
)
server.shell(name="test", commands=[(PHASES / "test.sh").read_text()])
