"""The commands: run, check, schema, explain, demo."""

import argparse
import os
import sys
from pathlib import Path

from proxy.resources import release

_DEFAULT_CONFIG = "config/gateway.yaml"


def main(argv: list[str] | None = None) -> int:
    """Runs one command; its exit status (contract: 0 fine, 1 failed, 2 a bad configuration)."""
    try:
        return _dispatch(_parser().parse_args(argv))
    except BrokenPipeError:  # `sluicegate schema | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(args: argparse.Namespace) -> int:
    if args.command == "run":
        from proxy.process import run

        return run(_config(args.config))
    if args.command == "demo":
        from proxy.process import demo

        return demo()
    if args.command == "check":
        from proxy.policy.check import check

        return check(_config(args.config))
    if args.command == "schema":
        from proxy.policy.schema import schema

        print(schema(args.file))
        return 0
    from proxy.admin.explain import explain_command

    return explain_command(
        _config(args.config), args.json, args.method, args.target, args.header, args.ip
    )


def _config(given: str | None) -> Path:
    """`-c FILE`, or $SLUICEGATE_CONFIG, or config/gateway.yaml."""
    return Path(given or os.environ.get("SLUICEGATE_CONFIG") or _DEFAULT_CONFIG)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sluicegate", description="A rate-limiting and caching reverse proxy."
    )
    parser.add_argument("--version", action="version", version=f"sluicegate {release()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        if name not in ("schema", "demo"):
            sub.add_argument(
                "-c",
                dest="config",
                metavar="FILE",
                help=f"the gateway file (default: $SLUICEGATE_CONFIG or {_DEFAULT_CONFIG})",
            )
        return sub

    command("run", "Run the gateway in the foreground.")
    command("check", "Load everything and print every error and warning.")
    schema = command("schema", "Print the JSON Schema, for completion in an editor.")
    schema.add_argument("file", nargs="?", choices=("gateway", "policies"), default="gateway")
    explain = command("explain", "Say what would happen to a request, sending nothing.")
    explain.add_argument("--json", action="store_true", help="print JSON")
    explain.add_argument("method", metavar="METHOD")
    explain.add_argument("target", metavar="TARGET", help="a path with query, or an absolute URL")
    explain.add_argument(
        "-H", dest="header", action="append", default=[], metavar="'Name: value'", type=_header
    )
    explain.add_argument("--ip", default="127.0.0.1", metavar="ADDR", help="the peer's address")
    command("demo", "Start an example origin and the gateway in front of it.")
    return parser


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 'Name: value'")
    return name.strip(), value.strip()


if __name__ == "__main__":
    sys.exit(main())
