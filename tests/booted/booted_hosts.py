# SPDX-License-Identifier: MIT
"""Hosts unlike the one it was made on: other daemons of the same user, a socket that is buried, names
as systemd-escape makes them, another mail_owner, a queue on the network, containers."""

import os
import re
import time

import guest
from basics import Skip, TOP, eq
from booted import SOCKET, SUITE, TOOLS, active, ask, clean, drop_in, g, main_pid, property_of, records
from harness import test

QUEUE = "/var/spool/postfix"
# As LXC without nesting: ids of its own, and no mount. What PID 1 itself has to have is mounted before.
CONTAINER = ("--tmpfs=/run/lock", "--private-users=1073741824:65536",
             "--private-users-ownership=chown", "--system-call-filter=~mount mount_setattr"
             " move_mount open_tree fsmount pivot_root")


def manual(section):
    """The commands of a subsection of fflushd(8)."""
    with open(os.path.join(TOP, "man/fflushd.8")) as f:
        body = re.search(r"\n\.Ss %s\n(.*?)\n\.S[sh] " % section, f.read(), re.S).group(1)
    commands = re.search(r"\n\.Bd -literal[^\n]*\n(.*?)\n\.Ed", body, re.S).group(1)
    return commands.replace("\\e", "\\")


def now():
    """For messages(): --after-cursor and a filter together leave out the first one that matches."""
    return g.out("journalctl --sync; date +@%s.%6N")


def messages(since, options):
    """But for what systemd 260 says where there is no controller of processes, as in some containers."""
    lines = g.journal("-q -o cat --since %s %s" % (since, options)).splitlines()
    return [line for line in lines if "Failed to read pids.max" not in line]


def undo_mounts():
    g.run("systemctl stop fflush.socket; while umount %s 2>/dev/null; do :; done;"
          " rm -rf /srv/queue" % QUEUE)


# ---------------------------------------------------------------- others who run as postfix


@test
def what_other_daemons_of_that_user_share_survives_an_idle_exit(t):
    clean()
    g.write("/etc/fflushd/fflushd.conf", "max_idle = 1s\n")
    g.run("ipcmk -M 4096; ipcmk -S 1; ipcmk -Q; touch /dev/shm/milter /tmp/milter", user="postfix")
    try:
        eq(ask("add", "site0.test", "A1"), "ok")
        g.wait("! systemctl is-active -q fflushd", "no idle exit")
        g.run("systemctl start fflush-refresh fflush-purge; systemctl stop fflushd")
        eq(g.out("ipcs -mqs | grep -c postfix; ls /dev/shm/milter /tmp/milter"),
           "3\n/dev/shm/milter\n/tmp/milter")
    finally:
        g.run("ipcrm --all; rm -f /dev/shm/milter /tmp/milter")


@test
def mounts_of_others_are_not_held(t):
    clean()
    g.run("mkdir -p /mnt/other && mount -t tmpfs other /mnt/other")
    eq(ask("add", "site0.test", "A1"), "ok")
    mounted = "grep -c ' /mnt/other ' /proc/%d/mountinfo" % main_pid()
    eq(g.out(mounted), "1")
    g.run("umount /mnt/other")
    eq(g.out(mounted, check=False), "0")


# ----------------------------------------------------------------------------- the journal


@test
def lookups_in_tables_leave_no_line(t):
    clean()
    g.write("/etc/postfix/sites", "table.test ok\n")
    g.run("postmap hash:/etc/postfix/sites; postconf -e inet_protocols=all"
          " fast_flush_domains=hash:/etc/postfix/sites; systemctl restart postfix")
    try:
        since = now()
        eq(ask("add", "table.test", "A1"), "ok")
        assert "4" in ask("add", "other.test", "A1")
        # Postfix 3.11 of Debian wishes for another kind at each lookup.
        eq([line for line in messages(since, "-t postfix/postmap")
            if "is deprecated" not in line and "NON_BERKELEYDB_README" not in line], [])
    finally:
        g.run("postconf -e inet_protocols=ipv4 fast_flush_domains=static:all;"
              " systemctl restart postfix")


@test
def what_runs_on_a_timer_and_has_nothing_to_do_leaves_no_line(t):
    clean()
    eq(ask("add", "site0.test", "A1"), "ok")
    # Waits until the service has read what the case before it left in main.cf.
    g.run("mkdir -p /var/lib/prometheus/node-exporter; fflushctl status", check=False)
    since = now()
    try:
        g.run("systemctl start fflush-refresh fflush-metrics")
        own = " -t fflushctl" if SUITE == "bullseye" else ""  # LogLevelMax= is not for its systemd
        eq(messages(since, "-u fflush-refresh -u fflush-metrics" + own), [])
        eq(messages(since, "-t postfix/fflushd"), [])
    finally:
        g.run("rm -r /var/lib/prometheus")
    since = now()
    g.run("rm " + SOCKET)
    g.run("! systemctl start fflush-refresh")
    for line in ("cannot connect to " + SOCKET, "status=69"):  # its standard error takes a while
        g.wait("journalctl --no-pager -o cat --since %s -u fflush-refresh | grep -q '%s'"
               % (since, line), "not in the journal: " + line)


# --------------------------------------------------------------------------- it comes back


def wait_for_socket(state):
    g.wait("test \"$(systemctl is-active fflush.socket)\" = %s" % state, "not " + state)


@test
def a_socket_whose_path_was_removed_is_back_after_a_refresh(t):
    clean()
    eq(ask("add", "site0.test", "A1"), "ok")
    g.run("rm " + SOCKET)
    eq(active("fflush.socket"), "active")  # says systemd
    eq(ask("add", "site0.test", "A2"), "FileNotFoundError")
    g.run("! systemctl start fflush-refresh")
    g.wait("test -S " + SOCKET, "it does not come back")
    wait_for_socket("active")
    eq(ask("add", "site0.test", "A2"), "ok")
    g.run("systemctl start fflush-refresh")
    eq(active("fflush-refresh.timer"), "active")
    eq(g.out("stat -c '%U %a' " + SOCKET), "postfix 666")


@test
def an_instance_comes_back_as_well(t):
    clean()
    g.run("systemctl stop fflush.socket; systemctl start fflush@postfix.socket")
    try:
        eq(ask("add", "site0.test", "A1"), "ok")
        eq(active("fflushd@postfix"), "active")
        g.run("rm " + SOCKET)
        g.run("! systemctl start fflush-refresh@postfix")
        g.wait("test -S " + SOCKET, "it does not come back")
        eq(ask("add", "site0.test", "A2"), "ok")
        eq(active("fflush.socket"), "inactive")
    finally:
        g.run("systemctl stop fflush@postfix.socket; systemctl reset-failed fflush-refresh@postfix")


@test
def a_queue_that_is_mounted_over_another_is_served_after_a_refresh(t):
    clean()
    eq(ask("add", "site0.test", "A1"), "ok")
    g.run("cp -a %s /srv/queue; rm -rf /srv/queue/flush/*; mount --bind /srv/queue %s"
          % (QUEUE, QUEUE))
    try:
        eq(ask("add", "new.test", "B1"), "ConnectionRefusedError")  # a copy of the socket's file
        g.run("! systemctl start fflush-refresh")
        g.wait("ss -xl | grep -q fflushd && test \"$(systemctl is-active fflush.socket)\" = active",
               "not listening")
        eq(ask("add", "new.test", "B1"), "ok")
        eq(g.out("ls /srv/queue/flush"), "new_test")
    finally:
        undo_mounts()
    eq(records(), ["A1"])
    clean()
    eq(ask("add", "site0.test", "A2"), "ok")


@test
def a_socket_without_a_queue_fails_and_comes_back_with_it(t):
    clean()
    g.run("mount -t tmpfs nothing " + QUEUE)
    try:
        g.run("! systemctl start fflush-refresh")
        wait_for_socket("failed")
        g.run("! systemctl start fflush-refresh")
        eq(active("fflush-refresh.timer"), "active")
        eq(g.out("ls " + QUEUE), "")  # nothing of root's that would keep Postfix from starting
    finally:
        undo_mounts()
    g.run("systemctl start fflush-refresh.timer; systemctl start fflush-refresh")
    eq(active("fflush.socket"), "active")
    eq(ask("add", "site0.test", "A2"), "ok")


@test
def restarts_of_the_socket_do_not_fail_it(t):
    clean()
    for _ in range(8):
        g.run("systemctl restart fflush.socket")
    eq(ask("add", "site0.test", "A1"), "ok")


@test
def what_the_host_cannot_give_is_refused_at_once(t):
    clean()
    drop_in("fflushd.service", "[Service]\nReadWritePaths=/nowhere\n")
    ask("add", "site0.test", "A1")
    wait_for_socket("failed")
    eq(property_of("fflush.socket", "Result"), "trigger-limit-hit")
    eq(property_of("fflushd.service", "ExecMainStatus"), "226")
    time.sleep(2)  # the trigger limit's own time
    clean()
    eq(ask("add", "site0.test", "A1"), "ok")


# ----------------------------------------------------------------------------------- names


@test
def flush_units_take_names_plain_and_escaped(t):
    clean()
    logs = {"a-b.test": "aDb_test", "a_b.test": "aUb_test", "[192.0.2.1]": "L192_0_2_1R",
            "xn--bcher-kva.test": "xnDDbcherDkva_test", "b\u00fccher.test": "xnDDbcherDkva_test"}
    for site, log in logs.items():
        names = ["$(systemd-escape '%s')" % site] + ([site] if re.match(r"[\w.-]+$", site) else [])
        for name in names:
            eq(ask("add", "'%s'" % site, "A1"), "ok")
            eq(records(log), ["A1"])
            g.run("systemctl start \"fflush-flush@%s\"" % name)
            eq((name, records(log)), (name, []))
    for wrong in ("a\\x2fb.test", "a\\x00b.test", "a\\x2.test", "..\\x2f..", "a\\x0ab.test"):
        eq(g.run("systemctl start 'fflush-flush@%s'" % wrong, check=False).returncode, 1, wrong)


# ----------------------------------------------------------------------------- other hosts


def let_own(owner, old_group, group):
    g.run("systemctl stop postfix fflush.socket; groupmod -n %s %s; postconf -e mail_owner=%s"
          " setgid_group=%s; postfix set-permissions; chown -R %s /var/lib/postfix"
          % (group, old_group, owner, group, owner), check=False)


@test
def another_setgid_group_needs_nothing(t):
    clean()
    let_own("postfix", "postdrop", "maildrop")
    try:
        g.run("systemctl start postfix fflush.socket")
        eq(ask("add", "site0.test", "A1"), "ok")
        g.run("postqueue -s site0.test", user="nobody")
        eq(records(), [])
        assert "fflushd" not in g.out("postfix check 2>&1")
    finally:
        let_own("postfix", "maildrop", "postdrop")
        g.run("systemctl start postfix")


@test
def another_mail_owner_needs_the_drop_ins_of_the_manual(t):
    clean()
    g.run("id mailer || useradd -r -M -s /usr/sbin/nologin mailer")
    commands = manual("Another user")
    let_own("mailer", "postdrop", "maildrop")
    try:
        g.run(commands)
        g.run("systemctl start postfix fflush.socket")
        eq(g.out("stat -c %U " + SOCKET), "mailer")
        eq(ask("add", "site0.test", "A1"), "ok")
        eq(g.out("stat -c %U /var/spool/postfix/flush/site0_test /var/lib/fflushd/postfix"),
           "mailer\nmailer")
        for unit in ("fflush-refresh", "fflush-flush@site0.test", "fflush-purge"):
            g.run("systemctl start " + unit)
        eq(records(), [])
        g.run("postqueue -s site0.test")
        eq(active("fflush.socket"), "active")
    finally:
        g.run("rm -r /etc/systemd/system/fflush*.d; systemctl daemon-reload")
        let_own("postfix", "maildrop", "postdrop")
        g.run("systemctl start postfix; userdel mailer")
    clean()
    eq(ask("add", "site0.test", "A1"), "ok")


@test
def a_queue_on_the_network_makes_no_circle_at_boot(t):
    clean()
    g.run("systemctl stop postfix fflush.socket; cp -a %s /srv/queue; rm -f /srv/queue/public/fflushd"
          % QUEUE)
    g.run("echo '/srv/queue %s none bind,_netdev 0 0' >> /etc/fstab" % QUEUE)
    g.write("/etc/systemd/system/late-network.service",  # as NetworkManager: After=basic.target
            "[Unit]\nBefore=network.target network-online.target\n[Service]\nType=oneshot\n"
            "RemainAfterExit=yes\nExecStart=/bin/true\n[Install]\nWantedBy=network-online.target\n")
    g.run("systemctl enable late-network")
    try:
        g.reboot()
        # A circle is broken by leaving out a unit that is part of it.
        for unit in ("sockets.target", "basic.target", "late-network.service", "remote-fs.target",
                     "var-spool-postfix.mount", "postfix.service", "fflush.socket",
                     "fflush-refresh.timer"):
            eq((unit, active(unit)), (unit, "active"))
        eq(g.out("stat -c %U /srv/queue/public/fflushd"), "postfix")
        eq(ask("add", "net.test", "A1"), "ok")
        eq(g.out("cat /srv/queue/flush/net_test"), "A1")
        usec = "ActiveEnterTimestampMonotonic"
        order = [int(property_of(unit, usec)) for unit in ("var-spool-postfix.mount", "fflush.socket",
                                                           "postfix.service")]
        eq(order, sorted(order))
    finally:
        g.run("sed -i /_netdev/d /etc/fstab; systemctl disable late-network;"
              " rm /etc/systemd/system/late-network.service")
        g.reboot()
    eq(g.run("findmnt " + QUEUE, check=False).returncode, 1)
    g.run("rm -r /srv/queue")
    clean()
    eq(ask("add", "site0.test", "A1"), "ok")


@test
def a_container_that_may_not_mount_needs_the_drop_in(t):
    if SUITE in ("trixie", "unstable"):
        raise Skip("its systemd mounts before anything else")
    g.run("rm -rf /opt/dest; make -s -C /build install DESTDIR=/opt/dest")
    installed = g.run("tar -c -C /opt/dest . | base64").stdout
    c = guest.Guest(SUITE, CONTAINER)
    try:
        c.run("base64 -d | tar -x -C / --no-same-owner --keep-directory-symlink", input=installed)
        with open(os.path.join(TOP, "tests/lib/mailhost.py")) as f:
            c.write("/opt/mailhost.py", f.read())
        c.run("systemctl daemon-reload; postconf -e fast_flush_domains=static:all;"
              " systemctl start fflush.socket")
        add = TOOLS + "ask %s add site0.test A1" % SOCKET
        c.out(add)
        c.wait("systemctl is-failed -q fflush.socket", "nobody is refused")
        assert "226/NAMESPACE" in c.out("systemctl status --no-pager fflushd", check=False)
        c.run(manual("Containers"))
        eq(c.out(add), "ok")
        for unit in ("fflush-refresh", "fflush-purge", "fflush-flush@site0.test", "fflush-metrics"):
            c.run("systemctl start " + unit)
        c.run("fflushctl -t 10s flush site0.test")
    finally:
        c.close()
