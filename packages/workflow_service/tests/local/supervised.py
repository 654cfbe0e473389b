"""A supervisor in a process of its own, for tests that end it: ``supervised.py HOME SPEC``, tells JSON lines.

SPEC is JSON: ``{"children": [{"name", "code", "vital", "bound"}], "postgresql": bool, "ids": [uid, gid]}``.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from workflow_service.local.children import Command
from workflow_service.local.errors import LocalError, StopRequestedError, log_tail
from workflow_service.local.home import Home
from workflow_service.local.postgresql import PostgreSQL
from workflow_service.local.supervisor import Supervisor


def tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


async def main(home: Home, spec: dict) -> None:
    with home.locked():
        async with Supervisor(home) as supervisor:

            async def body() -> None:
                pids = {}
                if spec.get("postgresql"):
                    server = await PostgreSQL(supervisor, durable=False).start()
                    pids["PostgreSQL"] = server.child.pid
                    tell(url=server.url)
                for child in spec.get("children", []):
                    command = Command(
                        name=child["name"],
                        argv=(sys.executable, "-u", "-c", child["code"]),
                        log=home.logs / f"{child['name']}.log",
                        env={"WORKFLOW_HOME": str(home.path)},
                        stopping=((int(signal.SIGTERM), child.get("bound", 30.0)),),
                        cwd=home.path,
                    )
                    on_death = None if child.get("vital", True) else lambda dead: tell(died=dead.obituary())
                    pids[child["name"]] = supervisor.start(command, on_death).pid
                tell(pids=pids)
                await asyncio.Event().wait()

            await supervisor.run(body)


if __name__ == "__main__":
    spec = json.loads(sys.argv[2])
    if "ids" in spec:  # after the imports: the user may not be able to read our interpreter's folders
        os.setgroups([])
        os.setgid(spec["ids"][1])
        os.setuid(spec["ids"][0])
    try:
        asyncio.run(main(Home.open(Path(sys.argv[1])), spec))
    except StopRequestedError as stop:
        tell(stopped=stop.signal_number)
    except LocalError as error:
        tell(error=str(error), tail=log_tail(error.log) if error.log else "")
        sys.exit(1)
