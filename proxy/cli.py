"""The commands: run, check, schema, explain, init, demo."""

import argparse
import os
import sys
from pathlib import Path

from proxy.resources import release

_DEFAULT_CONFIG = "config/gateway.yaml"


def main(argv: list[str] | None = None) -> int:
    """Runs one command; its exit status (contract: 0 fine, 1 failed, 2 a bad configuration)."""
    try:
        parser = _parser()
        args = parser.parse_args(argv)
        if getattr(args, "file", None) and args.config and args.file != args.config:
            parser.error(f"two gateway files are given: {args.file}, and -c {args.config}")
        return _dispatch(args)
    except BrokenPipeError:  # `sluicegate schema | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(args: argparse.Namespace) -> int:
    if args.command == "run":
        from proxy.process import run

        return run(_config(args.file or args.config))
    if args.command == "demo":
        from proxy.process import demo

        return demo()
    if args.command == "check":
        from proxy.policy.check import check

        return check(_config(args.file or args.config), strict=args.strict, as_json=args.json)
    if args.command == "init":
        from proxy.init import init

        return init(Path(args.folder))
    if args.command == "schema":
        from proxy.policy.schema import schema

        print(schema(args.which))
        return 0
    from proxy.admin.explain import explain_command

    return explain_command(
        _config(args.config), args.json, args.method, args.target, args.header, args.ip
    )


def _config(given: str | None) -> Path:
    """The file that is given, or $SLUICEGATE_CONFIG, or config/gateway.yaml."""
    return Path(given or os.environ.get("SLUICEGATE_CONFIG") or _DEFAULT_CONFIG)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sluicegate", description="A rate-limiting and caching reverse proxy."
    )
    parser.add_argument("--version", action="version", version=f"sluicegate {release()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        if name in ("run", "check"):
            sub.add_argument("file", nargs="?", metavar="FILE", help="the same as -c FILE")
        if name in ("run", "check", "explain"):
            sub.add_argument(
                "-c",
                dest="config",
                metavar="FILE",
                help=f"the gateway file (default: $SLUICEGATE_CONFIG or {_DEFAULT_CONFIG})",
            )
        return sub

    command("run", "Run the gateway in the foreground.")
    check = command("check", "Load everything and print every error and warning.")
    check.add_argument("--strict", action="store_true", help="take warnings as errors")
    check.add_argument("--json", action="store_true", help="print a JSON list")
    schema = command("schema", "Print the JSON Schema, for completion in an editor.")
    schema.add_argument("which", nargs="?", choices=("gateway", "policies"), default="gateway")
    explain = command("explain", "Say what would happen to a request, sending nothing.")
    explain.add_argument("--json", action="store_true", help="print JSON")
    explain.add_argument("method", metavar="METHOD")
    explain.add_argument("target", metavar="TARGET", help="a path with query, or an absolute URL")
    explain.add_argument(
        "-H", dest="header", action="append", default=[], metavar="'Name: value'", type=_header
    )
    explain.add_argument("--ip", default="127.0.0.1", metavar="ADDR", help="the peer's address")
    init = command("init", "Write a first gateway.yaml and limits.yaml.")
    init.add_argument("folder", nargs="?", default=".", metavar="DIR", help="where (default: here)")
    command("demo", "Start an example origin and the gateway in front of it.")
    return parser


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 'Name: value'")
    return name.strip(), value.strip()


if __name__ == "__main__":
    sys.exit(main())
