"""address_guard: which hosts are private, in the standard library."""

import ipaddress
import socket
from urllib.parse import urlsplit


def check(url: str) -> str:
    host = urlsplit(url).hostname or ""
    try:
        addresses = [ipaddress.ip_address(host)]  # knows dotted decimal only
    except ValueError:
        try:
            # inet_aton, as C libraries have it, knows the other spellings; a real check would also look names up here
            addresses = [ipaddress.ip_address(socket.inet_aton(host))]
        except OSError:
            return f"{host}: a name, to be looked up"
    return f"{host}: {'public' if all(it.is_global for it in addresses) else 'private'}"


for url in ["http://8.8.8.8/", "http://10.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://example.org/"]:
    print(check(url))
