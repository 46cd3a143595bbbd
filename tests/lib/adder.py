#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Adds and sends until the end of the world, in a machine that is killed meanwhile (it-vm.py).

adder.py load QUEUE ACKED CLIENTS   messages are put into deferred and recorded, and sites are flushed, for
                                    ever; a line "SITE ID" in ACKED for each add that was answered with OK
adder.py check QUEUE ACKED          prints, as JSON, what became of those: "recorded" in a log, "moved" to
                                    incoming, "vanished" with its message, "lost": it waits, no log has it

QUEUE has one level of hash directories in deferred, and none in incoming, as Postfix has.
"""

import json
import os
import random
import socket
import sys
import threading

ANNOUNCEMENT = b"protocol\0queue_flush_protocol\0\0"
OK = b"status\x000\0\0"
SITES = 12


def ask(path, *words):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.connect(path)
        s.sendall(b"".join(w.encode() + b"\0" for w in ("request",) + words) + b"\0")
        reply = b""
        while chunk := s.recv(4096):
            reply += chunk
        return reply.replace(ANNOUNCEMENT, b"", 1) == OK


def put_message(queue, queue_id):
    """As Postfix does: complete, and on the disk, before anybody hears of it."""
    path = "%s/deferred/%s/%s" % (queue, queue_id[0], queue_id)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700)
    os.write(fd, b"a message\n")
    os.fsync(fd)
    os.close(fd)


def client(queue, acked, lock):
    path = queue + "/public/fflushd"
    rng = random.Random()
    while True:
        site = "site%d.test" % rng.randrange(SITES)
        try:
            if rng.random() < 0.08:
                ask(path, "send_site", "site", site)
                continue
            queue_id = "%012X" % rng.randrange(16 ** 12)
            put_message(queue, queue_id)
            if not ask(path, "add", "site", site, "queue_id", queue_id):
                continue
        except OSError:  # the service ends: who gets no answer has no promise
            continue
        with lock:
            os.write(acked, ("%s %s\n" % (site, queue_id)).encode())


def load(queue, acked, clients):
    for first in "0123456789ABCDEF":
        os.makedirs("%s/deferred/%s" % (queue, first), exist_ok=True)
    os.sync()
    fd = os.open(acked, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    lock = threading.Lock()
    for _ in range(int(clients) - 1):
        threading.Thread(target=client, args=(queue, fd, lock), daemon=True).start()
    client(queue, fd, lock)


def log_of(queue, site, logs):
    if site not in logs:
        try:
            with open("%s/flush/%s" % (queue, site.replace(".", "_")), "rb") as f:
                logs[site] = set(line.strip().decode("latin-1") for line in f)
        except FileNotFoundError:
            logs[site] = set()
    return logs[site]


def check(queue, acked):
    logs = {}
    found = {"recorded": 0, "moved": 0, "vanished": 0, "lost": []}
    with open(acked) as f:
        pairs = [line.split() for line in f if line.endswith("\n")]
    for site, queue_id in pairs:
        if queue_id in log_of(queue, site, logs):
            found["recorded"] += 1
        elif os.path.exists("%s/deferred/%s/%s" % (queue, queue_id[0], queue_id)):
            found["lost"].append(site + " " + queue_id)
        else:
            moved = os.path.exists("%s/incoming/%s" % (queue, queue_id))
            found["moved" if moved else "vanished"] += 1
    print(json.dumps(found))


if __name__ == "__main__":
    {"load": load, "check": check}[sys.argv[1]](*sys.argv[2:])
