"""hang_up: close a connection so that the client learns why, although it is still sending."""

import asyncio


async def close_at_once(reader, writer):
    await reader.readexactly(10)
    writer.write(b"1009 too much\n")
    await writer.drain()
    writer.transport.abort()  # what `close` comes to when bytes from the peer are unread


async def hang_up(reader, writer):
    await reader.readexactly(10)
    writer.write(b"1009 too much\n")
    writer.write_eof()
    while await reader.read(65536):
        pass
    writer.close()
    done.set()


async def client(address):
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(bytes(20_000_000))
        await writer.drain()
        writer.write_eof()
        return (await reader.readline()).decode().strip()
    except ConnectionError:
        return "the connection broke"
    finally:
        writer.close()


async def main():
    global done
    done = asyncio.Event()
    for connected in [close_at_once, hang_up]:
        server = await asyncio.start_server(connected, "127.0.0.1")
        seen = await client(server.sockets[0].getsockname())
        print(f"{connected.__name__}: {seen}")
        server.close()
    await done.wait()


asyncio.run(main())
