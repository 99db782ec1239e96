import pytest

from ommatid.runtime.onnx import sums_overflow


@pytest.mark.parametrize(
    ("cpu_facts", "overflow"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse4_1 avx2 avx512f avx512_vnni\n", False),
        ("processor\t: 0\nflags\t\t: fpu sse4_1 avx2 avx_vnni\n", False),
        ("processor\t: 0\nflags\t\t: fpu sse4_1 avx2 fma\n", True),
        ("", True),
    ],
)
def test_exact_kernels_are_chosen_where_16_bit_sums_would_overflow(cpu_facts: str, *, overflow: bool) -> None:
    assert sums_overflow(cpu_facts) is overflow
