"""The jobs of benches/websocket-broadcast.rs in asyncio. `websocket-broadcast.py asyncio|uvloop JOB NUMBER...` prints the seconds of one run."""

import asyncio
import statistics
import sys
import time
from base64 import b64encode
from hashlib import sha1

ENOUGH = 0.3  # seconds of measuring, and at least one run

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: chat.example\r\nOrigin: https://chat.example\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


async def handshake(reader):
    await reader.readline()
    headers = {}
    while line := (await reader.readline()).decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if headers["origin"].split("://")[-1] != headers["host"]:
        raise PermissionError
    key = b64encode(sha1((headers["sec-websocket-key"] + GUID).encode()).digest()).decode()
    return f"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {key}\r\n\r\n"


async def server(clients):
    kept = []
    for _ in range(clients):
        reader = asyncio.StreamReader()
        reader.feed_data(REQUEST)
        kept.append((reader, await asyncio.wait_for(handshake(reader), 5)))


async def drain(count):
    leaving = asyncio.Event()
    tasks = [asyncio.create_task(leaving.wait()) for _ in range(count)]
    await asyncio.sleep(0)
    leaving.set()
    await asyncio.wait(tasks, timeout=60)


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
