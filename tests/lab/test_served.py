# SPDX-License-Identifier: Apache-2.0
"""The server serves payloads, on its data address alone, for as long as its agent lives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.hop import payloads
from bench.hop.version import digest
from bench.lab.model import NIC, Lab
from tests.lab.agents import DirectAgent, _start
from tests.lab.conftest import REPOSITORY, inside, kill, wait_until
from tests.lab.sshd import children

HOSTS = ("hyg-served", 1)
PORT = 8000
SERVER_FILES = REPOSITORY / "ansible" / "roles" / "server" / "files"

# Sends requests as they are, which clients would tidy up first: what a line asks for, or nothing
# where nobody listens.
ASK = """
import json, socket, sys
found = []
for address, port, request in json.load(sys.stdin):
    try:
        with socket.create_connection((address, port), timeout=5) as sock:
            sock.sendall(request.encode("latin-1"))
            answer = b""
            while chunk := sock.recv(65536):
                answer += chunk
        found.append(answer.decode("latin-1"))
    except ConnectionRefusedError:
        found.append(None)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def deployed() -> Iterator[Path]:
    """What a deploy puts on a server, elsewhere: other tests' hosts have the usual place."""
    with tempfile.TemporaryDirectory(prefix="hb-served-", dir="/tmp") as name:
        folder = Path(name)
        # nginx's workers are nobody's, and have to get in.
        folder.chmod(0o755)
        for source, place in ((REPOSITORY / "bench" / "hop", "hop"), (REPOSITORY / "bpf", "bpf")):
            shutil.copytree(source, folder / place, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "server").mkdir()
        shutil.copy(SERVER_FILES / "nginx.conf.template", folder / "server")
        payloads.ensure(folder / "payloads")
        # What somebody may have put there who meant no harm.
        (folder / "secret").write_text("root:x:0:0:")
        (folder / "payloads" / "link").symlink_to("/etc/passwd")
        (folder / "payloads" / "linked").symlink_to("/etc")
        (folder / "payloads" / "beside").symlink_to("../secret")
        (folder / "payloads" / "folder").mkdir(mode=0o755)
        yield folder


class Server(DirectAgent):
    """A serving agent of a folder."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.address = lab.hosts[-1].data_ip
        self.process = _start(lab.namespace("server"), folder, "serve")

    def place(self, **changes: Any) -> dict[str, Any]:
        """Have it serve."""
        where = {"data_nic": NIC, "data_ip": self.address, "server_port": PORT}
        return self.ask(op="place", version=digest(), lease_s=120, **{**where, **changes})


def ask(lab: Lab, host: str, *requests: tuple[str, int, str]) -> list[str | None]:
    """Return what is answered to requests that a host makes."""
    command = ["ip", "netns", "exec", lab.namespace(host), "/usr/bin/python3", "-c", ASK]
    done = subprocess.run(
        command, input=json.dumps(requests), capture_output=True, text=True, timeout=60, check=True
    )
    answers: list[str | None] = json.loads(done.stdout)
    return answers


def listening(lab: Lab) -> list[str]:
    """Return where anything waits for TCP or UDP on the server."""
    lines = inside(lab, "server", "ss", "-Hltun").splitlines()
    return sorted(line.split()[4] for line in lines)


@pytest.fixture
def server(hosts: Lab, deployed: Path) -> Iterator[Server]:
    """A server that serves, in a namespace where nothing listened before."""
    assert listening(hosts) == []
    with Server(hosts, deployed) as agent:
        assert agent.place()["event"] == "ready"
        yield agent
    assert wait_until(lambda: listening(hosts) == [], 10)


def test_on_its_data_address_alone(hosts: Lab, server: Server) -> None:
    assert listening(hosts) == [f"{server.address}:{PORT}"]
    inside(hosts, "server", "ip", "address", "add", "198.19.255.1/32", "dev", "lo")
    get = "GET /312.bin HTTP/1.0\r\n\r\n"
    places = (server.address, "127.0.0.1", "198.19.255.1")
    answers = ask(hosts, "server", *((place, PORT, get) for place in places))
    assert answers[0] is not None and answers[0].startswith("HTTP/1.1 200 ")
    assert answers[1:] == [None, None]


@pytest.mark.parametrize("end", ["end of input", "killed"])
def test_for_the_length_of_a_run(hosts: Lab, deployed: Path, end: str) -> None:
    with Server(hosts, deployed) as agent:
        assert listening(hosts) == []
        # What is refused starts nothing.
        assert agent.place(server_port=0)["event"] == "error"
        assert agent.place(zz=1)["event"] == "error"
        assert listening(hosts) == []
        assert agent.place()["event"] == "ready"
        assert listening(hosts) == [f"{agent.address}:{PORT}"]
        if end == "killed":
            kill(agent.process.pid)
        else:
            assert agent.process.stdin is not None
            agent.process.stdin.close()
        assert wait_until(lambda: listening(hosts) == [], 10)


def test_payloads_are_served(hosts: Lab, server: Server) -> None:
    where = (server.address, PORT)
    get, head, manifest = ask(
        hosts,
        "client",
        (*where, "GET /312.bin HTTP/1.0\r\n\r\n"),
        (*where, "HEAD /312.bin HTTP/1.0\r\n\r\n"),
        (*where, "GET /manifest.json HTTP/1.0\r\n\r\n"),
    )
    assert get is not None and head is not None and manifest is not None
    fields, _, body = get.partition("\r\n\r\n")
    assert fields.startswith("HTTP/1.1 200 ") and body.encode("latin-1") == payloads.content(312)
    assert head.startswith("HTTP/1.1 200 ") and head.endswith("\r\n\r\n")
    assert manifest.startswith("HTTP/1.1 200 ")


PATHS = (
    *("/", "/folder/", "/folder/../", "/link", "/linked/passwd", "/linked/", "/beside"),
    *("/../secret", "/%2e%2e/secret", "/%2e%2e%2fsecret", "/..%2fsecret", "/.%2e/secret"),
    *(
        "/folder/../../secret",
        "/312.bin/../../secret",
        "/./../secret",
        "//../secret",
        "/..//secret",
    ),
    *("/../../etc/passwd", "//etc/passwd", "/etc/passwd", "/%2fetc/passwd", "///etc/passwd"),
    *(
        "/..\\secret",
        "/%5c..%5csecret",
        "/%252e%252e/secret",
        "/%c0%ae%c0%ae/secret",
        "/..;/secret",
    ),
    *("/312.bin%00", "/%00", "/312.bin/", "/312.bin%20", "/~root/.profile", "../secret", "secret"),
    *("http://server/../secret", "http://198.18.0.1/%2e%2e/secret", "file:///etc/passwd", "*"),
    *("/server/nginx.conf", "/../server/nginx.conf", "/payloads/312.bin", "/" + "a" * 5000),
    *("/" + "../" * 40 + "etc/passwd", "/folder" + "/.." * 3 + "/secret"),
)


def test_nothing_else_is_served(hosts: Lab, server: Server) -> None:
    answers = ask(
        hosts, "client", *((server.address, PORT, f"GET {path} HTTP/1.0\r\n\r\n") for path in PATHS)
    )
    for path, answer in zip(PATHS, answers, strict=True):
        assert answer is not None and "root:x:0:0:" not in answer, path
        # A line that is no request is answered as in 1991, without a status.
        assert answer.startswith(("HTTP/1.1 4", "<html>\r\n<head><title>4")), (path, answer[:80])
        assert "Index of" not in answer, path


METHODS = ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "MKCOL")


def test_nothing_but_get_and_head(hosts: Lab, server: Server, deployed: Path) -> None:
    before = {path: path.lstat().st_mtime_ns for path in (deployed / "payloads").iterdir()}
    body = "Content-Length: 4\r\n\r\nevil"
    requests = [
        (server.address, PORT, f"{method} {path} HTTP/1.0\r\n{body}")
        for method in METHODS
        for path in ("/312.bin", "/new.bin")
    ]
    for request, answer in zip(requests, ask(hosts, "client", *requests), strict=True):
        assert answer is not None and answer.startswith("HTTP/1.1 4"), (request, answer)
    now = {path: path.lstat().st_mtime_ns for path in (deployed / "payloads").iterdir()}
    assert now == before


def test_who_answers_is_not_root(server: Server) -> None:
    def workers() -> dict[int, list[str]]:
        uids = {}
        for pid in children(server.process.pid):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"nginx: worker"):
                status = Path(f"/proc/{pid}/status").read_text()
                uids[pid] = status.partition("\nUid:\t")[2].split()[:4]
        return uids

    # The first process listens before it has made the others.
    assert wait_until(lambda: len(workers()) == min(len(os.sched_getaffinity(0)), 8), 10)
    assert all("0" not in each for each in workers().values())
