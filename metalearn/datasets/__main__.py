"""Datasets: prepare them once, see what is there.

  metalearn datasets check [NAME]     what is there and verified, and how to get the rest
  metalearn datasets prepare NAME [--raw=DIR] [--data_dir=DIR]
  metalearn datasets prepare images/NAME --raw=DIR [--image_size=84]
                                             DIR has CLASS/*.png, or {train,val,test}/CLASS/*.png

NAME is one of `metalearn list datasets` or a TFDS image-classification set. Preparing what TFDS makes needs the extra
`data` (TensorFlow); reading, omniglot, cifar_fs, emnist/letters and pictures of your own do not. Raw files are looked
for under METALEARN_DATA; prepared sets lie under TFDS_DATA_DIR, else ~/tensorflow_datasets.
"""

from metalearn import cli
from metalearn.datasets import preparing, sources
from metalearn.datasets.sources import made_or_listed
from metalearn.validate import one_of, require


def main() -> int:
    parser = cli.Parser(__doc__, prog="metalearn datasets")
    parser.add_argument("command", help="prepare or check")
    parser.add_argument("name", nargs="?", default="", help="a dataset's name")
    parser.add_argument("--raw", default="", help="folder with the original files")
    parser.add_argument("--data_dir", default="", help="where prepared sets lie")
    parser.add_argument("--image_size", type=int, default=0, help="side in pixels, for images/NAME")
    args = parser.parse()
    one_of(("prepare", "check"), command=args.command)
    if args.command == "check":
        return _check(args.name, args.data_dir)
    require(args.name != "", "name", "", "must be given: metalearn datasets prepare NAME")
    folder = preparing.prepare(args.name, args.raw, args.data_dir, args.image_size)
    dataset = sources.read_set(args.name, folder)
    print(f"{args.name} is prepared under {folder}: {len(dataset.y_N):,} images of {dataset.x_NX.shape[1:]}, "
          f"{len(dataset.class_V)} classes{', ' + dataset.note if dataset.note else ''}")
    cli.print_result({"name": args.name, "folder": folder, "examples": len(dataset.y_N),
                      "classes": len(dataset.class_V), "sha256": dataset.sha256})
    return 0


def _check(name: str, data_dir: str) -> int:
    reports = [preparing.check(n, data_dir, full=bool(name)) for n in ([name] if name else made_or_listed())]
    words = {"built in": "built in:", "own": "your own:", "ready": "prepared", "missing": "not here",
             "raw": "raw files, read as they are or prepared", "broken": "BROKEN"}
    for report in reports:
        print(f"{report['name']:16s} {words[report['state']]}{'  ' + report['where'] if report['where'] else ''}")
        for line in report["problems"] + (report["place"] if report["state"] in ("missing", "broken") and name else []):
            print("  " + line)
    states = {s: [r["name"] for r in reports if r["state"] == s] for s in words}
    cli.print_result(states)
    return cli.EXIT_CONFIG if states["broken"] or (name and states["missing"]) else 0


if __name__ == "__main__":
    cli.main(main)
