"""Tables for people; the same facts as --json."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ommatid.contract.manifest import Manifest
from ommatid.text import printable
from optimizer.outcome import BuildReport

MEGABYTE = 1_000_000


def print_report(report: BuildReport, console: Console) -> None:
    """Print what a build gave, against the float model."""
    console.print(Text(printable(str(report.bundle)), "bold"), soft_wrap=True)
    table = Table("", "float", "build", "", box=None, pad_edge=False)
    ratio = report.float_model_bytes / report.model_bytes
    faster = report.float_latency_ms / report.latency_ms
    table.add_row("model", _mb(report.float_model_bytes), _mb(report.model_bytes), _times(ratio, "smaller", "larger"))
    table.add_row(
        "latency, 1 thread",
        f"{report.float_latency_ms:.1f} ms",
        f"{report.latency_ms:.1f} ms",
        _times(faster, "faster", "slower"),
    )
    name = "agreement F1" if report.metric == "agreement_f1" else "agreement, top 1"
    table.add_row(name, "1", f"{report.agreement_f1:.4f}", f"{report.objects} objects in {report.images} images")
    if report.accuracy is not None and report.float_accuracy is not None:
        table.add_row("accuracy", f"{report.float_accuracy:.4f}", f"{report.accuracy:.4f}", f"{report.images} images")
    table.add_row("golden samples", "", f"{report.golden_agreement:.4f}", f"{report.golden_samples} images")
    table.add_row("gate", "", report.gate, "")
    table.add_row("bundle", "", _mb(report.size_bytes), f"built in {report.seconds:.0f} s")
    console.print(table)
    for step in report.lineage:
        console.print(Text(printable(f"  {step.name}: {'; '.join(step.facts)}")), soft_wrap=True)
    for text in report.assumptions:
        console.print(Text(printable(f"assumed: {text}")), soft_wrap=True)
    for text in report.warnings:
        console.print(Text.assemble(("warning:", "yellow"), printable(f" {text}")), soft_wrap=True)


def print_manifest(manifest: Manifest, size_bytes: int, console: Console) -> None:
    """Print what a bundle says of itself."""
    source, evidence = manifest.input, manifest.evidence
    table = Table("field", "value", box=None, pad_edge=False, show_header=False)
    for field, value in (
        ("model", f"{manifest.name} {manifest.version} for {manifest.target}"),
        ("runs on", f"{', '.join(manifest.compatible.arch)}, about {_mb(manifest.compatible.memory_bytes)} of memory"),
        ("runtime", f"{manifest.runtime.format} {manifest.runtime.minimum_version} or newer"),
        ("input", f"{source.name} {source.shape} {source.dtype} {source.color}, {source.resize}"),
        ("task", f"{manifest.task.kind}, {manifest.task.decode.family}, threshold {manifest.task.score_threshold:g}"),
        ("evidence", f"{evidence.metric} {evidence.value:.4f} on {evidence.images} images, gate {evidence.gate}"),
        ("steps", ", ".join(f"{step.step} {step.value:.4f}" for step in evidence.steps)),
        ("float layers", ", ".join(evidence.float_layers) or "none"),
        ("golden samples", f"{len(manifest.golden.samples)}, agreement at least {manifest.golden.minimum_agreement:g}"),
        ("model size", f"{_mb(evidence.size_bytes)} (float {_mb(evidence.reference_size_bytes)})"),
        ("bundle size", f"{_mb(size_bytes)} in {len(manifest.files)} files"),
        ("source", manifest.provenance.source_sha256),
        ("tools", ", ".join(f"{name} {version}" for name, version in manifest.provenance.tools.items())),
    ):
        table.add_row(field, Text(printable(value)))
    console.print(table, highlight=False)


def _times(ratio: float, better: str, worse: str) -> str:
    return f"{ratio:.1f}x {better}" if ratio >= 1 else f"{1 / ratio:.1f}x {worse}"


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / MEGABYTE:.2f} MB"
