#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tools that it-systemd.py runs inside of its guest.

mailhost.py load SOCKET N CLIENTS [SITES]   adds; prints how many got which reply, as JSON
mailhost.py ask SOCKET REQUEST...           one request: add SITE ID | send_site SITE | ...
mailhost.py sink PORT FILE                  an SMTP server that writes a line for each recipient;
                                            it refuses those in REPLIES
mailhost.py etrn DOMAIN...                  ETRN to the local smtpd; prints its replies
"""

import collections
import json
import smtplib
import socket
import socketserver
import subprocess
import sys
import threading

OK = b"status\x000\0\0"
ANNOUNCEMENT = b"protocol\0queue_flush_protocol\0\0"


def server_speaks_first():
    """Since Postfix 3.6; clients before it would take the announcement for the reply."""
    version = subprocess.run(["postconf", "-h", "mail_version"], capture_output=True, text=True)
    major, minor = version.stdout.split(".")[:2]
    return (int(major), int(minor)) >= (3, 6)


ANNOUNCED = server_speaks_first()


def request(name, *pairs):
    flat = [name] + [s for pair in pairs for s in pair]
    return b"request\0" + b"".join(s.encode() + b"\0" for s in flat) + b"\0"


def exchange(path, data, timeout=60):
    """What came of a request, in a word or as bytes."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(timeout)
            s.connect(path)
            if ANNOUNCED and s.recv(len(ANNOUNCEMENT)) != ANNOUNCEMENT:
                return "no announcement"
            s.sendall(data)
            reply = b""
            while chunk := s.recv(4096):
                reply += chunk
            return "ok" if reply == OK else repr(reply) if reply else "eof"
    except socket.timeout:
        return "timeout"
    except OSError as e:
        return type(e).__name__


def load(path, n, clients, sites=1):
    """Adds of distinct IDs from several clients at once."""
    counts = collections.Counter()
    lock = threading.Lock()

    def client(k):
        mine = collections.Counter()
        for i in range(k, n, clients):
            site = "site%d.test" % (i % sites)
            mine[exchange(path, request("add", ("site", site), ("queue_id", "A%X" % i)))] += 1
        with lock:
            counts.update(mine)

    threads = [threading.Thread(target=client, args=[k]) for k in range(clients)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    print(json.dumps(counts))


def ask(path, name, *args):
    keys = {"add": ("site", "queue_id"), "send_site": ("site",), "send_file": ("queue_id",)}
    print(exchange(path, request(name, *zip(keys.get(name, ()), args))))


# What the sink says to recipients whose names begin so; it keeps mail for all others.
REPLIES = {
    "gone": "550 5.1.1 <%s>: Recipient address rejected",
    "grey": "450 4.7.1 <%s>: Greylisted for 287 seconds",
    "full": "452 4.2.2 <%s>: Mailbox full (quota exceeded)",
    "busy": "421 4.7.28 <%s>: too much mail from you, id 4f7a1c99d2",  # and hangs up
}


class Sink(socketserver.StreamRequestHandler):
    def handle(self):
        self.say("220 sink ESMTP")
        recipients, data = [], False
        for line in self.rfile:
            text = line.decode(errors="replace").strip()
            if data:
                if text == ".":
                    data = False
                    self.keep(recipients)
                    recipients = []
                    self.say("250 kept")
                continue
            verb = text.upper()
            if verb.startswith("RCPT TO:"):
                address = text[len("RCPT TO:"):].split()[0].strip("<>")
                refusal = REPLIES.get(address[:4])
                if refusal:
                    self.say(refusal % address)
                    if refusal.startswith("421"):
                        return
                    continue
                recipients.append(address)
            if verb.startswith("DATA"):
                data = True
                self.say("354 go on")
            elif verb.startswith("QUIT"):
                self.say("221 bye")
                return
            else:
                self.say("250 fine")

    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")

    def keep(self, recipients):
        with open(self.server.path, "a") as f:
            f.write("".join(r + "\n" for r in recipients))


class SinkServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def sink(port, path):
    with SinkServer(("127.0.0.1", int(port)), Sink) as server:
        server.path = path
        open(path, "a").close()
        server.serve_forever()


def etrn(*domains):
    with smtplib.SMTP("127.0.0.1", 25) as smtp:
        smtp.ehlo("client.test")
        for domain in domains:
            code, text = smtp.docmd("ETRN", domain)
            print(code, text.decode())


if __name__ == "__main__":
    command, arguments = sys.argv[1], sys.argv[2:]
    if command == "load":
        load(arguments[0], *map(int, arguments[1:]))
    else:
        {"ask": ask, "sink": sink, "etrn": etrn}[command](*arguments)
