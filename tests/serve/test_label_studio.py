"""`wsss serve label-studio`: requests of the documented shape, and hostile ones, through a real socket."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from wsss.config import Config
from wsss.data.writers.label_studio import brush
from wsss.inference.segmenter import Segmenter
from wsss.models.checkpoint import save_checkpoint
from wsss.models.network import Network
from wsss.serve.images import Images
from wsss.serve.label_studio import LabelStudio
from wsss.serve.server import Server
from wsss.stopping import StopRequest

BRUSHES = """<View><Image name="photo" value="$picture"/><BrushLabels name="area" toName="photo">
<Label value="ladybird"/><Label value="bee"/></BrushLabels></View>"""
POLYGONS = BRUSHES.replace("Brush", "Polygon")
TOKEN = "5ec4e7" * 6


@pytest.fixture
def network(small_network: Callable[..., Network]) -> Network:
    """Its decoder predicts all classes."""
    network = small_network()
    torch.manual_seed(2)
    assert network.decoder is not None
    torch.nn.init.normal_(network.decoder.classify.weight, std=3.0)
    return network


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with images, beside a secret one."""
    root = tmp_path / "photos"
    (root / "deep er").mkdir(parents=True)
    noise_HW3 = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    for path in (root / "a.png", root / "deep er" / "é.jpg", tmp_path / "secret.png"):
        Image.fromarray(noise_HW3).save(path)
    (root / "notes.txt").write_text("private")
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "up").symlink_to(tmp_path)
    Image.new("1", (4000, 3000)).save(root / "large.png")
    return root


class Client:
    """Speaks to a server as Label Studio does, and keeps what the server said."""

    def __init__(self, server: Server, said: list[str]) -> None:
        self.address, self.said = server.server_address[:2], said

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str, dict[str, Any]]:
        connection = http.client.HTTPConnection(str(self.address[0]), int(self.address[1]), timeout=20)
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        names = {"Content-Type": "application/json"} | {key.replace("_", "-"): text for key, text in headers.items()}
        connection.request(method, path, content, names)
        answer = connection.getresponse()
        made = json.loads(answer.read())
        connection.close()
        return answer.status, answer.reason, made

    def predict(self, *names: Any, config: Any = BRUSHES) -> tuple[int, str, dict[str, Any]]:
        tasks = [{"id": 7 + i, "data": {"picture": name}, "annotations": []} for i, name in enumerate(names)]
        params = {"login": None, "password": None, "context": None}
        return self.ask(
            "POST", "/predict", {"tasks": tasks, "project": "1.170", "label_config": config, "params": params}
        )


@pytest.fixture
def serve(network: Network, photos: Path, tiny_config: Callable[..., Config]) -> Iterator[Callable[..., Client]]:
    stop, running = StopRequest(), []

    def start(*, max_body: int = 2**20, **settings: Any) -> Client:
        said: list[str] = []
        segmenter = Segmenter(network, tiny_config(), torch.device("cpu"))
        images = Images(root=photos, max_pixels=10**7, **settings)
        backend = LabelStudio(segmenter=segmenter, images=images, version="wsss-1", say=said.append, max_tasks=3)
        server = Server(backend, "127.0.0.1", 0, said.append, max_body=max_body)
        thread = threading.Thread(target=server.serve_until, args=(stop,))
        thread.start()
        running.append((server, thread))
        return Client(server, said)

    yield start
    stop.asked = "SIGTERM"
    for server, thread in running:
        thread.join()
        server.server_close()


def unpacked(rle: list[int]) -> NDArray[np.uint8]:
    """The values of a brush: Label Studio's decoder, written from its description."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    at = 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total, width = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        is_run, length = read(1), read(sizes[read(2)]) + 1
        values += [read(width)] * length if is_run else [read(width) for _ in range(length)]
    return np.array(values, np.uint8)


def test_the_documented_requests(serve: Callable[..., Client], network: Network, photos: Path) -> None:
    client = serve()
    assert client.ask("GET", "/health")[2] == {"status": "UP", "model_class": "wsss"}
    assert client.ask("GET", "/versions")[2] == {"versions": ["wsss-1"]}
    setup = {"project": "1.170", "schema": BRUSHES, "hostname": "http://h", "access_token": TOKEN, "extra_params": None}
    assert client.ask("POST", "/setup", setup)[::2] == (200, {"model_version": "wsss-1"})
    assert client.ask("POST", "/webhook", {"action": "ANNOTATION_CREATED", "project": {}, "task": {}})[0] == 200
    status, _, made = client.predict("/data/local-files/?d=deep%20er/%C3%A9.jpg", "a.png")
    assert status == 200
    assert TOKEN not in "".join(client.said)
    assert len(made["results"]) == 2

    one = made["results"][1]
    assert one["model_version"] == "wsss-1"
    assert 0 < one["score"] < 1
    regions = {region["value"]["brushlabels"][0]: region for region in one["result"]}
    assert set(regions) == {"bee", "ladybird"}
    for name, region in regions.items():
        assert (region["from_name"], region["to_name"], region["type"]) == ("area", "photo", "brushlabels")
        assert (region["original_width"], region["original_height"]) == (56, 40)
        mask_HW4 = unpacked(region["value"]["rle"]).reshape(40, 56, 4)
        assert region["value"]["rle"] == [*brush(mask_HW4[..., 3] > 0)]
        assert 0 < region["score"] <= 1
        assert name in ("bee", "ladybird")


def test_masks_are_those_of_the_network(
    serve: Callable[..., Client], network: Network, photos: Path, tiny_config: Callable[..., Config]
) -> None:
    label_HW = Segmenter(network, tiny_config(), torch.device("cpu")).predict(photos / "a.png").label_HW
    client = serve()
    for region in client.predict("a.png")[2]["results"][0]["result"]:
        k = ("bee", "ladybird").index(region["value"]["brushlabels"][0]) + 1
        assert np.array_equal(unpacked(region["value"]["rle"]).reshape(40, 56, 4)[..., 3] > 0, label_HW == k)
    result = client.predict("a.png", config=POLYGONS)[2]["results"][0]["result"]
    assert {region["type"] for region in result} == {"polygonlabels"}
    assert {label for region in result for label in region["value"]["polygonlabels"]} == {"bee", "ladybird"}
    bee = client.predict("a.png", config=BRUSHES.replace('<Label value="ladybird"/>', ""))[2]["results"][0]["result"]
    assert [region["value"]["brushlabels"] for region in bee] == [["bee"]]


IMAGES: list[tuple[Any, int, str]] = [
    ("/data/local-files/?d=../secret.png", 403, "outside of the folder"),
    ("/data/local-files/?d=%2e%2e%2fsecret.png", 403, "outside of the folder"),
    ("../secret.png", 403, "outside of the folder"),
    ("%2e%2e/secret.png", 403, "outside of the folder"),
    ("/data/local-files/?d=/etc/passwd", 403, "outside of the folder"),
    ("/etc/passwd", 403, "outside of the folder"),
    ("out.png", 403, "outside of the folder"),
    ("up/secret.png", 403, "outside of the folder"),
    ("notes.txt", 403, "its ending"),
    ("file:///etc/passwd", 403, "another address"),
    ("http://169.254.169.254/a.png", 403, "another address"),
    ("//example.org/a.png", 403, "another address"),
    ("/data/upload/1/a.png", 403, "--label-studio"),
    ("http://[", 400, "no name of an image"),
    ("a\0.png", 400, "no name of an image"),
    ("a" * 5000 + ".png", 404, "no such file"),
    ("/data/local-files/", 400, "names no image file"),
    ("none.png", 404, "no such file"),
    ("deep er.png/..", 403, "its ending"),
    ("broken.jpg", 422, "unreadable image"),
    ("large.png", 413, "4000 x 3000 pixels"),
    (7, 400, "no image under 'data.picture'"),
    ("", 400, "no image under"),
]


def test_images_that_are_refused(serve: Callable[..., Client], tmp_path: Path) -> None:
    client = serve()
    for name, status, reason in IMAGES:
        got, line, made = client.predict(name)
        assert (got, reason in made["error"]) == (status, True), made
        assert line == made["error"][:200]
        assert str(tmp_path) not in made["error"]
    assert not any("\n" in said or "\0" in said for said in client.said)


BODIES: list[tuple[Any, int, str]] = [
    (b"{", 400, "no JSON"),
    (b"[" * 100_000, 400, "no JSON"),
    (b"[]", 400, "no JSON object"),
    (b"\xff\xfe", 400, "no JSON"),
    (b" " * (2**20 + 1), 413, "more than 1048576 bytes"),
    ({}, 400, "'tasks' is no list"),
    ({"tasks": []}, 400, "'tasks' is no list"),
    ({"tasks": [3]}, 400, "'tasks' is no list"),
    ({"tasks": [{}] * 4}, 413, "4 tasks; at most 3"),
    ({"tasks": [{}]}, 400, "no labelling config"),
    ({"tasks": [{}], "label_config": "<View>"}, 400, "no XML"),
    ({"tasks": [{}], "label_config": "<!DOCTYPE v [<!ENTITY a 'b'>]><v>&a;</v>"}, 400, "no XML"),
    ({"tasks": [{}], "label_config": "<View/>"}, 422, "neither BrushLabels nor PolygonLabels"),
    (
        {"tasks": [{}], "label_config": BRUSHES.replace("BrushLabels", "Choices")},
        422,
        "neither BrushLabels nor PolygonLabels; it has 'Choices'",
    ),
    (
        {"tasks": [{}], "label_config": BRUSHES.replace("bee", "wasp").replace("ladybird", "ant")},
        422,
        "no label of the labelling config is a class of the run: 'ant, wasp', the run has 'bee, ladybird'",
    ),
    ({"tasks": [{}], "label_config": BRUSHES.replace("$picture", "x")}, 422, "no Image with a value like"),
    ({"tasks": [{}], "label_config": BRUSHES}, 400, "no image under"),
]


def test_requests_that_are_refused(serve: Callable[..., Client]) -> None:
    client = serve()
    for body, status, reason in BODIES:
        got, _, made = client.ask("POST", "/predict", body)
        assert (got, reason in made["error"]) == (status, True), made


def test_a_batch_without_one_image(serve: Callable[..., Client]) -> None:
    client = serve()
    status, _, made = client.predict("a.png", "none.png")
    assert (status, made["results"][1]) == (200, [])
    assert made["results"][0]["result"]
    assert any("task '8' gets no prediction: 'none.png': there is no such file" in said for said in client.said)


def test_other_doors_are_closed(serve: Callable[..., Client]) -> None:
    client = serve()
    assert client.ask("POST", "/train", {})[0] == 404
    assert client.ask("GET", "/predict")[0] == 404
    assert client.ask("GET", "/../../etc/passwd")[0] == 404
    assert client.ask("GET", "/health", Host="evil.example")[0] == 403
    assert client.ask("POST", "/setup", {}, Content_Type="text/plain")[0] == 415
    status, reason, _ = client.ask("POST", "/setup", {"schema": "<View/>", "access_token": TOKEN})
    assert (status, "neither BrushLabels" in reason) == (422, True)
    assert TOKEN not in "".join(client.said)
    for length in ("", "-1", "1e3", "９"):
        with socket.create_connection((str(client.address[0]), int(client.address[1])), timeout=20) as raw:
            lines = ("POST /setup HTTP/1.1", "Host: localhost", "Content-Type: application/json")
            raw.sendall("\r\n".join((*lines, f"Content-Length: {length}", "", "")).encode())
            assert b" 411 " in raw.recv(100)
    assert client.ask("GET", "/health")[0] == 200


def test_images_of_label_studio_itself(serve: Callable[..., Client], photos: Path) -> None:
    asked: list[tuple[str, str | None]] = []

    class Host(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            moved = "moved" in self.path
            self.send_response(302 if moved else 200)
            self.send_header("Location", "/data/upload/1/a.png")
            self.end_headers()
            self.wfile.write(b"" if moved else (photos / "a.png").read_bytes())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Host) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{host.server_port}"
        client = serve(host=url, token="t0ken")
        assert client.predict("/data/upload/1/a.png", f"{url}/data/upload/1/b.png")[0] == 200
        assert asked == [("/data/upload/1/a.png", "Token t0ken"), ("/data/upload/1/b.png", "Token t0ken")]
        assert client.predict("/data/upload/1/moved.png")[::2] == (
            424,
            {"error": "'/data/upload/1/moved.png': Label Studio did not send it (302)"},
        )
        assert client.predict(f"http://127.0.0.1:{host.server_port + 1}/data/upload/1/a.png")[0] == 403
        assert client.predict(f"{url}/api/users")[0] == 403
        host.shutdown()
    assert "t0ken" not in "".join(client.said)


def test_the_command_starts_and_stops(
    network: Network, photos: Path, tmp_path: Path, tiny_config: Callable[..., Config]
) -> None:
    run = tmp_path / "net.pt"
    save_checkpoint(run, network, tiny_config())
    command = [sys.executable, "-m", "wsss", "serve", "label-studio", run, "--images", photos, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        url = program.stdout.readline().strip()
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
        connection.request("GET", "/health")
        assert json.loads(connection.getresponse().read())["status"] == "UP"
        connection.close()
        os.kill(program.pid, signal.SIGTERM)
        out, err = program.communicate(timeout=20)
    assert (program.returncode, out) == (0, "")
    assert "ML_BLOCK_LOCAL_IP=false SSRF_PROTECTION_ENABLED=false" in err
    assert err.splitlines()[-1] == "stopped by SIGTERM"


def test_a_taken_port_is_named(network: Network, photos: Path, tiny_config: Callable[..., Config]) -> None:
    from wsss.errors import MachineError, UsageError

    backend = LabelStudio(
        segmenter=Segmenter(network, tiny_config(), torch.device("cpu")), images=Images(root=photos), version="1"
    )
    with Server(backend, "127.0.0.1", 0) as first, pytest.raises(MachineError, match="cannot listen") as refused:
        Server(backend, "127.0.0.1", first.server_port)
    assert refused.value.fix.startswith("--port 0")
    with pytest.raises(UsageError, match="is no folder"):
        Images(root=photos / "none")
    with pytest.raises(UsageError, match="no address"):
        Images(root=photos, host="ftp://h")
