"""Packed updates: numbers, factors, error feedback, and whole runs whose messages are packed."""

from __future__ import annotations

import math
import pathlib

import numpy
import pandas
import pytest
import safetensors.torch
import torch
from federation_fake import FakeHospital, FakeTask, everything, failure, fake_configuration, server_json
from flwr.app import Array, ArrayRecord

from fedmrg_core.errors import InputError
from fedmrg_core.federation import grid, hospital
from fedmrg_core.federation.compression import (
    BLOCK,
    decode_array,
    dequantise,
    encode_array,
    encoded_size,
    pack,
    pack_nibbles,
    packed_sizes,
    quantise,
    quantised_size,
    unpack,
    unpack_nibbles,
)
from fedmrg_core.federation.messages import ARRAYS, to_record
from fedmrg_core.federation.run import run_federation
from fedmrg_core.runs.methods import Payload, ServerRule

PACKED = Payload(rank=2, bits=4)
BUFFER = "encoder/stage.variance"


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- numbers ----


@pytest.mark.parametrize("count", [0, 1, 2, 7, 16, 129])
def test_nibbles_come_back(count: int) -> None:
    integers = numpy.random.default_rng(count).integers(-8, 8, size=count)
    data = pack_nibbles(integers)
    assert len(data) == math.ceil(count / 2)
    numpy.testing.assert_array_equal(unpack_nibbles(data, count), integers)


@pytest.mark.numerical
@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("columns", [1, 63, 64, 65, 200])
def test_a_number_errs_by_half_a_scale_at_most(bits: int, columns: int) -> None:
    values = normal(3, columns) * torch.tensor([[1e-6], [1.0], [1e4]])  # rows of very different size
    data = quantise(values, bits)
    assert len(data) == quantised_size(3, columns, bits)
    error = (dequantise(data, 3, columns, bits) - values).abs()
    for start in range(0, columns, BLOCK):
        block = values[:, start : start + BLOCK]
        scale = block.abs().amax(dim=1) / (2 ** (bits - 1) - 1) * (1 + 2**-7)  # rounded up to bfloat16
        assert (error[:, start : start + BLOCK].amax(dim=1) <= scale / 2 * (1 + 1e-9)).all()


@pytest.mark.numerical
def test_more_bits_err_less() -> None:
    values = normal(8, 100)
    errors = [(dequantise(quantise(values, bits), 8, 100, bits) - values).norm().item() for bits in (4, 8, 16, 32)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2] > 100 * errors[3]
    assert errors[0] < 0.15 * values.norm()


def test_zeros_stay_zero_and_the_wrong_length_is_refused() -> None:
    assert (dequantise(quantise(torch.zeros(2, 70), 4), 2, 70, 4) == 0).all()
    with pytest.raises(ValueError, match="3 bytes"):
        dequantise(b"abc", 2, 70, 4)


# ---- arrays ----


@pytest.mark.parametrize("shape", [(), (5,), (7, 3), (40, 30), (30, 5, 4, 2), (16, 192), (192, 16), (1, 9), (0, 4)])
@pytest.mark.parametrize("settings", [Payload(rank=2, bits=4), Payload(rank=8, bits=8), Payload(bits=16)])
def test_an_array_has_the_size_announced(shape: tuple[int, ...], settings: Payload) -> None:
    values = normal(*shape)
    data = encode_array(values, settings)
    assert len(data) == encoded_size(shape, settings) <= max(4 * values.numel(), 8)
    assert decode_array(data, shape, settings).shape == values.shape


@pytest.mark.numerical
@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (30, 5, 8)])
def test_factors_are_the_truncated_svd(shape: tuple[int, ...]) -> None:
    values, settings = normal(*shape), Payload(rank=4, bits=32)
    u, s, vh = torch.linalg.svd(values.reshape(shape[0], -1), full_matrices=False)
    expected = ((u[:, :4] * s[:4]) @ vh[:4]).reshape(shape)
    found = decode_array(encode_array(values, settings), shape, settings)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.numerical
def test_a_matrix_of_low_rank_comes_whole() -> None:
    values = normal(40, 3) @ normal(3, 50, seed=1)
    for bits, error in ((32, 1e-6), (16, 1e-4), (8, 0.02), (4, 0.25)):
        settings = Payload(rank=4, bits=bits)
        found = decode_array(encode_array(values, settings), values.shape, settings)
        assert (found - values).norm() < error * values.norm()


@pytest.mark.numerical
@pytest.mark.parametrize("bits", [8, 4])
def test_the_second_factor_makes_up_for_the_rounding_of_the_first(bits: int) -> None:
    values = normal(60, 20) @ normal(20, 90, seed=1) + 0.5 * normal(60, 90, seed=2)
    settings = Payload(rank=12, bits=bits)
    error = (decode_array(encode_array(values, settings), values.shape, settings) - values).square().sum()
    u, s, _ = torch.linalg.svd(values, full_matrices=False)
    vectors, left_away = u[:, :12].T, s[12:].square().sum()  # what no factors of this rank can send
    rounded = [dequantise(quantise(each, bits), *each.shape, bits) for each in (vectors, vectors @ values)]
    by_itself = (rounded[0].T @ rounded[1] - values).square().sum()
    assert error - left_away < 0.95 * (by_itself - left_away)


# ---- models and error feedback ----


def model(seed: int) -> dict[str, torch.Tensor]:
    shapes = {"encoder/a": (30, 4, 3), "encoder/scale": (30,), BUFFER: (30,), "control/encoder/a": (4,)}
    return {key: normal(*shape, seed=seed + i).float() for i, (key, shape) in enumerate(shapes.items())}


@pytest.mark.numerical
def test_a_model_arrives_as_its_sender_knows() -> None:
    new, base = model(0), model(10)
    packed = pack(new, base, {}, PACKED, {BUFFER})
    assert set(packed.record) == {"encoder/packed", "control/packed"}
    sizes = packed_sizes({key: tensor.shape for key, tensor in base.items()}, PACKED, {BUFFER})
    assert {name: array.numpy().size for name, array in packed.record.items()} == sizes
    arrived = unpack(packed.record, base, PACKED, {BUFFER})
    for key, tensor in arrived.items():
        assert torch.equal(tensor, packed.received[key]) and tensor.dtype == torch.float32
        if key != BUFFER:
            torch.testing.assert_close(tensor + packed.unsent[key], new[key])
    assert torch.equal(arrived[BUFFER], new[BUFFER]) and BUFFER not in packed.unsent


@pytest.mark.numerical
@pytest.mark.parametrize(
    ("settings", "far"), [(PACKED, False), (PACKED.model_copy(update={"error_feedback": False}), True)]
)
def test_error_feedback_sends_everything_in_the_end(settings: Payload, far: bool) -> None:
    """The same update fifty times: what arrives adds up to what was sent, and without feedback it does not."""
    update, unsent, arrived = model(0), {}, 0.0
    zeros = {key: torch.zeros_like(tensor) for key, tensor in update.items()}
    for _ in range(50):
        packed = pack(update, zeros, unsent, settings)
        unsent, arrived = packed.unsent, arrived + packed.received["encoder/a"]
    error = ((arrived / 50 - update["encoder/a"]).norm() / update["encoder/a"].norm()).item()
    assert (error > 0.5) if far else (error < 0.15)


def test_what_cannot_be_a_model_is_refused() -> None:
    new, base = model(0), model(10)
    record = pack(new, base, {}, PACKED).record
    short = ArrayRecord({**record, "encoder/packed": Array(record["encoder/packed"].numpy()[:-1])})
    scales = record["encoder/packed"].numpy().copy()
    scales[:2] = 0xFF  # bfloat16 NaN
    for wrong, reason in (
        (short, "encoder/packed holds"),
        (ArrayRecord({"encoder/packed": record["encoder/packed"]}), "control/packed is missing"),
        (ArrayRecord({**record, "encoder/packed": Array(scales)}), "encoder/a holds NaN"),
    ):
        with pytest.raises(ValueError, match=reason):
            unpack(wrong, base, PACKED)
    for wrong, reason in (
        ({**new, "encoder/scale": new["encoder/scale"] * torch.nan}, "encoder/scale holds NaN"),
        ({**new, "encoder/scale": new["encoder/scale"][:1]}, "has shape"),
        ({"encoder/a": new["encoder/a"]}, "missing or unknown"),
    ):
        with pytest.raises(ValueError, match=reason):
            pack(wrong, base, {}, PACKED)


# ---- runs ----


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("packed")
    run_federation(folder, fake_configuration(rounds=4, payload=PACKED), progress=False)
    return folder


@pytest.mark.numerical
def test_a_packed_run_stopped_after_each_round(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    configuration = fake_configuration(rounds=4, payload=PACKED)
    for number in (1, 2, 3, 4):
        run_federation(tmp_path, configuration, stop_after_round=number, progress=False)
    assert everything(tmp_path) == everything(finished)


def test_a_packed_run_killed_in_training_and_in_validation(
    finished: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at the last client's training, and at the last one's validation, when others have gone on."""
    for name in ("train", "validate"):
        with monkeypatch.context() as patch:
            original, calls = getattr(FakeHospital, name), []

            def then_die(*arguments, original=original, calls=calls, **options):
                calls.append(arguments)
                if len(calls) == 6:
                    raise KeyboardInterrupt
                return original(*arguments, **options)

            patch.setattr(FakeHospital, name, then_die)
            with pytest.raises(KeyboardInterrupt):
                run_federation(tmp_path / name, fake_configuration(rounds=4, payload=PACKED), progress=False)
        run_federation(tmp_path / name, fake_configuration(rounds=4, payload=PACKED), progress=False)
        assert everything(tmp_path / name) == everything(finished)


@pytest.mark.numerical
def test_hospitals_and_server_have_the_same_model(finished: pathlib.Path) -> None:
    shared = safetensors.torch.load_file(finished / "checkpoint" / "round-0004" / "shared.safetensors")
    for client in "abc":
        disk = hospital.HospitalDisk(finished, client)
        kept = disk.load_model(4)
        assert all(torch.equal(kept[key], shared[key]) for key in shared) and set(kept) == set(shared)
        assert any(tensor.abs().sum() > 0 for tensor in disk.load_unsent(4).values())
        best = server_json(finished)["best"]["round_number"]  # not sent again at the end
        expected = sorted(f"model-{number:04d}.safetensors" for number in {best, 3, 4})
        assert sorted(path.name for path in disk.folder.glob("model-*")) == expected


@pytest.mark.parametrize("rule", ["fedavgm", "fedadam", "exact-lora", "median"])
def test_packed_with_a_server_rule_and_partial_participation(rule: str, tmp_path: pathlib.Path) -> None:
    configuration = fake_configuration(rounds=4, payload=PACKED, server=ServerRule(rule=rule), participation=0.5)
    run_federation(tmp_path / "whole", configuration, progress=False)
    for number in (1, 2, 3, 4):
        run_federation(tmp_path / "parts", configuration, stop_after_round=number, progress=False)
    assert everything(tmp_path / "parts") == everything(tmp_path / "whole")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("nan", "error: ValueError"),
        ("shape", "error: ValueError"),
        ("short", "shape"),
        ("scale", "NaN or infinity"),
        ("double", "type float64, expected uint8"),
        ("whole", "is missing"),
    ],
)
def test_a_spoilt_packed_update_is_left_out(
    kind: str, reason: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAILURES", f"b:{kind}:2")
    deliver = grid.InProcessGrid._deliver

    def spoil(self, message):
        reply = deliver(self, message)
        client = self._contexts[message.metadata.dst_node_id].node_config["partition-id"]
        config = message.content["config"] if "config" in message.content else {}
        round_number = config.get("server-round", 0)
        if message.metadata.message_type == "train" and failure("abc"[client], round_number) and reply.has_content():
            data = reply.content[ARRAYS]["generic_adapter/packed"].numpy().copy()
            changed = {"short": data[:-1], "double": data.astype(float), "scale": numpy.full_like(data, 0xFF)}
            if kind in changed:
                rest = dict(reply.content[ARRAYS])
                reply.content[ARRAYS] = ArrayRecord({**rest, "generic_adapter/packed": Array(changed[kind])})
            if kind == "whole":
                reply.content[ARRAYS] = to_record({"encoder/stage.weight": torch.zeros(3, 4)})
        return reply

    monkeypatch.setattr(grid.InProcessGrid, "_deliver", spoil)
    run_federation(tmp_path, fake_configuration(payload=PACKED), progress=False)
    table = pandas.read_csv(tmp_path / "rounds.csv", keep_default_na=False).set_index(["round", "client"])
    assert table.loc[(2, "b"), "status"] == "left_out" and reason in table.loc[(2, "b"), "reason"]
    assert (table.drop((2, "b")).status == "ok").all()
    assert server_json(tmp_path)["state_rounds"] == {"a": 3, "b": 3, "c": 3}


@pytest.mark.parametrize("payload", [Payload(), PACKED])
def test_a_lost_disk_gets_the_model_again(
    payload: Payload, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = fake_configuration(rounds=2, payload=payload)
    run_federation(tmp_path / "whole", configuration, progress=False)
    run_federation(tmp_path / "lost", configuration, stop_after_round=1, progress=False)
    for path in (tmp_path / "lost" / "hospitals" / "b").glob("model-*"):
        path.write_bytes(b"broken")
    run_federation(tmp_path / "lost", configuration, progress=False)
    found, expected = everything(tmp_path / "lost"), everything(tmp_path / "whole")
    assert {name for name in expected if found[name] != expected[name]} == {
        "ledger.csv",
        "checkpoint/round-0002/server.json",
        "checkpoint/round-0002/files.sha256",  # which has that one's digest
        "checkpoint/current",
    }
    ledger = pandas.read_csv(tmp_path / "lost" / "ledger.csv").query("phase == 'train' and module == 'message'")
    counts = ledger[ledger["round"] == 2].groupby("client").direction.count()
    assert counts.to_dict() == {"a": 2, "b": 4, "c": 2}


def test_a_hospital_whose_initial_model_differs_is_sent_the_servers(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine where the seed gives other numbers."""
    from fedmrg_core.federation import model_exchange

    run_federation(tmp_path / "same", fake_configuration(payload=PACKED), progress=False)
    other = FakeTask(tmp_path, fake_configuration(seed=5)).initial_shared()
    monkeypatch.setattr(model_exchange, "initial_model", lambda run_folder: other)
    run_federation(tmp_path / "other", fake_configuration(payload=PACKED), progress=False)
    name = "model/shared.safetensors"
    assert everything(tmp_path / "same")[name] == everything(tmp_path / "other")[name]


def test_a_hospital_left_out_gets_the_whole_model_next(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_FAILURES", "b:raises:2")
    run_federation(tmp_path, fake_configuration(payload=PACKED), progress=False)
    ledger = pandas.read_csv(tmp_path / "ledger.csv").query("phase == 'train' and direction == 'down'")
    with_arrays = ledger[ledger.module == "encoder"]
    assert list(zip(with_arrays["round"], with_arrays.client, strict=True)) == [(3, "b")]


def test_the_model_goes_down_once_a_round(tmp_path: pathlib.Path) -> None:
    run_federation(tmp_path, fake_configuration(), progress=False)
    ledger = pandas.read_csv(tmp_path / "ledger.csv")
    down = ledger[(ledger.direction == "down") & (ledger.module == "encoder")]
    assert set(down.phase) == {"evaluate"} and len(down) == 9
    shared = FakeTask(tmp_path, fake_configuration()).initial_shared()
    assert (down.bytes > 4 * sum(t.numel() for key, t in shared.items() if key.startswith("encoder/"))).all()


def test_a_rank_that_changes_nothing_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"payload.rank is 100"):
        run_federation(tmp_path, fake_configuration(payload=Payload(rank=100)), progress=False)
    assert not (tmp_path / "rounds.csv").exists()


def test_a_realistic_model_is_packed_to_a_twentieth() -> None:
    """An encoder of four stages, a projection, a head, prompts and LoRA of rank 16 on a small LLM."""
    shapes: dict[str, tuple[int, ...]] = {"encoder/stem": (32, 1, 7, 7)}
    for stage, (before, width) in enumerate([(32, 32), (32, 64), (64, 128), (128, 192)]):
        shapes |= {f"encoder/{stage}.a": (width, before, 3, 3), f"encoder/{stage}.b": (width, width, 3, 3)}
        shapes |= {f"encoder/{stage}.{name}": (width,) for name in ("weight", "bias", "mean", "variance")}
    shapes |= {"projection/w": (192, 192), "diagnosis_head/w": (56, 192), "prompt_table/w": (56, 192)}
    for layer in range(8):
        shapes |= {f"generic_adapter/{layer}.lora_A": (16, 192), f"generic_adapter/{layer}.lora_B": (192, 16)}
    buffers = {key for key in shapes if key.endswith(("mean", "variance"))}
    whole = 4 * sum(math.prod(shape) for shape in shapes.values())
    packed = sum(packed_sizes(shapes, Payload(rank=8, bits=4), buffers).values())
    assert packed <= whole / 20, f"{whole / packed:.1f} times smaller"
