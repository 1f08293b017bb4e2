"""http_client: four limits apart, in the standard library."""

import asyncio


closed = asyncio.Event()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome")  # and the other 5 bytes never
    await writer.drain()
    await reader.read()
    writer.close()
    closed.set()


async def fetch(port: int) -> bytes:
    async with asyncio.timeout(5):  # total
        async with asyncio.timeout(1):  # connect
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            async with asyncio.timeout(1):  # header
                head = await reader.readuntil(b"\r\n\r\n")
            body = b""
            while len(body) < 9:
                async with asyncio.timeout(0.05):  # idle
                    body += await reader.read(9)
            return head + body
        finally:
            writer.close()


async def main() -> None:
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        try:
            await fetch(server.sockets[0].getsockname()[1])
        except TimeoutError as error:
            print("a limit ran out, and the message is", repr(str(error)))  # which one, nobody says
        await closed.wait()


asyncio.run(main())
