"""Download the model and the data of a recipe ahead of time, and print where they are.

python jobs/fetch.py --config configs/X.yaml [key=value ...]
"""

import argparse
from collections.abc import Sequence

from pipeline.cli import user_errors


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="a recipe from configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ from the recipe")
    arguments = parser.parse_args(argv)

    with user_errors():
        from pipeline.config import load_config
        from pipeline.data import load_problems
        from pipeline.models.hub import resolve_model

        config = load_config(arguments.config, arguments.overrides)
        print(f"model {config.model.name}: {resolve_model(config.model)}")
        train, held_out = load_problems(config.data, "train"), load_problems(config.data, "eval")
        print(f"data {config.data.name}: {len(train)} training and {len(held_out)} held-out problems")


if __name__ == "__main__":
    main()
