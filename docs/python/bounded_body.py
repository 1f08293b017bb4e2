"""bounded_body: decompress up to a cap, with zlib of the standard library."""

import zlib

CAP = 1 << 20


def bounded(compressed: bytes) -> bytes:
    decompressor = zlib.decompressobj(wbits=31)
    body = decompressor.decompress(compressed, CAP)  # without the second argument: as much as there is
    # Not `eof`: a body of exactly the cap is as good as any.
    if decompressor.unconsumed_tail or decompressor.decompress(b"", 1):
        raise ValueError(f"the body is longer than {CAP} bytes")
    return body


compressor = zlib.compressobj(wbits=31)
bomb = compressor.compress(bytes(16 << 20)) + compressor.flush()
print(len(bomb) >> 10, "KiB on the wire")
print(len(zlib.decompress(bomb, wbits=31)) >> 20, "MiB in memory")
try:
    bounded(bomb)
except ValueError as error:
    print(error)
