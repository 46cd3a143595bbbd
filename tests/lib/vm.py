# SPDX-License-Identifier: MIT
"""A virtual machine: a Debian 12 with a kernel of its own, where SELinux enforces.

For what only a machine shows. Needs root, mmdebstrap, qemu-system-x86_64 and setfiles, but no KVM. Its
disk is made once and kept in $FFLUSHD_TEST_CACHE; what a machine writes is in a file that vanishes with
the machine.
"""

import base64
import fcntl
import glob
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import guest

PACKAGES = ("systemd-sysv,udev,dbus,initramfs-tools,linux-image-cloud-amd64,postfix,postfix-lmdb,"
            "selinux-policy-default,policycoreutils,policycoreutils-python-utils,auditd,libconfuse2,"
            "libidn2-0,libjansson4,libunistring2,python3,procps,iproute2,kmod,e2fsprogs,xfsprogs,"
            "btrfs-progs")
BOOT_TIMEOUT = 300
RUN_TIMEOUT = 300
CPUS = 2
MEMORY = 1536
DISK = "3G"

# The smaller the first file system, the sooner it is read.
INITRAMFS = r"""
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/initramfs-tools/hooks"
printf 'MODULES=list\nCOMPRESS=gzip\n' > "$1/etc/initramfs-tools/conf.d/test"
printf '%s\n' '#!/bin/sh' '[ "$1" != prereqs ] || exit 0' '. /usr/share/initramfs-tools/hook-functions' \
    'manual_add_modules virtio_pci virtio_blk ext4' > "$1/etc/initramfs-tools/hooks/test"
chmod 755 "$1/etc/initramfs-tools/hooks/test"
"""

# What reads commands from the host. As an administrator who has logged in, who is not confined; what
# it starts is judged by the policy like anything else.
AGENT = r'''
import base64, glob, json, subprocess, time

def find_port():
    while True:
        for name in glob.glob("/sys/class/virtio-ports/*/name"):
            with open(name) as f:
                if f.read().strip() == "agent":
                    return "/dev/" + name.split("/")[-2]
        time.sleep(0.05)

def obey(order):
    try:
        r = subprocess.run(order["command"], input=base64.b64decode(order["input"]), capture_output=True,
                           timeout=order["timeout"])
        return [r.returncode, base64.b64encode(r.stdout).decode(), base64.b64encode(r.stderr).decode()]
    except subprocess.TimeoutExpired:
        return [124, "", base64.b64encode(b"timeout").decode()]

with open(find_port(), "r+b", buffering=0) as port:
    port.write(b"ready\n")
    line = b""
    while True:
        line += port.read(65536)
        if line.endswith(b"\n"):
            reply = json.dumps(obey(json.loads(line))).encode() + b"\n"
            line = b""
            while reply:
                reply = reply[port.write(reply):]
'''
AGENT_UNIT = """[Unit]
DefaultDependencies=no
After=sysinit.target
[Service]
ExecStart=/usr/bin/python3 /usr/local/lib/agent.py
Environment=LC_ALL=C.UTF-8 HOME=/root SYSTEMD_PAGER=
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
SELinuxContext=unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023
KillMode=process
Restart=always
[Install]
WantedBy=multi-user.target
"""

# In the place of systemd, for those who want a kernel and no more.
BARE = """#!/bin/sh
export LC_ALL=C.UTF-8 HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
modprobe virtio_console
exec python3 /usr/local/lib/agent.py
"""

FINISH = r"""
cd "$1"
chmod 755 usr/local/lib/bare
echo virtio_console > etc/modules-load.d/agent.conf
printf 'SELINUX=enforcing\nSELINUXTYPE=default\n' > etc/selinux/config
echo '/dev/vda / ext4 defaults 0 1' > etc/fstab
for u in serial-getty@ttyS0.service serial-getty@hvc0.service; do
    ln -sf /dev/null "etc/systemd/system/$u"
done
chroot . useradd -m alice
mkdir -p etc/systemd/system/multi-user.target.wants
ln -s ../agent.service etc/systemd/system/multi-user.target.wants/agent.service
setfiles -r "$1" etc/selinux/default/contexts/files/file_contexts "$1" > /dev/null 2>&1
"""


def missing():
    """What keeps machines from being made here, or None."""
    if os.getuid() != 0:
        return "needs root"
    for tool in ("mmdebstrap", "qemu-system-x86_64", "qemu-img", "setfiles", "mke2fs"):
        if not shutil.which(tool):
            return "needs " + tool
    return None


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)


def the_disk():
    """A directory with disk, kernel and initrd; made if it is not there."""
    key = hashlib.sha256((PACKAGES + INITRAMFS + AGENT + AGENT_UNIT + BARE + FINISH + guest.PRESEED +
                          guest.FINISH + DISK).encode()).hexdigest()[:12]
    directory = os.path.join(guest.CACHE, "vm-bookworm-" + key)
    os.makedirs(guest.CACHE, exist_ok=True)
    with open(os.path.join(guest.CACHE, "lock-vm"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return directory if os.path.isdir(directory) else make_disk(directory)


def make_disk(directory):
    new = "%s.%d" % (directory, os.getpid())
    root = os.path.join(new, "root")
    os.mkdir(new)
    try:
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "--include=" + PACKAGES,
                        "--essential-hook=" + guest.PRESEED, "--essential-hook=" + INITRAMFS,
                        "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
                        "--dpkgopt=path-exclude=/usr/share/locale/*", "bookworm", root],
                       check=True, capture_output=True, text=True)
        write(root + "/usr/local/lib/agent.py", AGENT)
        write(root + "/usr/local/lib/bare", BARE)
        write(root + "/etc/systemd/system/agent.service", AGENT_UNIT)
        subprocess.run(["sh", "-ec", guest.FINISH, "sh", root], check=True)
        subprocess.run(["sh", "-ec", FINISH, "sh", root], check=True)
        for name in ("vmlinuz", "initrd.img"):
            shutil.copy(glob.glob(root + "/boot/%s-*" % name)[0], os.path.join(new, name))
        disk = os.path.join(new, "disk")
        subprocess.run(["truncate", "-s", DISK, disk], check=True)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, disk], check=True)
        shutil.rmtree(root)
        os.rename(new, directory)
    except subprocess.CalledProcessError as e:
        raise RuntimeError("cannot make a disk:\n%s" % e.stderr) from e
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return directory


def accelerator():
    """KVM is ten times as fast, but there are hosts where it is there and hangs."""
    if os.environ.get("FFLUSHD_VM") == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi", "-cpu", "qemu64"]


class Machine(guest.Shell):
    """Booted when it is there. Power is lost by kill(), and comes back by boot().

    @disks: files that become /dev/vdb and so on. @bare: without systemd. What the machine
    writes to its port "told" is in the file told beside its disk, whatever happens to it."""

    def __init__(self, disks=(), bare=False, selinux=True):
        self.base = the_disk()
        self.disks = disks
        self.append = " security=selinux selinux=1 enforcing=1" if selinux else ""
        self.append += " init=/usr/local/lib/bare" if bare else ""
        self.dir = tempfile.mkdtemp(prefix="fflushd-vm.")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", self.base + "/disk",
                        self.dir + "/disk"], check=True)
        self.process = None
        try:
            self.boot()
        except BaseException:
            self.close()
            raise

    def boot(self):
        start = time.monotonic()
        drives = ["file=%s/disk,format=qcow2,if=virtio,cache=unsafe" % self.dir]
        drives += ["file=%s,format=raw,if=virtio,cache=unsafe" % disk for disk in self.disks]
        with open(self.dir + "/console", "ab") as console:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", *accelerator(),
                 "-smp", str(CPUS), "-m", str(MEMORY), "-nodefaults", "-display", "none",
                 "-no-reboot", "-kernel", self.base + "/vmlinuz",
                 "-initrd", self.base + "/initrd.img", "-serial", "stdio",
                 "-device", "virtio-serial-pci", "-device", "virtio-rng-pci",
                 "-chardev", "socket,id=agent,path=%s/agent,server=on,wait=off" % self.dir,
                 "-device", "virtserialport,chardev=agent,name=agent",
                 "-chardev", "file,id=told,path=%s/told" % self.dir,
                 "-device", "virtserialport,chardev=told,name=told",
                 *[word for drive in drives for word in ("-drive", drive)],
                 "-append", "console=ttyS0 root=/dev/vda rw panic=-1 quiet systemd.show_status=0 audit=1"
                            + self.append],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        self.connect(start + BOOT_TIMEOUT)
        self.boot_seconds = time.monotonic() - start

    def connect(self, end):
        self.agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        while True:
            try:
                self.agent.connect(self.dir + "/agent")
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > end or self.process.poll() is not None:
                    raise RuntimeError("no machine: " + self.console_text()) from None
                time.sleep(0.05)
        self.read_line(end - time.monotonic())

    def read_line(self, timeout):
        line = b""
        self.agent.settimeout(timeout)
        try:
            while not line.endswith(b"\n"):
                piece = self.agent.recv(65536)
                if not piece:
                    raise RuntimeError("the machine is gone: " + self.console_text())
                line += piece
        except socket.timeout:
            raise RuntimeError("the machine does not answer: " + self.console_text()) from None
        return line

    def console_text(self):
        with open(self.dir + "/console", errors="replace") as f:
            return f.read()[-3000:]

    def run(self, script, check=True, timeout=RUN_TIMEOUT, input=None, user=None, text=True):
        """Run a shell script in the machine, as root unless told otherwise."""
        command = ["sh", "-c", "cd /; " + script]
        if user:
            command = ["runuser", "-u", user, "--", *command]
        data = input.encode() if isinstance(input, str) else input or b""
        order = {"command": command, "timeout": timeout, "input": base64.b64encode(data).decode()}
        self.agent.settimeout(timeout)
        self.agent.sendall(json.dumps(order).encode() + b"\n")
        status, out, err = json.loads(self.read_line(timeout + 60))
        out, err = base64.b64decode(out), base64.b64decode(err)
        if text and not isinstance(input, bytes):
            out, err = out.decode(errors="replace"), err.decode(errors="replace")
        if check and status != 0:
            raise AssertionError("%s\nstatus %d\n%s%s" % (script, status, out, err))
        return subprocess.CompletedProcess(script, status, out, err)

    def reboot(self):
        """In order, as an administrator does it."""
        self.run("systemctl reboot --no-block", check=False)
        self.process.wait(BOOT_TIMEOUT)
        self.boot()

    def kill(self):
        """Power is lost: what the kernel has not written is gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.agent.close()

    def close(self):
        if self.process and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.dir)
