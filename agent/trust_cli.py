"""`edge-agent trust`: the device's verifier by hand, against any TUF repository.

Options stand before the sub-command, as TUF's own conformance suite calls its clients:

    edge-agent trust --metadata-dir D init ROOT
    edge-agent trust --metadata-dir D --metadata-url U refresh
    edge-agent trust --metadata-dir D --metadata-url U --target-name N --target-base-url B --target-dir T download
"""

from dataclasses import dataclass
from pathlib import Path

import click

from ommatid.cli import Group, echo_json, examples


@dataclass(frozen=True, slots=True)
class Options:
    """What stands before the sub-command."""

    metadata_dir: Path
    metadata_url: str | None
    target_names: tuple[str, ...]
    target_base_url: str | None
    target_dir: Path | None


@click.group(cls=Group)
@click.option("--metadata-dir", type=click.Path(path_type=Path), required=True, help="Folder of trusted metadata.")
@click.option("--metadata-url", help="Where the repository's metadata is.")
@click.option("--target-name", "target_names", multiple=True, help="Path of a target; may be given again.")
@click.option("--target-base-url", help="Where the repository's targets are.")
@click.option("--target-dir", type=click.Path(path_type=Path), help="Folder for downloaded targets.")
@click.pass_context
def trust(
    ctx: click.Context,
    metadata_dir: Path,
    metadata_url: str | None,
    target_names: tuple[str, ...],
    target_base_url: str | None,
    target_dir: Path | None,
) -> None:
    """Verify a TUF repository by hand, as the agent does."""
    ctx.obj = Options(metadata_dir, metadata_url, target_names, target_base_url, target_dir)


@trust.command(epilog=examples("edge-agent trust --metadata-dir trusted init 1.root.json"))
@click.argument("root", type=click.Path(path_type=Path))
@click.pass_obj
def init(options: Options, root: Path) -> None:
    """Start trusting from ROOT, a root.json that you have from a safe place."""
    from ommatid.contract.trust import verifier  # noqa: PLC0415 - tuf takes 100 ms and 22 MB: not for `--help`

    verifier.init(options.metadata_dir, root)
    click.echo(f"{options.metadata_dir}: trusts what {root} leads to")


@trust.command(
    epilog=examples(
        "edge-agent trust --metadata-dir trusted \\", "    --metadata-url https://repo.example/metadata refresh"
    )
)
@click.option("--json", "as_json", is_flag=True, help="Print the versions as JSON.")
@click.pass_obj
def refresh(options: Options, *, as_json: bool) -> None:
    """Fetch and verify newer metadata."""
    from ommatid.contract.trust import verifier  # noqa: PLC0415 - as above

    if options.metadata_url is None:
        raise click.UsageError("`refresh` needs --metadata-url before it")
    versions = verifier.refresh(options.metadata_dir, options.metadata_url)
    if as_json:
        echo_json(versions)
    else:
        click.echo(", ".join(f"{role} {version}" for role, version in versions.items()))


@trust.command(
    epilog=examples(
        "edge-agent trust --metadata-dir trusted \\",
        "    --metadata-url https://repo.example/metadata \\",
        "    --target-base-url https://repo.example/targets \\",
        "    --target-name street.bundle --target-dir . download",
    )
)
@click.pass_obj
def download(options: Options) -> None:
    """Fetch and verify newer metadata, then the named targets."""
    from ommatid.contract.trust import verifier  # noqa: PLC0415 - as above

    url, base_url, folder = options.metadata_url, options.target_base_url, options.target_dir
    if url is None or base_url is None or folder is None or not options.target_names:
        raise click.UsageError(
            "`download` needs --metadata-url, --target-name, --target-base-url and --target-dir before it"
        )
    files = verifier.download(options.metadata_dir, url, options.target_names, base_url, folder)
    for path, fetched in files.items():
        click.echo(f"{path}: {'fetched' if fetched else 'up to date'}")
