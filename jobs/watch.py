"""Watch a run while it works: curves, problems and completions, on a page that only this machine can open."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.cli import user_errors


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Serve the live page of a run on 127.0.0.1 until Ctrl-C.")
    parser.add_argument("run_dir", help="a run directory, such as output/experiments/exp_20261121_101500")
    parser.add_argument("--port", type=int, default=0, choices=range(65536), metavar="PORT", help="0: any free one")
    args = parser.parse_args(argv)

    with user_errors():
        from pipeline.run_page.server import LivePage

        with LivePage(Path(args.run_dir), args.port) as server:
            print(f"{server.url}\nCtrl-C stops watching; the run goes on.", flush=True)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print("stopped.")


if __name__ == "__main__":
    main()
