# SPDX-License-Identifier: MIT
"""Requests, replies, and connections that carry them."""

import errno
import os
import socket
import time

from basics import TIMEOUT

ANNOUNCEMENT = b"protocol\0queue_flush_protocol\0\0"


def status(n):
    return b"status\0%d\0\0" % n


OK, BAD, DENY, FAIL = status(0), status(3), status(4), status(4294967295)


def attrs(*pairs):
    """A request: attrs("add", ("site", s), ("queue_id", q)), values str or bytes."""
    out = b"request\0" + _bytes(pairs[0]) + b"\0"
    for name, value in pairs[1:]:
        out += _bytes(name) + b"\0" + _bytes(value) + b"\0"
    return out + b"\0"


def _bytes(s):
    return s if isinstance(s, bytes) else s.encode()


def add(site, queue_id):
    return attrs("add", ("site", site), ("queue_id", queue_id))


def send_site(site, *more):
    return attrs("send_site", ("site", site), *more)


def send_file(queue_id, *more):
    return attrs("send_file", ("queue_id", queue_id), *more)


REFRESH = attrs("rfrsh")
PURGE = attrs("purge")
DETAIL = ("detail", "1")


def in_directory(sock, path, call):
    """sun_path is short, temporary directories may be long."""
    directory = os.open(os.path.dirname(path), os.O_PATH)
    try:
        call("/proc/self/fd/%d/%s" % (directory, os.path.basename(path)))
    finally:
        os.close(directory)


def bind(sock, path):
    in_directory(sock, path, sock.bind)


def connect(sock, path):
    in_directory(sock, path, sock.connect)


def connect_to(path):
    """A connection that times out, so that a hung server does not hang the suite."""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(TIMEOUT)
    connect(s, path)
    return s


def receive_all(s):
    """All bytes to the end of the stream."""
    got = b""
    try:
        while chunk := s.recv(65536):
            got += chunk
    except ConnectionResetError:
        pass
    return got


def talk(server, data, eof=False, pieces=None, pause=0.0):
    """Send a request; all that comes back.

    pieces: where to cut the request, or "bytes"; pause: between pieces; eof: half-close at the end.
    """
    with server.connect() as s:
        try:
            for i, piece in enumerate(cut(data, pieces)):
                if i and pause:
                    time.sleep(pause)
                s.sendall(piece)
            if eof:
                s.shutdown(socket.SHUT_WR)
        except OSError as e:  # it has what it wants, and has hung up
            if not isinstance(e, ConnectionError) and e.errno != errno.ENOTCONN:
                raise
        return receive_all(s)


def cut(data, pieces):
    if pieces is None:
        return [data]
    if pieces == "bytes":
        return [data[i:i + 1] for i in range(len(data))]
    ends = sorted(set(pieces) | {len(data)})
    return [data[a:b] for a, b in zip([0] + ends, ends)]


def random_cuts(rng, data):
    return rng.sample(range(len(data) + 1), min(len(data), rng.randint(1, 5)))


def counts(reply):
    """The attributes of a detailed reply as a dictionary."""
    strings = reply.split(b"\0")
    return {k.decode(): int(v) for k, v in zip(strings[0::2], strings[1::2]) if k}


class Asking:
    """A request whose reply is awaited in the background of the test."""

    def __init__(self, daemon, data):
        self.socket = daemon.connect()
        self.socket.sendall(data)

    def answered(self):
        self.socket.setblocking(False)
        try:
            return self.socket.recv(65536, socket.MSG_PEEK) not in (b"", ANNOUNCEMENT)
        except BlockingIOError:
            return False
        finally:
            self.socket.settimeout(TIMEOUT)

    def reply(self):
        with self.socket:
            return receive_all(self.socket).removeprefix(ANNOUNCEMENT)
