"""The jobs of benches/scraping.rs in asyncio. `scraping.py asyncio|uvloop JOB NUMBER...` prints the seconds of one run."""

import asyncio
import heapq
import ipaddress
import socket
import statistics
import sys
import time
from collections import deque
from urllib.parse import urlsplit
from urllib.robotparser import RobotFileParser

ENOUGH = 0.3  # seconds of measuring, and at least one run


async def address_guard(times):
    """Returns the time of four URLs."""

    def is_public(url):
        host = urlsplit(url).hostname
        try:
            return ipaddress.ip_address(host).is_global
        except ValueError:
            try:
                return ipaddress.ip_address(socket.inet_aton(host)).is_global
            except OSError:
                return True

    urls = "https://example.org/a", "http://93.184.215.14/", "http://2130706433/", "http://[::ffff:10.0.0.1]/"
    start = time.perf_counter()
    for _ in range(times):
        assert sum(map(is_public, urls)) == 2
    return (time.perf_counter() - start) / times


async def fetch(reader, writer, length):
    writer.write(b"GET /%d HTTP/1.1\r\nhost: localhost\r\n\r\n" % length)
    head = await reader.readuntil(b"\r\n\r\n")
    (announced,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return len(await reader.readexactly(int(announced[15:])))


async def http_client(requests, length, port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(requests):
        assert await fetch(reader, writer, length) == length
    writer.close()


async def fetch_all(requests, length, port):
    numbers = iter(range(requests))

    async def worker():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lengths = [await fetch(reader, writer, length) for _ in numbers]
        writer.close()
        return len(lengths)

    assert sum(await asyncio.gather(*(worker() for _ in range(32)))) == requests


async def fetch_all_there(n):
    limit = asyncio.Semaphore(32)

    async def one(url):
        async with limit:
            return url

    assert len(await asyncio.gather(*(one(url) for url in range(n)), return_exceptions=True)) == n


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
