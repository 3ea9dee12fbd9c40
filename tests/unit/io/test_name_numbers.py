"""The number in the names of files: signed decimals count, dates do not."""

import pytest

from sbr_core.io.name_numbers import numbers_in

NUMBERS = [
    # signs and decimals
    (["bregma_-2.5", "bregma_-1.5", "bregma_1.5"], [-2.5, -1.5, 1.5]),
    (["Bregma -2.5mm", "Bregma 0mm", "Bregma 1.25mm"], [-2.5, 0, 1.25]),
    (["AP-2.5", "AP-1", "AP1.5"], [-2.5, -1, 1.5]),
    (["AP-2.5", "AP-1.5"], [-2.5, -1.5]),
    (["bregma_\N{MINUS SIGN}2,5", "bregma_2,5"], [-2.5, 2.5]),
    (["z1.0", "z1.5", "z2.0"], [1, 1.5, 2]),
    (["1.42mm", "0.98mm"], [1.42, 0.98]),
    (["x_-3", "x_0", "x_3"], [-3, 0, 3]),
    # a dash separates, and so does a full stop
    (["s-01", "s-02"], [1, 2]),
    (["sub-01_ses-1", "sub-02_ses-2"], [1, 2]),
    (["sub-01_z-0.5", "sub-01_z-1.5"], [0.5, 1.5]),
    (["mouse12.004", "mouse12.005"], [4, 5]),
    (["b1.1", "b1.2", "b2.1"], None),
    # dates and times
    (["s1_2024-01-15", "s2_2024-01-16", "s3_2024-01-18"], [1, 2, 3]),
    (["20240115_1", "20240116_2"], [1, 2]),
    (["2024-1-5_s3", "2024-1-15_s4"], [3, 4]),
    (["20230507-12", "20230508-14"], [12, 14]),
    (["15Jan2024 s3", "16Jan2024 s4"], [3, 4]),
    (["03.12.2021_a7", "04.12.2021_a9"], [7, 9]),
    (["s7_15-01-24", "s9_15-01-25"], [7, 9]),
    (["240115_3", "240116_4"], [3, 4]),
    (["IMG_20240115_101530", "IMG_20240115_101631"], None),
    (["brain_20240115", "brain_20240116"], None),
    (["scan 2024-01-15 10-15-30", "scan 2024-01-15 10-16-31"], None),
    # numbers that could be dates
    (["20240115_0012", "20240115_0013"], [12, 13]),
    (["20240115_000012", "20240115_000013"], [12, 13]),
    (["000123", "000124"], [123, 124]),
    (["2024_7_1", "2024_7_2"], [1, 2]),
    # several that differ
    (["s12_1034", "s13_1001"], [12, 13]),
    (["2024_b7_1", "2024_b8_2"], [1, 2]),
    (["a1", "a1b2"], None),
    (["one"], None),
]


@pytest.mark.parametrize(("names", "values"), NUMBERS)
def test_the_number_of_each_name(names, values):
    numbers = numbers_in(names)
    assert (None if numbers is None else [float(v) for v in numbers.values]) == values
    if numbers is not None:
        for name, text in zip(names, numbers.texts, strict=True):
            assert text in name  # as it is written, to be shown
