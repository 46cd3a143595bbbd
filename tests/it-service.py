#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The service as a whole: the five requests, long sends, locks, limits, start and stop."""

from harness import *


@test
def add_and_send(t):
    spool, d = t.make()
    eq(d.exchange(add("Example.COM", "ABC123")), OK)
    eq(d.exchange(add("example.com", "ABC123")), OK)
    eq(d.exchange(add("example.com", "DEF456")), OK)
    eq(spool.read("flush/example_com"), b"ABC123\nDEF456\n")
    spool.put("deferred/A/ABC123")
    eq(d.exchange(send_site("example.com", ("detail", "1"))),
       b"status\0000\0found\0002\0moved\0001\0gone\0001\0busy\0000\0failed\0000\0duplicate\0000\0invalid\0000\0\0")
    eq(spool.files("incoming"), ["incoming/ABC123"])
    eq(spool.read("flush/example_com"), b"")
    eq(spool.triggers(), b"FI")
    print(d.stderr())


if __name__ == "__main__":
    main()
