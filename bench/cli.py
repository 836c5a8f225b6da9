# SPDX-License-Identifier: Apache-2.0
"""The `bench` command: its subcommands, loaded when asked for, and how errors reach a user."""

from __future__ import annotations

import importlib
import signal
import sys
from typing import Any, NoReturn

import click

from bench import __version__
from bench.errors import BenchError, Interrupted

# subcommand -> (module in bench.commands, name of its click command)
_COMMANDS = {
    "lab": ("lab", "lab_group"),
    "deploy": ("deploy", "deploy_command"),
    "undeploy": ("deploy", "undeploy_command"),
    "doctor": ("doctor", "doctor_command"),
    "run": ("run", "run_command"),
    "list": ("list_", "list_command"),
    "show": ("show", "show_command"),
    "compare": ("compare", "compare_command"),
    "report": ("report", "report_command"),
    "diagnose": ("diagnose", "diagnose_command"),
    "trace": ("trace", "trace_command"),
    "datapath": ("datapath", "datapath_command"),
    "reproduce": ("reproduce", "reproduce_command"),
    "clean": ("clean", "clean_command"),
}

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Lazy(click.Group):
    """Imports a subcommand's module only when it is needed: pandas alone takes half a second."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(f"bench.commands.{module}"), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hopbench")
def cli() -> None:
    """Measure what a forwarding hop costs: native XDP, nftables and socat, hop by hop.

    Start with `bench run`: as root on Linux it makes a chain of network namespaces, measures it
    and removes it again.
    """


def _interrupt(number: int, _frame: object) -> NoReturn:
    # Once is enough: what follows is the clean-up, and it is bounded in time.
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(signal.Signals(number).name)


def main() -> None:
    """Run a command: 0 success, 1 a failure explained in one line, 2 wrong usage."""
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    try:
        result: Any = cli.main(standalone_mode=False)
        status = result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        status = error.exit_code
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "bench"
        text = " ".join(error.format_message().split())
        _fail(f"{text} (see {command} --help)", 2)
    except click.ClickException as error:
        _fail(error.format_message(), 1)
    except BenchError as error:
        _fail(error.one_line(), error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:
        # click makes an Abort of every KeyboardInterrupt; the cause knows the signal.
        _fail(f"interrupted ({str(error.__cause__ or error) or 'by the terminal'})", 1)
    except BrokenPipeError:
        # The reader of our output has gone, as with `| head`.
        sys.stderr.close()
        status = 1
    except (OSError, RecursionError, MemoryError) as error:
        _fail(f"{type(error).__name__}: {error}", 1)
    sys.exit(status)


def _fail(text: str, status: int) -> NoReturn:
    print(f"bench: {text}", file=sys.stderr)
    sys.exit(status)
