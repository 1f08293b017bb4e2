"""The jobs of benches/scraping.rs in asyncio. `scraping.py asyncio|uvloop JOB NUMBER...` prints the seconds of one run."""

import asyncio
import heapq
import statistics
import sys
import time
from collections import deque
from urllib.robotparser import RobotFileParser

ENOUGH = 0.3  # seconds of measuring, and at least one run


async def robots(pages, rules):
    """Returns the time without that of parsing."""
    parser = RobotFileParser()
    parser.parse(["user-agent: *", *(f"disallow: /private/{number}/" for number in range(rules)), "crawl-delay: 1"])
    start = time.perf_counter()
    for number in range(pages):
        parser.can_fetch("ExampleBot", f"https://a.example/pages/{number}")
    return time.perf_counter() - start


async def polite_frontier(hosts, pages, overall):
    """A queue per host, and a heap of the hosts that may be visited; no host has a delay."""
    queues = {host: deque(range(pages)) for host in range(hosts)}
    due = [(0.0, host) for host in queues]

    async def worker():
        while due:
            at, host = heapq.heappop(due)
            if at > time.monotonic():
                await asyncio.sleep(at - time.monotonic())
            began = time.monotonic()
            queues[host].popleft()
            await asyncio.sleep(0)
            if queues[host]:
                heapq.heappush(due, (began, host))

    await asyncio.gather(*(worker() for _ in range(overall)))


async def host_pacing(requests):
    delay, shortest, longest, turn = 0.0, 0.0, 60.0, 0.0
    for number in range(requests):
        now = time.monotonic()
        if turn > now:
            await asyncio.sleep(turn - now)
        delay = max(delay - delay / 8, shortest)
        turn = now + delay


async def measure(job, numbers):
    runs, begin = [], time.perf_counter()
    while time.perf_counter() - begin < ENOUGH:
        start = time.perf_counter()
        own_time = await job(*numbers)
        runs.append(own_time or time.perf_counter() - start)
    return statistics.median(runs)


def main():
    event_loop, job, *numbers = sys.argv[1:]
    if event_loop == "uvloop":
        import uvloop as runner
    else:
        runner = asyncio
    print(runner.run(measure(globals()[job], [int(number) for number in numbers])))


main()
