"""The four phases by parallel-ssh: four commands over one connection to each host, all hosts at once.

usage: parallel_ssh.py INVENTORY.json

parallel-ssh does not check host keys by itself, so this does: against the pinned ones, after the key exchange and before
authentication.
"""
import base64
import json
import os
import re
import sys
from pathlib import Path

from pssh.clients.native import ParallelSSHClient, single

PHASES = Path(os.environ["BENCH_PHASES"])


class CheckedClient(single.SSHClient):
    """A connection to a host whose key is the pinned one."""

    pinned: dict = {}

    def _init_session(self, retries=1):
        super()._init_session(retries)
        offered = self.session.hostkey()[0]
        if offered != self.pinned[self.host]:
            raise RuntimeError(f"{self.host}: the host key is not the pinned one")


def check(phase, outputs):
    """Every host has ended the phase well, and said what it should."""
    for output in outputs:
        said = "\n".join(output.stdout)
        if output.exit_code != 0:
            sys.exit(f"{output.host}: {phase} ended with {output.exit_code}: " + "\n".join(output.stderr))
        if phase == "settings" and not re.match(r"os=debian \d+\nprocessors=\d+$", said):
            sys.exit(f"{output.host}: {phase} said {said!r}")


def main():
    inventory = json.loads(Path(sys.argv[1]).read_text())
    hosts = [host["address"] for host in inventory]
    CheckedClient.pinned = {h["address"]: base64.b64decode(h["hostKeys"][0].split()[1]) for h in inventory}
    # The parallel client looks its connections' class up there.
    sys.modules[ParallelSSHClient.__module__].SSHClient = CheckedClient
    client = ParallelSSHClient(
        hosts, user="root", pkey=inventory[0]["key"], pool_size=100, num_retries=1, allow_agent=False, identity_auth=False
    )
    for phase in ("bootstrap", "settings", "configure", "test"):
        outputs = client.run_command((PHASES / f"{phase}.sh").read_text(), use_pty=False)
        client.join(outputs)
        check(phase, outputs)
    print(f"{len(outputs)} hosts")


main()
