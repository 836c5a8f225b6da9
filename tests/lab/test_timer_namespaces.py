# SPDX-License-Identifier: Apache-2.0
"""The connection timer among namespaces: every one has 127.0.0.1, and only its own is timed."""

from __future__ import annotations

import json
import subprocess

from tests.lab.conftest import REPOSITORY

_CONNECT = """
import socket, sys, threading
def talk(waiting, many):
    port = waiting.getsockname()[1]
    def serve():
        for _ in range(many):
            made, _ = waiting.accept()
            made.close()
    threading.Thread(target=serve, daemon=True).start()
    for _ in range(many):
        with socket.create_connection(("127.0.0.1", port)) as made:
            made.recv(1)
"""
_ELSEWHERE = """
import subprocess
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
talk(socket.create_server(("127.0.0.1", int(sys.argv[1]))), 7)
"""


def test_the_same_address_elsewhere_is_not_timed() -> None:
    script = f"""
{_CONNECT}
import json, subprocess
sys.path.insert(0, {str(REPOSITORY / "bench")!r})
from hop.timer import ConnectionTimer
timer = ConnectionTimer(1 << 16)
waiting = socket.create_server(("127.0.0.1", 0))
port = waiting.getsockname()[1]
timer.start("127.0.0.1", port)
talk(waiting, 5)
elsewhere = ["unshare", "--net", "/usr/bin/python3", "-c", {_CONNECT + _ELSEWHERE!r}, str(port)]
subprocess.run(elsewhere, check=True)
talk(waiting, 4)
print(json.dumps(timer.stop()))
"""
    done = subprocess.run(
        ["/usr/bin/python3", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [9, 0]
