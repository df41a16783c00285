"""A process that writes to the store named on its command line and prints what was answered, until it is killed.

Run by test_durability. Each line is `KEY REVISION`, written in one piece once the commit has returned.
"""

from __future__ import annotations

import asyncio
import os
import sys

from korch.runtime import log
from korch.runtime.context import Runtime
from korch.storage import Storage

WRITERS = 16


async def write(storage: Storage, writer: int) -> None:
    value = b'{"rv":"","padding":"' + b"x" * 500 + b'"}'
    count = 0
    while True:
        key = f"/pods/{writer}/{storage.revision()}-{count}"
        revision, _ = await storage.commit([(key.encode(), value, 0, 7, {"app": "web"}, {"node": ""}, [])])
        os.write(1, f"{key} {revision}\n".encode())
        if count % 5 == 4:
            await storage.commit([(key.encode(), None, revision, -1, {}, {}, [])])
            os.write(1, f"{key} 0\n".encode())
        count += 1


async def main() -> None:
    storage = Storage.open(sys.argv[1], Runtime())
    async with asyncio.TaskGroup() as group:
        # Compactions and snapshots all the time, so that kills also fall into them.
        group.create_task(storage.run(interval_s=0.01, log_bytes_max=0))
        for writer in range(WRITERS):
            group.create_task(write(storage, writer))


log.configure(level="error")
asyncio.run(main())
