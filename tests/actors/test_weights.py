import pickle
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from actors.weights import PackedWeights, pack_weights
from pipeline.models.policy import merged_weights, weight_specs
from tests.support.models import tiny_llama

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int8, torch.uint8, torch.bool]
SHAPES = [(), (1,), (3,), (0,), (2, 0, 3), (5, 7), (2, 3, 4), (64, 64)]


def random(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return (torch.randn(shape) * 10).to(dtype)


def pack(tensors: dict[str, torch.Tensor]) -> PackedWeights:
    return pack_weights([(name, t.dtype, t.shape) for name, t in tensors.items()], tensors.items())


def assert_same(weights: PackedWeights, expected: dict[str, torch.Tensor]) -> None:
    unpacked = list(weights.tensors())
    assert [name for name, _ in unpacked] == list(expected)
    for name, tensor in unpacked:
        assert tensor.dtype == expected[name].dtype and tensor.shape == expected[name].shape
        assert torch.equal(tensor, expected[name])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_shape_comes_back(dtype):
    tensors = {f"{dtype} {shape}": random(shape, dtype) for shape in SHAPES}
    assert_same(pack(tensors), tensors)


def test_dtypes_can_be_mixed():
    tensors = {f"{dtype} {shape}": random(shape, dtype) for shape in SHAPES for dtype in DTYPES}
    assert_same(pack(tensors), tensors)


def test_odd_values_keep_their_bits():
    bits = torch.tensor([0x7FC1, 0x8000, 0x7F80, 0x0001], dtype=torch.int32).to(torch.int16)  # nan, -0, inf, subnormal
    ((_, tensor),) = pack({"w": bits.view(torch.bfloat16)}).tensors()
    assert torch.equal(tensor.view(torch.int16), bits)


def test_each_part_starts_at_a_multiple_of_64_bytes():
    weights = pack({"a": torch.zeros(3), "b": torch.zeros(16), "c": torch.zeros(17), "d": torch.zeros(1)})
    # 12 bytes fill 1 block of 64, 64 bytes 1, 68 bytes 2, 4 bytes 1
    assert [(spec.offset, spec.num_bytes) for spec in weights.specs] == [(0, 12), (64, 64), (128, 68), (256, 4)]
    assert weights.buffer.shape == (320,) and weights.buffer.dtype == np.uint8


def test_strided_and_trainable_tensors_are_copied():
    tensors = {"t": random((4, 6), torch.float32).t(), "s": random((8, 8), torch.float32)[::2, 1::3]}
    tensors["p"] = torch.nn.Parameter(random((3, 3), torch.float32))
    weights = pack(tensors)
    expected = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    for tensor in tensors.values():
        tensor.detach().zero_()
    assert_same(weights, expected)


def test_a_whole_model_goes_through():
    model = tiny_llama()
    weights = pack_weights(weight_specs(model, torch.bfloat16), merged_weights(model, torch.bfloat16))
    assert_same(weights, {name: p.detach().bfloat16() for name, p in model.named_parameters()})


def test_unpacking_copies_nothing():
    weights = pack({"a": torch.zeros(4), "b": torch.zeros(2, 2)})
    first, second = (tensor for _, tensor in weights.tensors())
    start = weights.buffer.__array_interface__["data"][0]
    assert (first.data_ptr() - start, second.data_ptr() - start) == (0, 64)


def test_packed_weights_travel():
    tensors = {"a": random((5, 3), torch.bfloat16), "b": random((), torch.float32)}
    assert_same(pickle.loads(pickle.dumps(pack(tensors), protocol=5)), tensors)


def test_no_weights_at_all():
    assert list(pack({}).tensors()) == []


def test_only_one_tensor_is_held_at_a_time():
    alive: list[weakref.ref[torch.Tensor]] = []

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for index in range(5):
            assert sum(ref() is not None for ref in alive) <= 1
            tensor = torch.full((4,), float(index))
            alive.append(weakref.ref(tensor))
            yield str(index), tensor

    weights = pack_weights([(str(index), torch.float32, (4,)) for index in range(5)], tensors())
    assert [tensor[0].item() for _, tensor in weights.tensors()] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_tensors_must_come_as_their_sizes_say():
    with pytest.raises(ValueError, match="got b, not a"):
        pack_weights([("a", torch.float32, (1,))], [("b", torch.zeros(1))])


def test_equal_weights_have_equal_checksums_and_one_bit_makes_another():
    first, second, other = (
        pack({"a": torch.ones(3)}),
        pack({"a": torch.ones(3)}),
        pack({"a": torch.tensor([1.0, 1.0, 2.0])}),
    )
    assert first.checksum == second.checksum != other.checksum
    first.verify()
    first.buffer[5] ^= 1
    with pytest.raises(ValueError, match=f"must arrive as they were packed, got checksum .*, not {first.checksum}"):
        first.verify()
