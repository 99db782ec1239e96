"""The whole build: read, normalise, embed, quantize, judge, gate, pack."""

import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ommatid.errors import BadInputError
from ommatid.vision.reference import ReferenceProfile
from ommatid.vision.resize import InputPacker, Resizer
from ommatid.vision.signals import measure
from optimizer import gate, graph
from optimizer.artifact import Artifact, Pass
from optimizer.calibrate import calibrate
from optimizer.images import ImageSet, Picture, load_images
from optimizer.measure import Bench, accuracy, agreement
from optimizer.outcome import BuildReport, FloatModel, Images, Metric, Outcome
from optimizer.passes.embed import Embed
from optimizer.passes.importing import CheckConversion, read_model, source_format
from optimizer.passes.normalise import Normalise
from optimizer.preprocessing import Preprocessing, Size, resolve
from optimizer.progress import Steps
from optimizer.request import BuildRequest, bundle_path
from optimizer.search import Judgement, Try, best, search
from optimizer.task import DecodeFile, read_decode, resolve_task, task_spec

CHECKED_PICTURES: Final = 4
PROBES: Final = 6


def build(request: BuildRequest, steps: Steps) -> BuildReport:
    """Build one bundle.

    Raises:
        BadInputError: The model, the images or an option cannot be used.
        ConversionError: The model cannot be carried over.
        GateError: It lost too much; no bundle is written.
        StorageError: The bundle cannot be written; nothing is left behind.
    """
    started = time.perf_counter()
    output = bundle_path(request)
    _check_calibration(request)
    stated = read_decode(request.decode)
    preprocessing, assumptions = _preprocessing(request, stated)
    with tempfile.TemporaryDirectory(prefix="optimizer-") as scratch:
        with steps.step("read and normalise the model"):
            core = Normalise(request.stated.input_size)(read_model(request.model))
        size = picture_size(core)
        overrides = {
            "score_threshold": request.stated.score_threshold,
            "iou_threshold": request.stated.iou_threshold,
        }
        resolved = resolve_task(stated, core.model, size, request.labels, overrides)
        bench = Bench(Path(scratch), request.name, size, preprocessing, task_spec(resolved.task), resolved.labels)
        images = _images(request, bench, steps)
        gate.check_rule(
            request.gate,
            labelled=images.validation.labelled,
            classification=resolved.task.kind == "classification",
        )
        float_model = _float_model(request, bench, core, images.validation, steps)
        tries = _tries(request, bench, float_model, images, steps)
        metric: Metric = "agreement_f1" if resolved.task.kind == "detection" else "agreement_top1"
        choice = best(tries)
        gate.enforce(request.gate, choice, len(tries), metric, float_model.accuracy)
        baseline = float_model.folded if request.target.quantized else float_model.reference
        with steps.step("latency, in turns with the float model"):
            latency_ms, float_latency_ms = bench.latencies_ms((choice.artifact, baseline), images.validation.pictures)
        done = Outcome(request, resolved, bench, images, float_model, tries, choice, metric)
        with steps.step("golden samples and bundle"):
            golden = done.write(output)
        return done.report(
            output,
            golden,
            (latency_ms, float_latency_ms),
            (*assumptions, *resolved.assumptions),
            time.perf_counter() - started,
        )


def picture_size(core: Artifact) -> Size:
    """Return the height and width that a normalised model takes."""
    shape = graph.shape_of(graph.image_input(core.model))
    return Size(*(shape[2:4] if shape[1] in {1, 3} else shape[1:3]))


def input_tensor(bench: Bench, picture: Picture) -> NDArray[np.uint8]:
    """Return a picture as the device would hand it to the graph."""
    source = bench.preprocessing
    resizer = Resizer(source.resize, bench.size.width, bench.size.height, source.pad_value)
    shape = (1, bench.size.height, bench.size.width, source.channels)
    packer = InputPacker(shape, "uint8", "NHWC", source.color)
    return np.asarray(packer.pack(resizer.resize(picture)[0]), np.uint8).copy()


def _preprocessing(request: BuildRequest, decode: DecodeFile) -> tuple[Preprocessing, tuple[str, ...]]:
    """Options first, then the decode file, then the family's defaults."""
    said, filed = request.stated, decode.input
    return resolve(
        decode.family,
        mean=said.mean or filed.mean,
        scale=said.scale or filed.scale,
        color=said.color or filed.color,
        resize=said.resize or filed.resize,
    )


def _check_calibration(request: BuildRequest) -> None:
    if request.target.quantized and request.calibrate is None:
        raise BadInputError(
            f"--target {request.target.name} needs calibration images",
            hint="about 60 images of what the camera will see: --calibrate FOLDER or VIDEO#t=0,30",
        )


def _images(request: BuildRequest, bench: Bench, steps: Steps) -> Images:
    rule, size = bench.preprocessing.resize, (bench.size.width, bench.size.height)
    measured: list[dict[str, float]] = []
    calibration = None

    def watch(picture: Picture) -> None:
        measured.append(measure(picture))

    with steps.step("read the images"):
        if request.calibrate is not None and request.target.quantized:
            calibration = load_images(request.calibrate, request.sampling, rule=rule, input_size=size, watch=watch)
        # What a model was not calibrated on, its training images are best known by what it was validated on.
        own = watch if calibration is None else _ignore
        validation = load_images(request.validate, request.sampling, rule=rule, input_size=size, watch=own)
    return Images(validation, calibration, ReferenceProfile.of(measured))


def _ignore(picture: Picture) -> None:
    """Take no measure of a picture."""


def _float_model(request: BuildRequest, bench: Bench, core: Artifact, images: ImageSet, steps: Steps) -> FloatModel:
    """Prove the import, embed the preprocessing, and note what the float model finds: the reference from here on."""
    passes: list[Pass] = [Embed(bench.preprocessing)]
    if source_format(request.model) == "tflite":
        passes.insert(0, CheckConversion(request.model, images.pictures[:CHECKED_PICTURES], bench.preprocessing))
    with steps.step("embed the preprocessing"):
        folded = core
        for each in passes:
            folded = each(folded)
        reference = Embed(bench.preprocessing, fold=False)(core)
    with steps.step("float model on the validation images", len(images)) as tick:
        results = bench.results(reference, images.pictures, tick)
    gate.check_evidence(agreement(results, results).seen, len(images))
    exact = accuracy(results, images, bench.labels) if _judged_by_labels(bench, images) else None
    return FloatModel(reference, folded, results, exact)


def _judged_by_labels(bench: Bench, images: ImageSet) -> bool:
    return bench.task.kind == "classification" and images.labelled and set(images.labels) <= set(bench.labels)


def _tries(
    request: BuildRequest, bench: Bench, float_model: FloatModel, images: Images, steps: Steps
) -> tuple[Try, ...]:
    """Return every recipe that was built and judged, the float model with its preprocessing inside first."""
    validation = images.validation

    def judge(artifact: Artifact) -> Judgement:
        with steps.step("agreement on the validation images", len(validation)) as tick:
            results = bench.results(artifact, validation.pictures, tick)
        agreed = agreement(results, float_model.results)
        right = None if float_model.accuracy is None else accuracy(results, validation, bench.labels)
        figures = Judgement(agreed, right, passed=False)
        return Judgement(agreed, right, gate.judge_against(request.gate, figures, float_model.accuracy))

    if images.calibration is None:
        return (Try("preprocessing inside", float_model.folded, judge(float_model.folded)),)
    tensors = [input_tensor(bench, picture) for picture in images.calibration.pictures]
    with steps.step("calibrate", len(tensors)) as tick:
        seen = calibrate(float_model.folded.model, tensors, tick)
    return search(float_model.folded, seen, tensors[:: max(1, len(tensors) // PROBES)], judge, request.effort, steps)
