#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The part of mailhost.py that runs in the guest; each command prints one JSON object.

set-up            Postfix as a host that has much to do, flush(8) in a control group of its own
fill N SITES      N deferred messages for so many destinations that refuse
fill-back N       N for one that will be back
storm N           try all: until all N are deferred again
return HOW N      the server of the last is back: ETRN or postqueue
single N          postqueue -i for each of N messages
"""

import json
import os
import smtplib
import socketserver
import subprocess
import sys
import threading
import time

QUEUE = "/var/spool/postfix"
GROUP = "/sys/fs/cgroup/flush8"
BACK = "back.test"
PORT = 2530


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def set_up():
    os.makedirs(GROUP, exist_ok=True)
    with open("/usr/lib/postfix/sbin/flush-in-group", "w") as f:
        f.write("#!/bin/sh\necho $$ > %s/cgroup.procs\nexec /usr/lib/postfix/sbin/flush \"$@\"\n" % GROUP)
    os.chmod(f.name, 0o755)
    run("postconf", "-F", "flush/unix/command=flush-in-group")
    # Refused at once, and each destination looked at again when it is asked for.
    run("postconf", "-e", "transport_maps=inline:{%s=smtp:[127.0.0.1]:%d}" % (BACK, PORT),
        "default_transport=smtp:[127.0.0.1]:1", "maximal_queue_lifetime=5d", "bounce_queue_lifetime=5d",
        "smtpd_client_connection_count_limit=0", "default_process_limit=100",
        "fast_flush_refresh_time=12h", "smtpd_etrn_restrictions=permit", "in_flow_delay=0")


def files(queue):
    """[(path, stat)] of all messages of a queue."""
    found = []
    for directory, _, names in os.walk(os.path.join(QUEUE, queue)):
        for name in names:
            path = os.path.join(directory, name)
            try:
                found.append((path, os.stat(path)))
            except FileNotFoundError:
                pass
    return found


def wait_deferred(n, after=0, timeout=600):
    """Until n are deferred, by an attempt after that time, and nothing is on its way."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if not any(os.scandir(QUEUE + "/maildrop")) and not files("incoming") and not files("active"):
            deferred = [st for _, st in files("deferred") if st.st_mtime > after + 1]
            if len(deferred) == n:
                return
        time.sleep(0.02)
    sys.exit("%d are not deferred: %s" % (n, {q: len(files(q)) for q in ("incoming", "active", "deferred")}))


def send(n, site):
    run("smtp-source", "-m", str(n), "-s", str(min(n, 10)), "-f", "from@guest.test", "-t", "user@" + site,
        "127.0.0.1:25")


def fill(n, n_sites):
    before = len(files("deferred"))
    for i in range(n_sites):
        send(n // n_sites, "site%d.test" % i)
    wait_deferred(before + n)


def fill_back(n):
    before = len(files("deferred"))
    send(n, BACK)
    wait_deferred(before + n)


def cpu(path):
    with open(path + "/cpu.stat") as f:
        return int(f.readline().split()[1]) / 1e6


def service_cpu():
    group = "/sys/fs/cgroup/system.slice/fflushd.service"
    return cpu(GROUP) + (cpu(group) if os.path.exists(group) else 0)


def check_records():
    """What has been measured was done: all that is deferred is recorded, if anything is."""
    recorded = set()
    for path, _ in files("flush"):
        with open(path) as f:
            recorded.update(f.read().split())
    missing = {os.path.basename(path) for path, _ in files("deferred")} - recorded
    if missing and run("postconf", "-h", "fast_flush_domains").strip():
        sys.exit("%d are not recorded, such as %s" % (len(missing), min(missing)))


def storm(n):
    run("postqueue", "-f")  # the agents are there, and know whom to ask
    wait_deferred(n, time.time())
    time.sleep(1)
    host, service, start = cpu("/sys/fs/cgroup"), service_cpu(), time.time()
    run("postqueue", "-f")
    wait_deferred(n, start)
    wall = time.time() - start
    got = {"wall": wall, "host": cpu("/sys/fs/cgroup") - host, "service": service_cpu() - service}
    check_records()
    return got


class Receiver(socketserver.StreamRequestHandler):
    """Takes all mail, and notes when."""

    times = []

    def handle(self):
        self.wfile.write(b"220 back.test\r\n")
        for line in self.rfile:
            verb = line[:4].upper()
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                while self.rfile.readline() not in (b".\r\n", b""):
                    pass
                self.times.append(time.time())
            self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
            if verb == b"QUIT":
                return


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128


def etrn():
    with smtplib.SMTP("127.0.0.1", 25) as smtp:
        smtp.ehlo("back.test")
        code, text = smtp.docmd("ETRN", BACK)
    if code not in (250, 251, 252, 253):
        sys.exit("ETRN: %d %s" % (code, text))


def come_back(how, n):
    with Server(("127.0.0.1", PORT), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        start = time.time()
        if how == "ETRN":
            etrn()
        else:
            run("postqueue", "-f")
        end = start + 600
        while len(Receiver.times) < n:
            if time.time() > end:
                sys.exit("%d of %d have come" % (len(Receiver.times), n))
            time.sleep(0.01)
        server.shutdown()
    return {"first": min(Receiver.times) - start, "last": max(Receiver.times) - start}


def single(n):
    ids = [os.path.basename(path) for path, _ in files("deferred")][:n]
    start = time.time()
    for queue_id in ids:
        run("postqueue", "-i", queue_id)
    return {"wall": time.time() - start}


def main():
    command, *args = sys.argv[1:]
    result = {"set-up": set_up, "fill": fill, "fill-back": fill_back, "storm": storm, "return": come_back,
              "single": single}[command](*[int(a) if a.isdigit() else a for a in args])
    print(json.dumps(result or {}))


if __name__ == "__main__":
    main()
