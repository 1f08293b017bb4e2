"""frame_writer: write what waits in one go, under a deadline; then give up the client."""

import asyncio


async def write_frames(queue: asyncio.Queue, writer: asyncio.StreamWriter, messages: int, deadline: float) -> int:
    """Returns how many writes it took. `None` in the queue ends it."""
    writes = 0
    while (message := await queue.get()) is not None:
        batch = [message]
        while len(batch) < messages and not queue.empty():
            if (message := queue.get_nowait()) is None:
                queue.put_nowait(None)
                break
            batch.append(message)
        writer.write(b"".join(batch))
        try:
            async with asyncio.timeout(deadline):
                await writer.drain()
        except TimeoutError:
            writer.transport.abort()  # close() would wait for the client to read
            raise
        writes += 1
    return writes


async def main() -> None:
    done, sockets = asyncio.Event(), asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # drain() waits above this many bytes: by default 64 KiB, besides what the kernel takes.
        writer.transport.set_write_buffer_limits(high=16_384)
        sockets.put_nowait(writer)
        await done.wait()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()

    async def client(queue: asyncio.Queue) -> tuple:
        reader, own = await asyncio.open_connection(*address, limit=16_384)
        return reader, own, asyncio.create_task(write_frames(queue, await sockets.get(), 64, 0.3))

    queue = asyncio.Queue()
    reader, own, writing = await client(queue)
    for number in range(100):
        queue.put_nowait(b"message %02d\n" % number)
    queue.put_nowait(None)
    for number in range(100):
        assert await reader.readline() == b"message %02d\n" % number
    print("100 messages in", await writing, "writes")
    own.close()

    stuck = asyncio.Queue()
    _reader, own, writing = await client(stuck)
    for _ in range(200):
        stuck.put_nowait(bytes(65_536))
    try:
        await writing
    except TimeoutError:
        print("the client that does not read is cut off")
    own.close()
    done.set()
    server.close()


asyncio.run(main())
