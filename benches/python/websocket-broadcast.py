"""The jobs of benches/websocket-broadcast.rs in asyncio. `websocket-broadcast.py asyncio|uvloop JOB NUMBER...` prints the seconds of one run."""

import asyncio
import selectors
import socket
import statistics
import sys
import threading
import time
from base64 import b64encode
from collections import deque
from hashlib import sha1

ENOUGH = 0.3  # seconds of measuring, and at least one run


async def hub(n, rounds, burst):
    """Returns the time without making the tasks, as the bench does."""
    clients, seen = [(deque(maxlen=32), asyncio.Event()) for _ in range(n)], 0

    async def read(queue, changed):
        nonlocal seen
        while True:
            while queue:
                queue.popleft()
                seen += 1
            changed.clear()
            await changed.wait()

    reading = [asyncio.create_task(read(*client)) for client in clients]
    await asyncio.sleep(0)
    message, start = b"0123456789abcdef" * 4, time.perf_counter()
    for number in range(1, rounds + 1):
        for _ in range(burst):
            for queue, changed in clients:
                queue.append(message)
                changed.set()
        while seen < number * burst * n:
            await asyncio.sleep(0)
    took = time.perf_counter() - start
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    return took


def count(address, n, expected, complete):
    """Clients on a thread of their own, which count what they get."""
    selector, seen, open_sockets = selectors.DefaultSelector(), 0, n
    for _ in range(n):
        selector.register(socket.create_connection(address), selectors.EVENT_READ)
    while open_sockets:
        for key, _ in selector.select():
            data = key.fileobj.recv(4096)
            if not data:
                selector.unregister(key.fileobj)
                key.fileobj.close()
                open_sockets -= 1
            seen += len(data)
            if data and seen == expected[0]:
                complete()


async def frame_writer(n, rounds, burst):
    """Returns the server's processor time for one delivery, in seconds."""
    loop, writers, accepted = asyncio.get_running_loop(), [], asyncio.Event()

    async def serve(reader, writer):
        writers.append(writer)
        if len(writers) == n:
            accepted.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=n)
    expected, complete = [0], asyncio.Event()
    tell = lambda: loop.call_soon_threadsafe(complete.set)
    thread = threading.Thread(target=count, args=(server.sockets[0].getsockname(), n, expected, tell))
    thread.start()
    await accepted.wait()
    frames, before = (b"\x81\x40" + b"0123456789abcdef" * 4) * burst, time.thread_time()
    for number in range(1, rounds + 1):
        expected[0] = number * n * len(frames)
        complete.clear()
        for writer in writers:
            writer.transport.write(frames)
        await complete.wait()
    took = time.thread_time() - before
    for writer in writers:
        writer.close()
    await asyncio.to_thread(thread.join)
    server.close()
    return took / (n * rounds * burst)


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
