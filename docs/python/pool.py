"""pool: connections in a queue, given back by `finally`, also when the user gave up in the middle of an answer."""

import asyncio


async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while name := await reader.readline():
        await asyncio.sleep(0.02)
        writer.write(b"page of " + name)
    writer.close()


async def ask(pool: asyncio.Queue, name: str) -> str:
    reader, writer = connection = await pool.get()
    try:
        writer.write(f"{name}\n".encode())
        return (await reader.readline()).decode().strip()
    finally:
        pool.put_nowait(connection)  # also when the answer is still on the way


async def main() -> None:
    listener = await asyncio.start_server(server, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    pool: asyncio.Queue = asyncio.Queue()
    reader, writer = await asyncio.open_connection(host, port)
    pool.put_nowait((reader, writer))

    try:
        await asyncio.wait_for(ask(pool, "Alice"), 0.01)
    except TimeoutError:
        print("Alice gives up")
    print("Bob gets the", await ask(pool, "Bob"))

    writer.write_eof()
    print("left over: the", (await reader.read()).decode().strip())
    listener.close()


asyncio.run(main())
