"""``wsss serve``: predictions inside label tools."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.commands import Commands
from wsss.cli.importing import heavy_imports
from wsss.cli.options import CheckpointOption, Given, JsonOption, OutOption, configured

TOKEN = "WSSS_LABEL_STUDIO_TOKEN"
"""Variable of the environment with the token that Label Studio is asked with for its own images."""

app = Commands(help="Predictions inside label tools.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command("label-studio")
@configured(
    *("run", "images", "host", "port", "label_studio_url", "max_tasks", "max_pixels", "max_body"),
    *("config", "assignments", "predict.scales", "predict.flip", "predict.crf", "checkpoint", "run.device"),
    *("run.amp", "as_json"),
)
def label_studio(
    given: Given,
    run: Annotated[Path, typer.Argument(help="Run of train-seg, or a checkpoint file.")],
    *,
    images: Annotated[
        Path,
        typer.Option(
            help="Folder of the images: Label Studio's LOCAL_FILES_DOCUMENT_ROOT. Files outside of it are refused.",
            metavar="DIR",
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on; by default only this machine reaches it.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 9090,
    label_studio_url: Annotated[
        str,
        typer.Option(
            "--label-studio",
            help=f"Also fetch images that were uploaded to Label Studio, from this address alone; {TOKEN} is sent.",
            metavar="URL",
        ),
    ] = "",
    max_tasks: Annotated[int, typer.Option(min=1, help="Tasks of a request, at most.", metavar="N")] = 1000,
    max_pixels: Annotated[int, typer.Option(min=1, help="Pixels of an image, at most.", metavar="N")] = 50_000_000,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request, at most.", metavar="N")] = 2**25,
    checkpoint: CheckpointOption = "last",
    as_json: JsonOption = False,
) -> None:
    """Answer Label Studio's requests for predictions (its ML backend) until a signal or Ctrl-C.

    Brushes or polygons, as the project's labelling config has them, with a score a class and an image. Prints its
    address on standard output. There is no login: whoever reaches the address can have the images of --images
    segmented, nothing else.
    """
    from wsss.cli.terminal import remark
    from wsss.stopping import stop_requests

    early = given.check()
    with heavy_imports():
        from wsss.inference.segmenter import Segmenter
        from wsss.inference.settings import predict_words
        from wsss.machine import prepare_device
        from wsss.models.checkpoint import file_hash, load_network
        from wsss.serve.images import Images
        from wsss.serve.label_studio import LabelStudio
        from wsss.serve.server import LOOPBACK, Server

    source = Images(root=images, host=label_studio_url, token=os.environ.get(TOKEN, ""), max_pixels=max_pixels)
    device = prepare_device(early.run)
    network, trained, path = load_network(run, checkpoint)
    settings = given.resolve_for(trained)
    segmenter = Segmenter(network, settings, device)
    remark(predict_words(settings, trained))
    backend = LabelStudio(
        segmenter=segmenter, images=source, version=f"wsss-{file_hash(path)[:12]}", say=remark, max_tasks=max_tasks
    )
    with stop_requests() as stop, Server(backend, host, port, remark, max_body=max_body) as server:
        if host not in LOOPBACK:
            remark(f"whoever reaches {server.url} can have the images below {images} segmented", "yellow")
        remark(
            "start Label Studio with ML_BLOCK_LOCAL_IP=false SSRF_PROTECTION_ENABLED=false, or it refuses local "
            f"addresses; then Settings > Model > Connect Model: {server.url}"
        )
        facts = {"url": server.url, "model_version": backend.version, "classes": list(segmenter.classes)}
        typer.echo(json.dumps(facts) if as_json else server.url)
        server.serve_until(stop)
    remark(f"stopped by {stop.asked}")


@app.command()
@configured("run", "output", "checkpoint", "run.device", "as_json")
def cvat(
    given: Given,
    run: Annotated[Path, typer.Argument(help="Run of train-seg, or a checkpoint file.")],
    *,
    output: OutOption,
    checkpoint: CheckpointOption = "last",
    as_json: JsonOption = False,
) -> None:
    """Write a file for CVAT's auto-annotation: cvat-cli task auto-annotate TASK --function-file FILE.

    The file holds the path of the run, and gives masks, or polygons where CVAT asks for them, with a score. The network
    is loaded once here, so that a run that does not fit is refused now. Prints the path of the file on standard output.
    """
    from wsss.cli.terminal import remark
    from wsss.errors import WsssError

    config = given.check()
    with heavy_imports():
        from wsss.inference.segmenter import Segmenter
        from wsss.serve.cvat import require_sdk, write_function

    segmenter = Segmenter.load(run, device=config.run.device, checkpoint=checkpoint)
    path = write_function(output, run, device=config.run.device, checkpoint=checkpoint)
    try:
        require_sdk()
    except WsssError as error:
        remark(f"{error.problem} here; where cvat-cli runs: {error.fix}", "yellow")
    remark(f"cvat-cli task auto-annotate TASK --function-file {path} --allow-unmatched-labels")
    facts = {"output": str(path), "classes": list(segmenter.classes)}
    typer.echo(json.dumps(facts) if as_json else path)
