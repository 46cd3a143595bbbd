# SPDX-License-Identifier: MIT
"""A throw-away Debian with a real systemd as PID 1 and a real Postfix, for tests of units.

Needs root, mmdebstrap and systemd-container. The root file system of a release is made once and
kept in $FFLUSHD_TEST_CACHE; each guest boots an overlay of it that vanishes with its last process.
The guest has a loopback network only.
"""

import fcntl
import glob
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time

CACHE = os.environ.get("FFLUSHD_TEST_CACHE", "/var/cache/fflushd-test")
ARCH = os.environ.get("FFLUSHD_ARCH", "")  # of Debian, as i386; the host's unless it is set
PACKAGES = ("systemd,systemd-sysv,dbus,postfix,postfix-lmdb,procps,iproute2,python3,"
            "build-essential,autoconf,automake,pkg-config,libsystemd-dev,libconfuse-dev,"
            "libidn2-dev,libunistring-dev,libjansson-dev,uthash-dev,check,strace,autopkgtest,rpm")
BOOT_TIMEOUT = 180
RUN_TIMEOUT = 120

# Before the packages are configured: Postfix must not ask.
PRESEED = r"""printf '%s\n' 'postfix postfix/main_mailer_type select Internet Site' \
    'postfix postfix/mailname string guest.test' | chroot "$1" debconf-set-selections"""

# No network, no clock, no disks: what would wait for them is masked.
FINISH = r"""
cd "$1"
echo guest > etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 guest.test guest\n' > etc/hosts
echo 7c1d5f4be2a04d0f9a31c2aa00000001 > etc/machine-id
for u in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
         fstrim.timer systemd-resolved.service systemd-networkd.service \
         systemd-timesyncd.service console-getty.service getty.target; do
    ln -sf /dev/null "etc/systemd/system/$u"
done
chroot . postconf -e inet_interfaces=loopback-only inet_protocols=ipv4 myhostname=guest.test \
    mydestination=guest.test,localhost disable_dns_lookups=yes compatibility_level=2 \
    alias_maps= alias_database= biff=no
"""

# Runs in a mount and PID namespace of its own, so that the kernel cleans up whatever happens. A
# control group of its own: two guests would share the group of whoever started them. nspawn ends with
# 133 when the guest wants to be booted again.
BOOT = r"""
set -e
root=$1 dir=$2 group=$3
shift 3
mount -t tmpfs -o mode=0755,size=2g guest "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay -o "lowerdir=$root,upperdir=$dir/upper,workdir=$dir/work,metacopy=on" guest \
    "$dir/root"
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
status=133
while [ "$status" = 133 ]; do
    status=0
    (
        for h in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
            [ -e "$h/cgroup.procs" ] || continue
            mkdir -p "$h/$group" && echo 0 > "$h/$group/cgroup.procs"
        done
        exec systemd-nspawn --quiet --directory="$dir/root" --machine="$group" --boot \
            --register=no --keep-unit --private-network --link-journal=no --resolv-conf=off \
            --timezone=off --console=pipe --system-call-filter=bpf "$@"
    ) || status=$?
done
"""


def missing():
    """What keeps guests from being made here, or None."""
    if os.getuid() != 0:
        return "needs root"
    tools = ("mmdebstrap", "systemd-nspawn", "nsenter", "unshare", "setpriv")
    for tool in tools + (("arch-test",) if ARCH else ()):
        if not shutil.which(tool):
            return "needs " + tool
    return None


def mmdebstrap():
    """The command, before its options. What a mirror has may be older than it says it is good for."""
    command = ["mmdebstrap", "--quiet", '--aptopt=Acquire::Check-Valid-Until "false"']
    return command + (["--arch=" + ARCH] if ARCH else [])


def root_of(suite):
    """The root file system of a release; made if it is not there."""
    key = hashlib.sha256((PACKAGES + PRESEED + FINISH).encode()).hexdigest()[:12]
    root = os.path.join(CACHE, "-".join([suite] + ([ARCH] if ARCH else []) + [key]))
    if os.path.isdir(root):
        return root
    os.makedirs(CACHE, exist_ok=True)
    with open(os.path.join(CACHE, "lock"), "w") as lock:  # two tests of a release make it once
        fcntl.flock(lock, fcntl.LOCK_EX)
        return root if os.path.isdir(root) else make_root(suite, root)


def new_root(root):
    """Where a root file system is made, before it gets its name. What was left by a test that was killed
    is cleared away."""
    for old in glob.glob(glob.escape(root) + ".*"):
        if not os.path.exists("/proc/" + old.rpartition(".")[2]):
            shutil.rmtree(old, ignore_errors=True)
    return "%s.%d" % (root, os.getpid())


def make_root(suite, root):
    new = new_root(root)
    try:
        subprocess.run([*mmdebstrap(), "--variant=minbase", "--include=" + PACKAGES,
                        "--essential-hook=" + PRESEED,
                        "--dpkgopt=path-exclude=/usr/share/doc/*",
                        "--dpkgopt=path-exclude=/usr/share/man/*",
                        "--dpkgopt=path-exclude=/usr/share/locale/*", suite, new],
                       check=True, capture_output=True, text=True)
        subprocess.run(["sh", "-ec", FINISH, "sh", new], check=True)
        os.rename(new, root)
    except subprocess.CalledProcessError as e:
        raise RuntimeError("cannot make a root file system of %s:\n%s" % (suite, e.stderr)) from e
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return root


def children(pid):
    try:
        with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
            return [int(p) for p in f.read().split()]
    except (FileNotFoundError, ProcessLookupError):  # it has ended, before or while it is read
        return []


def is_init(pid):
    """PID 1 of its own PID namespace?"""
    try:
        with open("/proc/%d/status" % pid) as f:
            return any(line.split()[-1] == "1" for line in f if line.startswith("NSpid:"))
    except (FileNotFoundError, ProcessLookupError):  # it has ended, before or while it is read
        return False


class Shell:
    """What run() of a guest, or of a machine (vm.py), is good for."""

    def out(self, script, **kwargs):
        return self.run(script, **kwargs).stdout.strip()

    def journal(self, options=""):
        """What journalctl prints of all that has been sent until now."""
        return self.out("journalctl --sync; journalctl --no-pager " + options)

    def write(self, path, text):
        self.run("mkdir -p \"$(dirname '%s')\" && cat > '%s'" % (path, path), input=text)

    def copy_in(self, directory, target):
        """A directory's contents."""
        tar = subprocess.run(["tar", "-c", "-C", directory, "."], capture_output=True, check=True)
        self.run("mkdir -p '%s' && tar -x -C '%s'" % (target, target), input=tar.stdout)

    def wait(self, script, what, timeout=30, show=None):
        """Until the script ends with status 0. @show: a script that tells why it did not."""
        end = time.monotonic() + timeout
        while self.run(script, check=False).returncode != 0:
            if time.monotonic() > end:
                told = self.out(show, check=False) if show else self.journal("-n 40")
                raise AssertionError("%s\n%s" % (what, told))
            time.sleep(0.1)


class Guest(Shell):
    """Booted when it is there. Options are more of systemd-nspawn's."""

    def __init__(self, suite="bookworm", options=()):
        root = root_of(suite)
        self.dir = tempfile.mkdtemp(prefix="fflushd-guest.")
        self.group = os.path.basename(self.dir).replace(".", "-").replace("_", "0")  # a machine name
        self.console = open(os.path.join(self.dir + ".console"), "wb")
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private",
             "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "sh", "-c", BOOT, "sh", root,
             self.dir, self.group, *options], stdin=subprocess.DEVNULL, stdout=self.console,
            stderr=self.console)
        try:
            self.leader = self.find_leader()
            self.wait_booted()
        except BaseException:
            self.close()
            raise

    def find_leader(self):
        end = time.monotonic() + BOOT_TIMEOUT
        while time.monotonic() < end and self.process.poll() is None:
            for shell in children(self.process.pid):
                for nspawn in children(shell):
                    for pid in children(nspawn):
                        if is_init(pid):
                            return pid
            time.sleep(0.02)
        raise RuntimeError("no guest: " + self.console_text())

    def reboot(self):
        before = self.leader
        self.run("systemctl reboot", check=False)
        end = time.monotonic() + BOOT_TIMEOUT
        while os.path.exists("/proc/%d" % before):
            if time.monotonic() > end:
                raise RuntimeError("the guest does not go down: " + self.console_text())
            time.sleep(0.05)
        self.leader = self.find_leader()
        self.wait_booted()

    def wait_booted(self):
        end = time.monotonic() + BOOT_TIMEOUT
        state = ""
        while time.monotonic() < end and self.process.poll() is None:
            state = self.run("systemctl is-system-running --wait", check=False).stdout.strip()
            if state in ("running", "degraded"):
                return
            time.sleep(0.05)
        raise RuntimeError("the guest is %s: %s" % (state, self.console_text()))

    def console_text(self):
        with open(self.console.name, errors="replace") as f:
            return f.read()[-3000:]

    def run(self, script, check=True, timeout=RUN_TIMEOUT, input=None, user=None, text=True):
        """Run a shell script in the guest, as root unless told otherwise."""
        command = ["nsenter", "--target", str(self.leader), "--all", "--",
                   "env", "-i", "LC_ALL=C.UTF-8", "HOME=/root", "SYSTEMD_PAGER=",
                   "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        if user:
            command += ["runuser", "-u", user, "--"]
        command += ["sh", "-c", "cd /; " + script]
        r = subprocess.run(command, input=input, capture_output=True,
                           text=text and not isinstance(input, bytes), timeout=timeout)
        if check and r.returncode != 0:
            raise AssertionError("%s\nstatus %d\n%s%s" % (script, r.returncode, r.stdout, r.stderr))
        return r

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.console.close()
        os.unlink(self.console.name)
        for hierarchy in ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"):
            self.remove_group(os.path.join(hierarchy, self.group))
        os.rmdir(self.dir)

    def remove_group(self, path):
        """Its processes are being killed; the group can go when they have gone."""
        end = time.monotonic() + 10
        while os.path.isdir(path) and time.monotonic() < end:
            for directory, _, _ in os.walk(path, topdown=False):
                try:
                    os.rmdir(directory)
                except OSError:
                    time.sleep(0.02)
