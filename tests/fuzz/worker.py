"""One target under atheris, in a process of its own: `python -m tests.fuzz.worker NAME [options of libFuzzer] FOLDER`."""

import sys

import atheris


def main() -> None:
    """Watch what the code does with each input, and make the next ones accordingly, until the time is over."""
    with atheris.instrument_imports(include=["app"]):
        from tests.fuzz.targets import targets
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], targets()[name].check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
