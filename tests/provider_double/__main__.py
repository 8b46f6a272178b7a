"""Starts the double: `python -m tests.provider_double --port 9000 --tokens 512 --token-rate 50`."""

import argparse
import asyncio

import uvloop

from tests.provider_double.server import Double, Options, serve, stdin_closes
from tests.provider_double.wheel import Wheel


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.provider_double", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one; it is announced on stdout")
    parser.add_argument("--tokens", type=int, default=Options.tokens, help="length of the default answer")
    parser.add_argument("--token-rate", type=float, default=Options.token_rate, help="tokens a second; 0: full speed")
    parser.add_argument("--stamped", action="store_true", help="the default answer's tokens are the time they left at")
    parser.add_argument("--events-per-chunk", type=int, default=Options.events_per_chunk, help="at full speed")
    parser.add_argument("--api-key", help="answer 401 to any other bearer token")
    parser.add_argument("--records", type=int, default=Options.records, help="how many requests are remembered")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the process that started this one")
    return parser.parse_args()


async def _serve(options: Options, port: int, *, with_stdin: bool) -> None:
    async def until(bound_port: int) -> None:
        print(f"http://127.0.0.1:{bound_port}/v1", flush=True)
        await (stdin_closes() if with_stdin else asyncio.Event().wait())

    await serve(Double(options, Wheel(asyncio.get_running_loop())).answer, port, until)


def main() -> None:
    """Serve until stdin closes or a signal ends the process."""
    given = vars(_arguments())
    port, with_stdin = given.pop("port"), given.pop("until_stdin_closes")

    uvloop.run(_serve(Options(**given), port, with_stdin=with_stdin))


if __name__ == "__main__":
    main()
