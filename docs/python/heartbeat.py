"""heartbeat: ping a quiet peer, and give it up when it does not answer."""

import asyncio

PERIOD = 0.05


async def serve(reader, writer):
    asked = False
    while True:
        try:
            line = await asyncio.wait_for(reader.readline(), PERIOD)
        except asyncio.TimeoutError:
            if asked:
                return "no answer to a ping"
            writer.write(b"ping\n")
            asked = True
            continue
        if not line:
            return "left"
        asked = False


async def closed_within(writer, seconds):
    try:
        await asyncio.wait_for(asyncio.shield(writer.wait_closed()), seconds)
    except asyncio.TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


async def main():
    done = asyncio.Queue()

    async def connected(reader, writer):
        writer.write(bytes(20_000_000))  # more than the peer takes
        print(await serve(reader, writer))
        writer.close()
        # `close` first sends what waits in memory, and the peer reads nothing.
        print("closed:", await closed_within(writer, 0.1))
        print("20 MB still held:", writer.transport.get_write_buffer_size() > 1_000_000)
        writer.transport.abort()
        print("aborted:", await closed_within(writer, 10))
        await done.put(None)

    server = await asyncio.start_server(connected, "127.0.0.1")
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=1)
    writer.transport.pause_reading()
    await done.get()
    writer.transport.abort()
    server.close()


asyncio.run(main())
