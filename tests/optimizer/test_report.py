"""What `optimizer inspect` prints of a bundle, whoever made it."""

import io

from rich.console import Console

from optimizer.report import print_manifest
from tests.support.small_bundle import small_manifest

SAID = "[/conv] [red]\x1b]0;owned\x07 \x1b[2J"


def test_names_in_a_bundle_steer_no_terminal_and_are_no_markup() -> None:
    manifest = small_manifest()
    source = manifest.input.model_copy(update={"name": SAID})
    evidence = manifest.evidence.model_copy(update={"float_layers": (SAID,)})
    console = Console(file=io.StringIO(), width=200)

    print_manifest(manifest.model_copy(update={"input": source, "evidence": evidence}), 1, console)

    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert printed.count("[/conv] [red]") == 2
    assert not set(printed) & set("\x1b\x07")
