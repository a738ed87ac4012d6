"""``python -m airflow_provider_floe``: what ``airflow floe`` does, for Airflow 3.1, which has no provider commands."""

from __future__ import annotations

import argparse

from airflow.cli.cli_config import GroupCommand

from airflow_provider_floe.cli import get_cli_commands


def main() -> None:
    """Parse the command line and run the command."""
    group = get_cli_commands()[0]
    parser = argparse.ArgumentParser(prog="python -m airflow_provider_floe", description=group.help)
    _add_commands(parser, group)
    args = parser.parse_args()
    args.func(args)


def _add_commands(parser: argparse.ArgumentParser, group: GroupCommand) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in group.subcommands:
        sub = commands.add_parser(command.name, help=command.help, description=command.description)
        if isinstance(command, GroupCommand):
            _add_commands(sub, command)
            continue
        for argument in command.args:
            argument.add_to_parser(sub)
        sub.set_defaults(func=command.func)


if __name__ == "__main__":
    main()
