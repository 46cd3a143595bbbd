# SPDX-License-Identifier: MIT
"""Other hosts: a real sshd on loopback for each, and an ssh that knows them by name."""

import os
import shutil
import subprocess

from basics import Skip, TIMEOUT, wait_for
from ctl import stand_in, write
from postfix import answers, free_port


class Hosts:
    """add() a host, then run fflushctl with .env. For Case.open."""

    def __init__(self, case):
        self.sshd = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if self.sshd is None or os.getuid() != 0 or not (shutil.which("ssh") and shutil.which("ssh-keygen")):
            raise Skip("needs root, sshd and ssh")
        self.base = os.path.join(case.base, "ssh")
        os.mkdir(self.base, 0o700)
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
                            os.path.join(self.base, key)], check=True)
        self.config = write(self.base, "ssh_config",
                            "IdentityFile %s/user\nStrictHostKeyChecking no\n"
                            "UserKnownHostsFile %s/known\nLogLevel ERROR\n"
                            % (self.base, self.base))
        ssh = stand_in(case, "ssh", '#!/bin/sh\nexec %s -F %s "$@"\n'
                       % (shutil.which("ssh"), self.config))
        self.env = dict(os.environ, PATH=ssh + ":" + os.environ["PATH"])
        self.servers = {}
        case.open.append(self)

    def name(self, name, port):
        """What ssh finds under this name."""
        with open(self.config, "a") as f:
            f.write("Host %s\nHostName 127.0.0.1\nPort %d\nUser root\n" % (name, port))

    def add(self, name, path):
        """A host with these directories in its PATH. bash(1) takes a shell of this level for one that was
        started by another, and does not read ~/.bashrc, which may print anything."""
        os.makedirs("/run/sshd", exist_ok=True)
        port = free_port()
        config = write(self.base, name + ".conf",
                       "ListenAddress 127.0.0.1:%d\nHostKey %s/host\nPidFile none\n"
                       "AuthorizedKeysFile %s/user.pub\nStrictModes no\nUsePAM no\n"
                       "PermitRootLogin prohibit-password\nSetEnv PATH=%s:/usr/bin:/bin SHLVL=1\n"
                       % (port, self.base, self.base, path))
        self.servers[name] = subprocess.Popen([self.sshd, "-D", "-e", "-f", config],
                                              stderr=subprocess.DEVNULL)
        wait_for(lambda: answers(port), "no sshd")
        self.name(name, port)

    def close(self):
        for server in self.servers.values():
            server.terminate()
            server.wait(TIMEOUT)
