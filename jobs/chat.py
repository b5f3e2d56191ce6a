"""Ask a trained model a question."""

import argparse
import sys
from pathlib import Path

from pipeline.cli import positive, user_errors


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="a finished run")
    parser.add_argument("question", nargs="?", help="without it: read questions from standard input, one per line")
    parser.add_argument("--max-new-tokens", type=positive, default=256)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default: 0)")
    parser.add_argument("--show-entries", action="store_true", help="show the memory entries that the model reads")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run Python code that comes with the model; read it first"
    )
    arguments = parser.parse_args(argv)
    with user_errors():
        from pipeline.evaluation.chat import ChatModel

        chat = ChatModel(Path(arguments.run_dir), trust_remote_code=arguments.trust_remote_code)
        questions = [arguments.question] if arguments.question else map(str.strip, sys.stdin)
        for question in filter(None, questions):
            reply = chat.reply(question, arguments.max_new_tokens, arguments.temperature)
            print(reply.text, flush=True)
            for entry in reply.entries if arguments.show_entries else []:
                print(f"  read: {entry}", flush=True)


if __name__ == "__main__":
    main()
