"""The `optimizer` program: build, inspect, verify, targets."""

from pathlib import Path
from typing import Any, Final

import click
from click.formatting import wrap_text
from rich.console import Console

from ommatid.cli import Group, configure_logging, echo_json, examples, run_cli, version_option
from ommatid.contract.bundle import read_manifest
from ommatid.errors import BundleError
from optimizer.preprocessing import Size
from optimizer.request import BuildRequest, Effort, GateRule, Sampling, Stated
from optimizer.targets import all_targets, target

_PATH: Final = click.Path(path_type=Path)
_SHARE: Final = click.FloatRange(0, 1)
_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


class Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers with commas between them: `127.5` or `123.7,116.3,103.5`."""

    name = "N[,N,N]"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[float, ...]:
        """Return the numbers."""
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value} is not a list of numbers", param, ctx)


class PictureSize(click.ParamType[Size]):
    """HEIGHTxWIDTH, such as 320x320."""

    name = "HxW"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Size:
        """Return the size."""
        height, _, width = str(value).lower().partition("x")
        if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
            self.fail(f"{value} is not HEIGHTxWIDTH, such as 320x320", param, ctx)
        return Size(int(height), int(width))


@click.group(cls=Group)
@version_option("optimizer")
def cli() -> None:
    """Turn a float vision model into a bundle: smaller, faster, and proven on real images."""
    configure_logging()


@cli.command(
    short_help="Build a bundle from an ONNX or TFLite model.",
    epilog=examples(
        "optimizer build net.onnx --target fp32 --decode classification \\",
        "    --labels labels.txt --validate photos/",
        "optimizer build detector.tflite --target int8-arm --decode ssd \\",
        "    --labels labels.txt --calibrate 'day.mp4#t=0,60' \\",
        "    --validate 'evening.mp4#t=0,60' --name street --version 2 -o bundles/",
    ),
)
@click.argument("model", type=_PATH)
@click.option("--target", "target_name", required=True, metavar="NAME", help="See `optimizer targets`.")
@click.option("--decode", required=True, metavar="FAMILY|FILE", help="ssd, classification, or a TOML file.")
@click.option("--validate", required=True, metavar="FOLDER|VIDEO", help="Images to be judged on; VIDEO#t=40,75.")
@click.option("--calibrate", metavar="FOLDER|VIDEO", help="Images to learn value ranges from; int8 needs them.")
@click.option("--labels", type=_PATH, metavar="FILE", help="One label a line, in the order of the scores.")
@click.option("--name", metavar="NAME", help="Name of the model; default: that of its file.")
@click.option("--version", "model_version", default="1", show_default=True, help="Version of the model.")
@click.option(
    "-o",
    "--output",
    type=_PATH,
    default=Path(),
    metavar="DIR|FILE",
    help="Where the bundle goes; a file ends in .bundle.",
)
@click.option("--min-agreement", type=_SHARE, default=0.97, show_default=True, help="With the float model.")
@click.option("--max-drop", type=_SHARE, help="Allowed loss of accuracy, a share; needs class folders.")
@click.option("--no-gate", is_flag=True, help="Pack what the gate refuses; the bundle says so.")
@click.option("--no-search", is_flag=True, help="Build and judge one recipe.")
@click.option("--per-tensor", is_flag=True, help="One scale for all channels of a weight: coarser, for old runtimes.")
@click.option(
    "--max-float-layers", type=click.IntRange(0), default=8, show_default=True, help="Most layers left in float."
)
@click.option(
    "--time-budget", type=click.FloatRange(0), default=600.0, show_default=True, help="Seconds for the search."
)
@click.option("--images", type=click.IntRange(1), default=60, show_default=True, help="Most images of each set.")
@click.option("--stride", type=click.IntRange(1), help="Every N-th image; default: spread over all.")
@click.option("--mean", type=Numbers(), help="Subtracted from each pixel of 0-255.")
@click.option("--scale", type=Numbers(), help="Multiplies what is left.")
@click.option("--color", type=click.Choice(["rgb", "bgr", "gray"]), help="Channel order of the model.")
@click.option(
    "--resize", type=click.Choice(["stretch", "letterbox"]), help="How a picture is brought to the input's size."
)
@click.option("--input-size", type=PictureSize(), help="For a model whose size is open.")
@click.option("--score-threshold", type=_SHARE, help="Least confidence of a detection.")
@click.option("--iou-threshold", type=_SHARE, help="Overlap from which two boxes are one.")
@_JSON
def build(**options: Any) -> None:  # noqa: ANN401 - one value an option above
    """Build a bundle from MODEL, an ONNX or TFLite file; refuse it if it lost too much."""
    from optimizer.build import build as run_build  # noqa: PLC0415 - onnx and its friends take a second to import
    from optimizer.progress import Terminal  # noqa: PLC0415 - as above
    from optimizer.report import print_report  # noqa: PLC0415 - as above

    report = run_build(_request(options), Terminal())
    if options["as_json"]:
        echo_json(report)
    else:
        print_report(report, Console())


def _request(options: dict[str, Any]) -> BuildRequest:
    model: Path = options["model"]
    return BuildRequest(
        model=model,
        target=target(options["target_name"]),
        decode=options["decode"],
        validate=options["validate"],
        calibrate=options["calibrate"],
        labels=options["labels"],
        name=options["name"] or model.stem.lower(),
        version=options["model_version"],
        output=options["output"],
        stated=Stated(
            options["mean"],
            options["scale"],
            options["color"],
            options["resize"],
            options["input_size"],
            options["score_threshold"],
            options["iou_threshold"],
        ),
        gate=GateRule(options["min_agreement"], options["max_drop"], not options["no_gate"]),
        effort=Effort(
            not options["no_search"], not options["per_tensor"], options["max_float_layers"], options["time_budget"]
        ),
        sampling=Sampling(options["images"], options["stride"]),
    )


@cli.command(
    epilog=examples(
        "optimizer inspect street-2-int8-arm.bundle",
        "optimizer inspect street-2-int8-arm.bundle --json | jq .manifest.evidence",
    )
)
@click.argument("bundle", type=_PATH)
@_JSON
def inspect(bundle: Path, as_json: bool) -> None:  # noqa: FBT001 - click passes a flag
    """Print what BUNDLE says of itself."""
    manifest = read_manifest(bundle)
    if as_json:
        echo_json({"bundle": bundle, "size_bytes": bundle.stat().st_size, "manifest": manifest})
        return
    from optimizer.report import print_manifest  # noqa: PLC0415 - rich and onnx are slow to import

    print_manifest(manifest, bundle.stat().st_size, Console())


@cli.command(epilog=examples("optimizer verify street-2-int8-x86.bundle"))
@click.argument("bundle", type=_PATH)
@_JSON
def verify(bundle: Path, as_json: bool) -> None:  # noqa: FBT001 - click passes a flag
    """Check BUNDLE on this machine: structure, digests, golden samples."""
    from optimizer.verify import verify as run_verify  # noqa: PLC0415 - a runtime takes a second to import

    verification = run_verify(bundle)
    if as_json:
        echo_json(verification)
    elif verification.passed:
        click.echo(f"{bundle}: {verification.files} files match their digests; {verification.summary}")
    if not verification.passed:
        raise BundleError(
            f"{bundle}: its golden samples fail: {verification.summary}", hint="devices will refuse it: build it again"
        )


@cli.command(epilog=examples("optimizer targets", "optimizer targets --json"))
@_JSON
def targets(as_json: bool) -> None:  # noqa: FBT001 - click passes a flag
    """List what can be built, and why so."""
    if as_json:
        echo_json(list(all_targets().values()))
        return
    for each in all_targets().values():
        click.echo(f"{each.name:10} {each.scheme}, {', '.join(each.formats)}, on {', '.join(each.arch)}")
        click.echo(wrap_text(each.reason, 80, " " * 11, " " * 11))


def main() -> None:
    """Run the program."""
    run_cli(cli)


if __name__ == "__main__":
    main()
