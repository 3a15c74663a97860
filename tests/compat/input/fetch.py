"""Fetches paths over a unix socket: fetch.py SOCKET PATH...

Prints the status, the headers and a digest of the body: of each path whole, in part, and compressed.
Two headers are left out: Date, and Connection, which depends on when a worker is told to end.
"""

import hashlib
import http.client
import socket
import sys


class UnixConnection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(sys.argv[1])


for path in sys.argv[2:]:
    for extra in ({}, {"Range": "bytes=10-2000"}, {"Accept-Encoding": "gzip"}):
        connection = UnixConnection("localhost")
        connection.request("GET", path, headers=extra)
        reply = connection.getresponse()
        body = reply.read()
        print(path, extra, reply.status, len(body), hashlib.sha256(body).hexdigest())
        for header, text in sorted(reply.getheaders()):
            if header not in ("Date", "Connection"):
                print("   ", header, text)
        connection.close()
