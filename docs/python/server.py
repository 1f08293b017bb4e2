"""server: who may open a WebSocket; the handshake has a limit, and so has the number of clients."""

import asyncio
from base64 import b64encode
from hashlib import sha1

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
places = 2


async def request(reader):
    await reader.readline()
    headers = {}
    while line := (await reader.readline()).decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return headers


async def connected(reader, writer):
    global places
    if places == 0:
        return writer.close()  # forgotten, the connection would stay open: returning is not enough
    places -= 1
    try:
        headers = await asyncio.wait_for(request(reader), 0.1)
        if headers.get("origin", "").split("://")[-1] not in ("", headers["host"]):
            writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            return
        key = b64encode(sha1((headers["sec-websocket-key"] + GUID).encode()).digest()).decode()
        writer.write(f"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {key}\r\n\r\n".encode())
        await reader.read()
    except asyncio.TimeoutError:
        pass  # the read was cancelled, and the connection is as open as before
    finally:
        places += 1
        writer.close()


async def client(name, address, origin, silent=False):
    reader, writer = await asyncio.open_connection(*address)
    if not silent:
        headers = f"Host: chat.example\r\nOrigin: {origin}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        writer.write(f"GET / HTTP/1.1\r\n{headers}\r\n".encode())
    answer = (await reader.readline()).decode().strip()
    print(f"{name}: {answer or 'closed without a word'}")
    return writer


async def main():
    server = await asyncio.start_server(connected, "127.0.0.1")
    address = server.sockets[0].getsockname()
    writers = [await client("a foreign page", address, "https://evil.example")]
    writers.append(await client("alice", address, "https://chat.example"))
    writers.append(await client("says nothing", address, "", silent=True))
    writers.append(await client("bob", address, "https://chat.example"))
    writers.append(await client("one too many", address, "", silent=True))
    for writer in writers:
        writer.close()
    server.close()
    while places < 2:
        await asyncio.sleep(0.001)


asyncio.run(main())
