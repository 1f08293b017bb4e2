"""robots: urllib's parser, behind a dictionary of tasks so that each file is fetched once."""

import asyncio
import time
from urllib.robotparser import RobotFileParser

FILES = {"a.example": (200, "user-agent: *\ndisallow: /private"), "b.example": (503, ""), "c.example": (404, "")}
requests = 0


async def fetch(host: str) -> tuple[int, str]:
    global requests
    requests += 1
    await asyncio.sleep(0.01)
    return FILES[host]


async def look_up(host: str) -> RobotFileParser:
    # RobotFileParser.read() would block the event loop, and takes 5xx for "no rules yet".
    status, text = await fetch(host)
    rules = RobotFileParser()
    rules.modified()  # without this, can_fetch() answers False for ever
    if 200 <= status < 300:
        rules.parse(text.splitlines())
    elif 400 <= status < 500 and status != 429:
        rules.allow_all = True
    else:
        rules.disallow_all = True
    return rules


class Robots:
    def __init__(self) -> None:
        self.kept: dict[str, tuple[float, asyncio.Task]] = {}

    async def allowed(self, host: str, path: str) -> bool:
        until, task = self.kept.get(host, (0, None))
        if task is None or time.monotonic() > until:
            task = asyncio.create_task(look_up(host))
            self.kept[host] = time.monotonic() + 86400, task  # failures are kept for a day, too, and nothing is forgotten
        return (await asyncio.shield(task)).can_fetch("ExampleBot", f"https://{host}{path}")


async def main() -> None:
    robots = Robots()
    pages = [(host, path) for host in FILES for path in ("/", "/private")]
    allowed = await asyncio.gather(*(robots.allowed(host, path) for host, path in pages))
    for (host, path), ok in zip(pages, allowed):
        print("allowed  " if ok else "forbidden", host + path)
    print(requests, "requests")

    # The first rule that matches wins, whichever is longer: RFC 9309 says the longest.
    rules = RobotFileParser()
    rules.parse(["user-agent: *", "disallow: /a", "allow: /a/b"])
    print("/a/b:", "allowed" if rules.can_fetch("ExampleBot", "/a/b") else "forbidden")


asyncio.run(main())
