"""`python -m studies [NAME ... | all] [--list] [--quick] [--out DIR]`."""

import argparse
import sys
import time

import studies
from studies.report import save_together


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m studies", description="Runs studies, and writes their reports and figures."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"default: {' '.join(studies.DEFAULT)}"
    )
    parser.add_argument("--list", action="store_true", help="name the studies and stop")
    parser.add_argument("--quick", action="store_true", help="run small, to see that it works")
    parser.add_argument(
        "--out", default="results", metavar="DIR", help="folder of the results (results)"
    )
    options = parser.parse_args(argv)
    if options.list:
        for name in studies.NAMES:
            print(f"{name:12} {studies.about(name)}")
        return 0
    names = (
        list(studies.NAMES) if options.names == ["all"] else options.names or list(studies.DEFAULT)
    )
    try:
        for name in names:
            studies.find(name)
    except (ValueError, ModuleNotFoundError) as e:
        parser.error(str(e))
    reports = {}
    for name in names:
        begin = time.perf_counter()
        print(f"== {name}", flush=True)
        try:
            reports[name] = studies.run(name, options.out, options.quick, progress=True)
        except OSError as e:  # an unwritable folder, a full disk
            text = "\n".join([str(e), *getattr(e, "__notes__", [])])
            print(f"--out {options.out}: {text}\nWhat is whole there is kept.", file=sys.stderr)
            return 1
        print(
            f"{reports[name]}\n== {name}: {time.perf_counter() - begin:.0f} s, in {options.out}/{name}/",
            flush=True,
        )
    if len(reports) > 1:
        print(f"== all of them, with their figures: {save_together(reports, options.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
