"""``python -m airflow_provider_floe``: what ``airflow floe`` does, for Airflow 3.1, which has no provider commands."""

from __future__ import annotations

import argparse

from airflow_provider_floe.cli import get_cli_commands


def main() -> None:
    """Parse the command line and run the command."""
    group = get_cli_commands()[0]
    parser = argparse.ArgumentParser(prog="python -m airflow_provider_floe", description=group.help)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in group.subcommands:
        sub = commands.add_parser(command.name, help=command.help, description=command.description)
        for argument in command.args:
            argument.add_to_parser(sub)
        sub.set_defaults(func=command.func)
    args = parser.parse_args()
    args.func(args)


if __name__ == "__main__":
    main()
