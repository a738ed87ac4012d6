"""``python -m harness.services install|start|stop|status [names]``: real servers, for contributors and tests."""

from __future__ import annotations

import argparse

from harness.services import running
from harness.services.registry import SERVICES, find

ACTIONS = ("install", "start", "stop", "status")
DEFAULT = ("s3", "rest", "trino-476")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m harness.services", description="Real servers for tests.")
    parser.add_argument("action", choices=(*ACTIONS, "keep", "stay"), metavar="|".join(ACTIONS))
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SERVICES)}; default: {', '.join(DEFAULT)}")
    arguments = parser.parse_args()
    names = arguments.names or (DEFAULT if arguments.action in ("install", "start") else tuple(SERVICES))
    for name in reversed(names) if arguments.action == "stop" else names:
        match arguments.action:
            case "install":
                find(name).install()
                print(f"{name}: installed")
            case "start":
                print(f"{name}: {_text(running.start(name))}", flush=True)
            case "stop":
                print(f"{name}: {'stopped' if running.stop_by_name(name) else 'was not running'}")
            case "status":
                facts = running.running_facts(name)
                print(f"{name}: {'down' if facts is None else _text(facts)}")
            case "keep" | "stay" as how:
                running.keep(name, stay=how == "stay")


def _text(facts: running.Facts) -> str:
    return "  ".join(f"{key}={value}" for key, value in facts.items())


if __name__ == "__main__":
    main()
