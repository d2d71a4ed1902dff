"""Untrusted files: no code in them is executed, and sizes that they claim are checked before memory is allocated."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import save_file

from wsss.config import Config, resolve
from wsss.data.readers.annotations import MAX_ANNOTATION, xml_labels
from wsss.data.readers.text import MAX_TEXT, read_text
from wsss.data.readers.voc import is_class_list
from wsss.errors import DataError, UsageError, WsssError
from wsss.models import archive, checkpoint
from wsss.models.archive import MAX_PICKLE
from wsss.models.backbone import Backbone, read_weights
from wsss.models.checkpoint import load_network, part_of, read_checkpoint, save_checkpoint
from wsss.models.network import build_network

BACKBONE = "deit_tiny_patch16_224"
VIT = {"patch_size": 8, "img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3}
SKETCHED = (
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "vit_tiny_r_s16_p8_224",
    "eva02_tiny_patch14_224",
    "vit_tiny_patch16_dinov3_qkvb",
)
"""A plain transformer, one with two prefix tokens, one with a convolutional stem, two with rotary positions."""
LITTLE = 256 * 2**20
"""Bytes that reading a bad file may add to the peak memory of a process."""


class Malicious:
    """Unpickling this object would create a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def little_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < LITTLE


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid checkpoint."""
    path = tmp_path_factory.mktemp("good") / "good.pt"
    network = build_network(BACKBONE, ["cat", "dog"], decoder_channels=16, vit=VIT)
    config = resolve(None, (), {"model.backbone": BACKBONE, "model.vit": VIT, "model.decoder_channels": 16})
    save_checkpoint(path, network, config, training={"step": 1})
    load_network(path)
    return path


@pytest.fixture
def content(good: Path) -> dict[str, Any]:
    """Content of the valid checkpoint."""
    return read_checkpoint(good)


@pytest.mark.parametrize("where", ["whole", "classes", "config", "training"])
def test_a_malicious_checkpoint_does_nothing(warm: Any, tmp_path: Path, content: dict[str, Any], where: str) -> None:
    trap, run, image = tmp_path / "trap", tmp_path / "run", tmp_path / "image.png"
    run.mkdir()
    torch.save(Malicious(trap) if where == "whole" else content | {where: Malicious(trap)}, run / "last.pt")
    commands = [
        ["predict", run, tmp_path, "-o", tmp_path / "out"],
        ["make-pseudo", run, "--data", tmp_path, "-o", tmp_path / "out"],
        ["train-cls", "--resume", run],
    ]
    for command in commands if where == "whole" else commands[:1]:
        program = warm.start(*command)
        assert program.wait() == 3, program.error
        assert "Traceback" not in program.error
        problem, _ = program.error_and_fix
        assert problem.startswith(f"{run / 'last.pt'}: cannot be read as a checkpoint (it asks for posix.mkdir")
    assert not trap.exists()
    assert not image.exists()
    torch.load(run / "last.pt", weights_only=False)  # without the check the folder is created
    assert trap.exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_malicious_weights_do_nothing(warm: Any, scenes: Path, tmp_path: Path, name: str) -> None:
    trap, path = tmp_path / "trap", tmp_path / name
    path.write_bytes(pickle.dumps(Malicious(trap)))
    program = warm.start("train-cls", "--data", scenes, "-o", tmp_path / "run", "--weights", path, "--device", "cpu")
    assert program.wait() == 3, program.error
    assert program.error_and_fix[0].startswith(f"{path}: cannot be read as weights (")
    assert not trap.exists()
    assert not (tmp_path / "run").exists()


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def rezipped(path: Path, change: Callable[[str, bytes], bytes] = lambda name, part: part, how: int = 0) -> Path:
    """The same archive with other parts or compression."""
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", how) as file:
        for name, part in parts.items():
            file.writestr(name, change(name, part))
    return path


VIT_CLAIMS: dict[str, int] = {
    "embed_dim": 9 * 10**6,
    "depth": 10**6,
    "img_size": 2**30,
    "num_heads": 10**9,
    "reg_tokens": 2**40,
    "mlp_ratio": 10**9,
    "init_values": 10**9,
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("key", VIT_CLAIMS)
def test_a_config_that_claims_a_huge_network(tmp_path: Path, content: dict[str, Any], key: str) -> None:
    content["config"]["model"]["vit"][key] = VIT_CLAIMS[key]
    with pytest.raises(DataError, match=r"do not fit its config|describes no network"):
        load_network(save(tmp_path / "last.pt", content))


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"classes": [f"class {k}" for k in range(10**6)]},
            "is no wsss checkpoint|bytes that are no tensors",
        ),
        ({"classes": ["one"] * 255}, "is no wsss checkpoint"),
        ({"classes": []}, "is no wsss checkpoint"),
        ({"classes": "cat"}, "is no wsss checkpoint"),
        ({"classes": [1, 2]}, "is no wsss checkpoint"),
        ({"classes": ["cat", "dog", "cow"]}, "do not fit its config"),
        ({"kind": "other"}, "is no wsss checkpoint"),
        ({"kind": ["segmentation"]}, "is no wsss checkpoint"),
        ({"kind": "classification"}, "do not fit its config"),
        ({"network": [1]}, "is no wsss checkpoint"),
        ({"network": {"a": 1}}, "is no wsss checkpoint"),
        ({"network": {}}, "do not fit its config"),
        ({"config": 3}, "another version wrote its config"),
        ({"config": {"model": {"vit": {"pretrained": 1}}}}, "describes no network|do not fit its config"),
        ({"config": {"model": {"backbone": "resnet50"}}}, "describes no network"),
        ({"training": torch.zeros(1).expand(2**34)}, "do not fit its config .*more than 8 times"),
        (
            {"training": {"optimizer": [torch.zeros(1).expand(2**28)] * 40}},
            "do not fit its config .*more than 8",
        ),
    ],
)
def test_checkpoints_that_claim_too_much_or_other_things(
    tmp_path: Path, content: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        load_network(save(tmp_path / "last.pt", content | change))


@pytest.mark.usefixtures("little_memory")
def test_shapes_are_compared_before_a_large_file_is_read(
    tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has the size that it claims; the limit is lowered so that a network of 1 MB counts as large."""
    monkeypatch.setattr(checkpoint, "UNCHECKED", 2**16)
    content["config"]["model"]["vit"]["embed_dim"] = 48
    path, load = save(tmp_path / "last.pt", content), torch.load
    monkeypatch.setattr(torch, "load", lambda *_, mmap=False, **how: load(*_, mmap=mmap, **how) if mmap else 1 / 0)
    with pytest.raises(DataError, match="do not fit its config"):
        read_checkpoint(path)


@pytest.mark.usefixtures("little_memory")
def test_archives_that_are_bombs(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "last.pt"
    rezipped(save(path, content), how=zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="the archive is compressed"):
        read_checkpoint(path)

    rezipped(save(path, content), lambda name, part: bytes(2 * len(part)) if name.endswith("/data/0") else part)
    with pytest.raises(DataError, match="a storage is not of the size it claims"):
        read_checkpoint(path)

    longer = b"\x80\x02" + b"0" * MAX_PICKLE
    rezipped(save(path, content), lambda name, part: longer if name.endswith("data.pkl") else part)
    with pytest.raises(DataError, match=f"more than {MAX_PICKLE} bytes that are no tensors"):
        read_checkpoint(path)

    save(path, content)  # every entry refers to the same bytes: in sum 50 times the file
    raw = path.read_bytes()
    start = raw.rindex(b"PK\x05\x06")
    size, offset = struct.unpack("<II", raw[start + 12 : start + 20])
    directory = raw[offset : offset + size]
    entries = [directory.replace(b"good/", b"g%03d/" % k) for k in range(50)]
    many = b"".join(entries)
    end = bytearray(raw[start:])
    count = struct.unpack("<H", end[8:10])[0]
    end[8:12] = struct.pack("<HH", 50 * count, 50 * count)
    end[12:16] = struct.pack("<I", len(many))
    path.write_bytes(raw[:offset] + many + end)
    with pytest.raises(DataError, match=r"share a name|claims to hold more than the file"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("pickled", "said"),
    [
        (b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", r"it asks for builtins\.bytearray"),
        (b"ctorch\nTensor\nJ\xff\xff\xff\x7f\x85R.", r"it asks for torch\.Tensor"),
        (b"ctorch\nUntypedStorage\nJ\xff\xff\xff\x7f\x85R.", r"it asks for torch\.UntypedStorage"),
        (b"ctorch\nFloatStorage\nJ\xff\xff\xff\x7f\x85R.", "not callable"),
        (b"\x96\xff\xff\xff\xff\x00\x00\x00\x00.", "bytes"),
        (b"cos\nsystem\nX\x04\x00\x00\x00true\x85R.", r"it asks for os\.system"),
        (b"\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", "it asks for more than plain values"),
        (b"ccollections\nOrderedDict\n(]t\x85R.", "not enough values|more than 0 values"),
        (b"ccollections\nOrderedDict\n)R}X\x04\x00\x00\x00keysK\x05sb.", "not of the size it claims"),
        (b"}.", "not of the size it claims"),  # an empty dict, but the file has storages
        (b"", "exhausted|end of"),
    ],
)
@pytest.mark.usefixtures("little_memory")
def test_pickles_that_ask_for_memory_or_worse(
    tmp_path: Path, content: dict[str, Any], pickled: bytes, said: str
) -> None:
    path = save(tmp_path / "last.pt", content)
    rezipped(path, lambda name, part: b"\x80\x02" + pickled if name.endswith("data.pkl") else part)
    with pytest.raises(DataError, match=said):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"K\x30", b"K\x31", "a storage is not of the size it claims"),
        (b"K\x02K\x18\x86", b"K\x03K\x18\x86", "resize storage|out of bounds"),
    ],
)
def test_tensors_beyond_their_storage(tmp_path: Path, old: bytes, new: bytes, said: str) -> None:
    """Some versions of torch trusted the claimed length and read memory beyond the storage."""
    path = save(tmp_path / "last.pt", {"a": torch.arange(48.0).view(2, 24)})

    def change(name: str, part: bytes) -> bytes:
        return part.replace(old, new, 1) if name.endswith("data.pkl") else part

    with pytest.raises(DataError, match=said):
        read_checkpoint(rezipped(path, change))


def test_storages_that_claim_each_others_size(tmp_path: Path) -> None:
    """The sum of the sizes is right, but the first storage would be read beyond its end."""
    path = save(tmp_path / "last.pt", {"a": torch.arange(100.0)[:2], "b": torch.arange(200.0)[:2]})
    assert archive.read_archive(path, lambda content: None)["b"].tolist() == [0, 1]

    def swap(name: str, part: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return part
        assert part.count(b"Kd") == part.count(b"K\xc8") == 1
        return part.replace(b"Kd", b"K?").replace(b"K\xc8", b"Kd").replace(b"K?", b"K\xc8")

    with pytest.raises(DataError, match="a storage is not of the size it claims"):
        read_checkpoint(rezipped(path, swap))


def test_what_torch_save_writes_is_read_as_it_was(tmp_path: Path) -> None:
    """Tensors of every type and layout that our checkpoints can contain."""
    base = torch.arange(24, dtype=torch.float64)
    types = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64]
    types += [torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
    assert len(types) == len(archive.TYPES)
    tree = {
        "plain": [1, -70000, 2**40, 1.5, None, True, "ü", (1, (2, 3), ()), {0: {}}],
        "views": [base, base.view(4, 6).t(), base[3:7], base[::2], torch.zeros(0, 3), torch.tensor(5)],
        "types": [torch.zeros(3, dtype=dtype) for dtype in types],
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "state": torch.nn.Linear(2, 3).state_dict(),
    }
    seen: list[Any] = []
    loaded = archive.read_archive(save(tmp_path / "a.pt", tree), seen.append)
    ours = list(archive.tensors_in(tree))
    assert len(ours) == 6 + len(types) + 1 + 2
    for content in (seen[0], loaded):
        for expected, found in zip(ours, archive.tensors_in(content), strict=True):
            assert (found.dtype, found.shape, found.stride()) == (expected.dtype, expected.shape, expected.stride())
            assert torch.equal(found, expected)
        assert content["plain"] == tree["plain"]


def test_numbers_of_another_byte_order(tmp_path: Path) -> None:
    """It is refused, because torch would read and swap all numbers before the shapes are compared."""
    other = b"big" if sys.byteorder == "little" else b"little"
    path = save(tmp_path / "last.pt", {"a": torch.ones(2)})
    rezipped(path, lambda name, part: other if name.endswith("/byteorder") else part)
    with pytest.raises(DataError, match=f"are not {sys.byteorder}-endian"):
        read_checkpoint(path)


@pytest.mark.usefixtures("little_memory")
def test_safetensors_with_a_wrong_header(tmp_path: Path) -> None:
    path, backbone = tmp_path / "weights.safetensors", Backbone(BACKBONE, overrides=VIT)
    huge = {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}
    headers: list[Any] = [
        {"a": huge},
        {"a": {**huge, "data_offsets": [0, 4]}},
        {"a": {**huge, "shape": [2**62, 2**62]}},
        {"a": {**huge, "shape": [-1]}},
        {"a": {**huge, "data_offsets": [4, 0]}},
        {"a": []},
        [],
    ]
    for header in headers:
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
        with pytest.raises(DataError, match="cannot be read as weights"):
            backbone.load(str(path))
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(DataError, match="cannot be read as weights"):
        backbone.load(str(path))


@pytest.mark.usefixtures("little_memory")
def test_weights_files_full_of_something_else(tmp_path: Path) -> None:
    """A sparse file can claim a huge size; wrong shapes are refused before its data are read."""
    backbone = Backbone(BACKBONE, overrides=VIT)
    state = dict(backbone.vit.state_dict())
    path = tmp_path / "weights.safetensors"
    tensors = {**state, "norm.weight": torch.zeros(7)}
    save_file(tensors, path)
    header = json.loads(path.read_bytes()[8 : 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]])
    end = max(entry["data_offsets"][1] for entry in header.values() if "data_offsets" in entry)
    header["blob"] = {"dtype": "U8", "shape": [2**32], "data_offsets": [end, end + 2**32]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end + 2**32)
    with pytest.raises(DataError, match=r"unexpected blob; shape: norm\.weight is \(7,\)|unable to mmap"):
        backbone.load(str(path))
    for content in (
        {"model": state, "optimizer": torch.zeros(1).expand(2**36)},
        {"model": {**state, "head.weight": torch.zeros(1).expand(2**36)}},
    ):
        pth = save(tmp_path / "weights.pth", content)
        with pytest.raises(DataError, match="bytes of tensors, most of them no weights"):
            backbone.load(str(pth))


def test_weights_of_the_format_before_zip(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match="cannot be read as weights") as caught:
        read_weights(tmp_path / "old.pth")
    assert "export it again" in caught.value.fix


@pytest.mark.parametrize("name", SKETCHED)
def test_a_network_loaded_without_random_weights_is_the_same(name: str, tmp_path: Path) -> None:
    """Loading makes no random weights first; buffers and other values must still be right."""
    small = {"depth": 2}
    network = build_network(name, ["cat"], decoder=False, vit=small).eval()
    config: Config = resolve(None, (), {"model.backbone": name, "model.vit": small})
    save_checkpoint(tmp_path / "last.pt", network, config)
    loaded = load_network(tmp_path)[0]
    ours = {**dict(loaded.named_parameters()), **dict(loaded.named_buffers())}
    theirs = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


LAUGHS = "\n".join(
    ["<?xml version='1.0'?>", "<!DOCTYPE a [", "<!ENTITY l0 'ha'>"]
    + [f"<!ENTITY l{k} '{f'&l{k - 1};' * 10}'>" for k in range(1, 10)]
    + ["]>", "<annotation><object><name>&l9;</name></object></annotation>"]
)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    "content",
    [
        LAUGHS,
        "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><annotation><object><name>&b;</name></object></annotation>",
        "<!DOCTYPE a SYSTEM 'http://localhost/a.dtd'><annotation><object><name>cat</name></object></annotation>",
        "<!DOCTYPE a [<!ENTITY % b SYSTEM 'file:///etc/passwd'> %b;]><annotation/>",
        f"<!DOCTYPE a [<!ENTITY b '{'x' * 50000}'>]><annotation>{'&b;' * 50000}</annotation>",
    ],
)
def test_xml_with_entities(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(content)
    with pytest.raises(DataError, match="it declares a document type"):
        xml_labels(path)


@pytest.mark.usefixtures("little_memory")
def test_huge_or_deep_texts(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(2**36)  # takes no room on the disk
    with pytest.raises(DataError, match=f"{2**36} bytes; at most {MAX_TEXT} are read"):
        read_text(path)
    with pytest.raises(DataError, match=f"more than {MAX_ANNOTATION} bytes"):
        xml_labels(path)
    with pytest.raises(UsageError, match="which is no config"):
        resolve(path)
    assert not is_class_list(path)
    path.write_text("<a>" * 10**5 + "</a>" * 10**5)
    assert xml_labels(path) == ()


YAML_LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 12)
)
MERGES = "a0: &a0 {x: 1, y: 2}\n" + "\n".join(
    f"a{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 9)}]}}" for k in range(1, 12)
)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (YAML_LAUGHS + "\nmaps: {scales: *a11}", "an alias of more than one value"),
        (MERGES, "an alias of more than one value"),
        ("a: &a [*a]", "an alias of more than one value"),
        ("[" * 50_000, "nested too deeply|not valid YAML"),
        ("{a: " * 50_000, "nested too deeply|not valid YAML"),
        (
            "run: {seed: !!python/object/apply:os.system ['true']}",
            "not valid YAML .*could not determine a constructor",
        ),
        ("run: {seed: !!python/name:os.system}", "not valid YAML"),
        ("run: {seed: 2001-99-99}", "not valid YAML"),
        ("run: {seed: !!int x}", "not valid YAML"),
        (f"run: {{seed: {'9' * 5000}}}", "not valid YAML"),
        (f"run: {{device: [{'x, ' * 5_000}x]}}", "'run.device' must be text, in quotes"),
        (f"maps: {{scales: [{'x, ' * 5_000}x]}}", "and 4982 more mistakes"),
        ("".join(f"key{k}: 1\n" for k in range(9000)), "and 8980 more mistakes"),
    ],
)
def test_yaml_that_grows_or_runs(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said) as caught:
        resolve(path)
    assert len(caught.value.problem) < 6000


def test_yaml_aliases_of_one_value(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "augment: {size: &size 64}\nmaps: {scales: [*size]}\npredict: {scales: [*size]}\n"
    )
    config = resolve(tmp_path / "mine.yaml")
    assert (config.augment.size, config.maps.scales, config.predict.scales) == (64, (64,), (64,))


@pytest.mark.parametrize("key", ["pretrained", "checkpoint_path", "cache_dir"])
def test_overrides_that_would_fetch_or_open_files(key: str) -> None:
    with pytest.raises(WsssError, match=f"'{key}' is no argument of a transformer"):
        Backbone(BACKBONE, overrides={**VIT, key: 1})


def test_bytes_of_a_checkpoint_are_plain(content: dict[str, Any]) -> None:
    """Our own checkpoints contain only allowed types, and their pickle is below the limit."""
    file = io.BytesIO()
    torch.save(content, file)
    assert len(file.getvalue()) > MAX_PICKLE // 100


@pytest.mark.parametrize("part", ["training", "task"])
def test_a_checkpoint_without_its_training_says_so(part: Literal["training", "task"]) -> None:
    with pytest.raises(DataError, match="weights alone"):
        part_of({part: "a string"}, part, Path("run"))
    assert part_of({part: {"step": 3}}, part, Path("run")) == {"step": 3}


@pytest.mark.parametrize(
    ("content", "what", "fix"),
    [
        (b"", "it is empty", "copy it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-lfs pointer", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "a web page", "download the file itself"),
        (b"PK\x03\x04" + bytes(200), "it was cut off", "copy it again"),
    ],
)
@pytest.mark.parametrize("kind", ["checkpoint", "weights"])
def test_what_lies_in_place_of_a_file_is_named(tmp_path: Path, content: bytes, what: str, fix: str, kind: str) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=what) as caught:
        read_checkpoint(path) if kind == "checkpoint" else read_weights(path)
    assert caught.value.fix == fix
