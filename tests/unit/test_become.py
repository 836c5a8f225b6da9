# SPDX-License-Identifier: Apache-2.0
"""How root is become: which command it comes to, and the talk until the program runs.

The commands are run by the real sh. Where one says sudo, a script of that name stands in that asks
as sudo does; the real sudo and su are in tests/lab/test_ssh_become.py.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from bench import become
from bench.chain import Host
from bench.errors import BenchError


def host(**variables: Any) -> Host:
    """Return a host with Ansible variables."""
    ssh_vars = {f"ansible_{name}": value for name, value in variables.items()}
    return Host("bravo", "hop", "198.18.0.2", "eth0", 7000, ssh_vars=ssh_vars)


@pytest.mark.parametrize(
    ("variables", "wanted", "method", "password"),
    [
        ({}, None, "sudo", None),
        ({"become": True}, True, "sudo", None),
        ({"become": "yes"}, True, "sudo", None),
        ({"become": "True"}, True, "sudo", None),
        ({"become": 1}, True, "sudo", None),
        ({"become": "on"}, True, "sudo", None),
        ({"become": False}, False, "sudo", None),
        ({"become": "false"}, False, "sudo", None),
        ({"become": "no"}, False, "sudo", None),
        ({"become": None}, None, "sudo", None),
        ({"become": ""}, None, "sudo", None),
        ({"become_password": "p w"}, None, "sudo", "p w"),
        ({"become_pass": "p w"}, None, "sudo", "p w"),
        ({"sudo_pass": "p w"}, None, "sudo", "p w"),
        # Ansible takes the last of its names.
        ({"become_password": "a", "become_pass": "b", "sudo_pass": "c"}, None, "sudo", "c"),
        ({"become_password": 1234}, None, "sudo", "1234"),
        ({"become_method": "su", "su_pass": "x"}, None, "su", "x"),
        ({"become_method": "ansible.builtin.sudo"}, None, "sudo", None),
        # What is not used need not make sense.
        ({"become": False, "become_method": "doas", "become_user": "x"}, False, "sudo", None),
    ],
)
def test_variables(
    variables: dict[str, Any], wanted: bool | None, method: str, password: str | None
) -> None:
    found = become.of(host(**variables))
    assert (found.wanted, found.method, found.password) == (wanted, method, password)
    assert "p w" not in repr(found)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"become_method": "doas"}, "ansible_become_method 'doas' is not supported (use sudo or"),
        ({"become_method": "runas"}, "'runas' is not supported"),
        ({"become_method": "community.general.pfexec"}, "is not supported"),
        ({"become_user": "lab"}, "ansible_become_user is 'lab', and a chain needs root"),
        ({"sudo_user": "lab"}, "ansible_become_user is 'lab'"),
        ({"become_exe": "sudo; touch owned"}, "is not a program"),
        ({"become_exe": "-x"}, "is not a program"),
        ({"become_flags": "-p 'x"}, "ansible_become_flags: No closing quotation"),
    ],
)
def test_mistakes(variables: dict[str, Any], reason: str) -> None:
    with pytest.raises(BenchError) as caught:
        become.of(host(**variables))
    assert caught.value.host == "bravo"
    assert reason in caught.value.one_line()


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        (None, ("-H",)),
        ("-H -S -n", ("-H",)),
        ("-HSn", ("-H",)),
        ("-n", ()),
        ("--non-interactive --stdin -E", ("-E",)),
        ("-H --preserve-env='a b'", ("-H", "--preserve-env=a b")),
    ],
)
def test_flags(flags: str | None, kept: tuple[str, ...]) -> None:
    assert become.of(host(become_flags=flags)).flags == kept


class Pipes:
    """A local process that is spoken to as to paramiko's Channel."""

    def __init__(self, command: str, path: Path) -> None:
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}"},
        )
        self._timeout = 1.0

    def settimeout(self, timeout: float) -> None:
        self._timeout = timeout

    def _take(self, stream: Any, count: int) -> bytes:
        if not select.select([stream], [], [], self._timeout)[0]:
            raise TimeoutError
        return os.read(stream.fileno(), count)

    def recv(self, nbytes: int) -> bytes:
        return self._take(self.process.stdout, nbytes)

    def recv_stderr(self, nbytes: int) -> bytes:
        return self._take(self.process.stderr, nbytes)

    def recv_stderr_ready(self) -> bool:
        return bool(select.select([self.process.stderr], [], [], 0)[0])

    def sendall(self, s: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(s)

    def rest(self) -> bytes:
        """Close stdin and return what else is said."""
        return self.process.communicate(timeout=10)[0]


def talk(tmp_path: Path, how: become.Become, limit_s: float = 5.0, **scripts: str) -> str:
    """Start a program that says what it is given, as the scripts of these names allow."""
    for name, text in scripts.items():
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)
    start = become.Start(host(), how, "echo started; exec cat")
    assert how.password is None or how.password not in start.command
    pipes = Pipes(start.command, tmp_path)
    try:
        said = start.wait(pipes, limit_s)
        pipes.sendall(b"hello\n")
        return (said + pipes.rest()).decode()
    finally:
        pipes.process.kill()
        pipes.process.wait()
        for stream in (pipes.process.stdin, pipes.process.stdout, pipes.process.stderr):
            if stream is not None:
                stream.close()


# What sudo does: skip its own options, run the rest. It says that it was there.
RUN = """\
while [ "$1" != -- ]; do [ "$1" = -p ] && prompt=$2; shift; done; shift
"""
PASS = 'echo became >&2; exec "$@"'
ASK = """\
printf %s "$prompt" >&2; read -r word
[ "$word" = 'p w' ] || { echo 'Sorry, try again.' >&2; printf %s "$prompt" >&2; read -r word
  echo 'sudo: 1 incorrect password attempt' >&2; exit 1; }
"""
ROOT, LAB = "echo 0", "echo 1000"


@pytest.mark.parametrize("uid", [ROOT, LAB], ids=["root", "lab"])
@pytest.mark.parametrize("wanted", [None, True, False])
@pytest.mark.parametrize("password", [None, "p w"])
def test_who_becomes_root(
    tmp_path: Path, uid: str, wanted: bool | None, password: str | None
) -> None:
    """By sudo if ansible_become says so, or says nothing and the login is not root."""
    how = become.Become(wanted, password=password)
    sudo = f'{RUN}touch {tmp_path}/became\nexec "$@"'
    if wanted is False and uid == LAB:
        with pytest.raises(BenchError, match="commands do not run as root"):
            talk(tmp_path, how, sudo=sudo, id=uid)
        return
    assert talk(tmp_path, how, sudo=sudo, id=uid) == "started\nhello\n"
    by_sudo = wanted is True or (wanted is None and uid == LAB)
    assert (tmp_path / "became").exists() == by_sudo


def test_a_password_goes_only_to_whom_asks(tmp_path: Path) -> None:
    """sudo does not ask again for a while, or not at all: then the program would get it."""
    how = become.Become(True, password="p w")
    assert talk(tmp_path, how, sudo=RUN + PASS) == "started\nhello\n"
    assert talk(tmp_path, how, sudo=RUN + ASK + PASS) == "started\nhello\n"
    lecture = "echo 'We trust you have received the usual lecture.' >&2; sleep 0.3\n"
    assert talk(tmp_path, how, sudo=RUN + lecture + ASK + PASS) == "started\nhello\n"


def test_noise_of_a_login_is_passed_over(tmp_path: Path) -> None:
    noise = "echo Welcome; echo 'nobody reads this' >&2\n"
    assert talk(tmp_path, become.Become(True), sudo=noise + RUN + PASS) == "started\nhello\n"


def test_stderr_may_end_first(tmp_path: Path) -> None:
    """A closed pipe is ready to be read for ever, with nothing in it."""
    closes = "exec 2>&-; echo Welcome; sleep 0.3\n"
    assert talk(tmp_path, become.Become(True), sudo=closes + RUN + 'exec "$@"') == (
        "started\nhello\n"
    )


@pytest.mark.parametrize(
    ("script", "password", "reason"),
    [
        (RUN + ASK + PASS, "wrong", "sudo refuses the password (check ansible_become_password)"),
        ("echo 'sudo: a password is required' >&2; exit 1", None, "sudo wants a password (set"),
        ("echo 'sudo: sorry, you must have a tty to run sudo' >&2; exit 1", None, "a terminal"),
        (
            "echo 'lab is not in the sudoers file.  This incident will be reported.' >&2; exit 1",
            "p w",
            "sudo refused: lab is not in the sudoers file.",
        ),
        ("echo 'sudo: /etc/sudoers is world writable' >&2; exit 1", None, "sudo refused: sudo: /"),
        ("exit 3", None, "the login ends at once"),
        ("echo 'This account is not available'; exit 1", None, "This account is not available"),
        ("printf 'Verification code: ' >&2; exec sleep 60", "p w", "it says 'Verification code:'"),
        ("exec sleep 60", None, "sudo starts nothing within 3 s"),
        ("yes | head -c 100000; exec sleep 60", None, "starts nothing within 3 s, it says 'y'"),
    ],
)
def test_refusals(tmp_path: Path, script: str, password: str | None, reason: str) -> None:
    begin = time.monotonic()
    with pytest.raises(BenchError) as caught:
        talk(tmp_path, become.Become(True, password=password), limit_s=3.0, sudo=script)
    text = caught.value.one_line()
    assert reason in text
    assert "hopbench-" not in text
    assert caught.value.host == "bravo"
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("then", ["exit 1", "exec sleep 60"])
def test_a_login_that_says_again_what_it_is_told(tmp_path: Path, then: str) -> None:
    echoes = 'printf %s "$prompt" >&2; read -r word; echo "password is $word"\n'
    with pytest.raises(BenchError) as caught:
        talk(
            tmp_path,
            become.Become(True, password="p w"),
            limit_s=3.0,
            sudo=RUN + echoes + f"echo $word: no such user >&2; {then}",
        )
    assert "p w" not in caught.value.one_line()


def test_no_sudo(tmp_path: Path) -> None:
    how = become.Become(True, program=str(tmp_path / "sudo"))
    with pytest.raises(BenchError, match=r"sudo is not installed \(install it, or log in as root"):
        talk(tmp_path, how)
